"""Training that starts from another run, in either twin, from an imported checkpoint to an exported one."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from slm_core.config import presets
from slm_core.config.fields import with_values
from slm_core.data import prepare, validation_batches
from slm_core.hf.run import export_run, import_run
from slm_core.inference.evaluation import VALIDATION_SEED, measure
from slm_core.inference.evaluator import open_evaluator
from slm_core.inference.sampling import generate
from slm_core.model.weights import read_weights
from slm_core.runs.saved import load_run
from slm_core.runs.weights import run_weights
from slm_core.training.loop import train
from slm_core.training.metrics import read_metrics

transformers = pytest.importorskip("transformers")

from slm_core.data.tokenizers import train_bpe  # noqa: E402

TWINS = ("torch", "flax")
SLOW_FLAX = pytest.param("flax", marks=pytest.mark.slow)
TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 60
ROWS = 4


def items(entries, what):
    return entries


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A run imported from a Llama of transformers, whose embedding has more rows than its tokenizer has tokens."""
    import torch

    work = tmp_path_factory.mktemp("finetune")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=True, eos_token_id=319, bos_token_id=0,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(work / "hf")
    train_bpe([TEXT], 300).inner.save(str(work / "hf" / "tokenizer.json"))
    (work / "hf" / "generation_config.json").write_text("{}")
    (work / "text.txt").write_text(TEXT)
    import_run(work / "hf", work / "models" / "imported", "flax", 0, items)
    return work


def configured(work: Path, base: str, name: str, **values):
    """Returns the preset for a base, made small and float64."""
    config, _ = presets.load(f"configs/finetune.py:{work / 'models' / base}")
    small = {
        "data.path": str(work / "text.txt"), "data.dir": str(work / "data"), "data.split": "tail",
        "optim.lr": 0.01, "optim.warmup_steps": 1, "train.steps": 3, "train.batch_size": ROWS, "train.log_every": 1,
        "train.eval_batches": 2, "train.sample_every": 0, "train.checkpoint_every": 0,
        "precision.params": "float64", "precision.compute": "float64",
        "run.dir": str(work / "models"), "run.name": name, "run.device": "cpu",
    }  # fmt: skip
    return with_values(config, small | values)


def run(config, framework: str, prepare_engine=lambda engine: None):
    engines = []

    def build(*arguments):
        engines.append(importlib.import_module(f"slm_{framework}.trainer").build(*arguments))
        prepare_engine(engines[0])
        return engines[0]

    return train(config, build, framework, weights_of=run_weights), engines[0]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def adapted(work):
    """{twin: (result, engine)} of three updates of adapters beside matrices in 4 bits."""
    return {twin: run(configured(work, "imported", f"lora-{twin}"), twin) for twin in TWINS}


def test_twins_adapt_alike(adapted):
    losses_by_twin = {twin: losses(result.folder) for twin, (result, _) in adapted.items()}
    assert len(losses_by_twin["torch"]) == 4 and losses_by_twin["torch"][-1] < losses_by_twin["torch"][0]
    np.testing.assert_allclose(*losses_by_twin.values(), rtol=1e-10)


@pytest.mark.parametrize("twin", ["torch", SLOW_FLAX])
def test_a_resumed_run_is_the_same(work, adapted, twin):
    def crash_at_2(engine):
        original = engine.train_step

        def train_step(tokens, lr, step):
            if step == 2:
                raise InterruptedError
            return original(tokens, lr, step)

        engine.train_step = train_step

    config = configured(work, "imported", f"resumed-{twin}", **{"train.checkpoint_every": 1})
    with pytest.raises(InterruptedError):
        run(config, twin, crash_at_2)
    result, engine = run(config, twin)
    whole = adapted[twin][1].export_state()
    assert result.finished and losses(result.folder) == losses(adapted[twin][0].folder)
    assert all(np.array_equal(whole[name], value) for name, value in engine.export_state().items())


@pytest.mark.parametrize("reader", ["torch", SLOW_FLAX])
def test_merged_weights_are_the_adapted_model(work, adapted, reader):
    """The other twin reads a run without adapters. Its loss and its text are the same."""
    result, engine = adapted["flax" if reader == "torch" else "torch"]
    saved = load_run(result.folder)
    evaluator = open_evaluator(saved, reader, "cpu")
    assert evaluator.config.finetune.kind == "full" and saved.vocab_size == 320
    dataset = prepare(saved.config.data)
    windows = list(validation_batches(dataset, saved.config.data.seq_len, ROWS, 2, VALIDATION_SEED))
    measured = measure(evaluator, windows, dataset.tokenizer, ROWS)
    assert measured.loss == pytest.approx(result.eval_loss, rel=1e-10)
    options = {"max_tokens": 8, "temperature": 0.0, "top_k": 0, "top_p": 1.0, "seed": 0}
    texts = [list(generate(model.decoder(), [1, 2, 3], **options)) for model in (evaluator, engine)]
    assert texts[0] == texts[1]


def test_an_export_computes_the_same(work, adapted):
    import torch

    result, engine = adapted["torch"]
    saved = load_run(result.folder)
    export_run(saved, run_weights(saved), work / "exported", "", "float64", items)
    exported = transformers.AutoModelForCausalLM.from_pretrained(work / "exported", dtype=torch.float64)
    tokens = list(range(40, 60))
    with torch.no_grad():
        logits = exported(torch.tensor([tokens])).logits[0, -1].numpy()
    np.testing.assert_allclose(engine.decoder().prefill(tokens), logits, rtol=0, atol=1e-6)  # whose angles are float32
    assert exported.config.eos_token_id == 319 and exported.config.vocab_size == 320
    assert (work / "exported" / "generation_config.json").is_file()
    encode = transformers.AutoTokenizer.from_pretrained(work / "exported")
    assert encode("the quick").input_ids == prepare(saved.config.data).tokenizer.encode("the quick")


@pytest.mark.parametrize("twin", TWINS)
def test_training_goes_on_from_where_a_base_was(work, adapted, twin):
    """The base was trained by the other twin, with adapters, which are merged."""
    base, engine = adapted["flax" if twin == "torch" else "torch"]
    values = {"finetune.kind": "full", "finetune.frozen": "float", "train.steps": 2}
    config = configured(work, base.folder.name, f"full-{twin}", **values)
    started = []
    result, trained = run(config, twin, lambda engine: started.append(engine.export_state()))
    merged = run_weights(load_run(base.folder))
    assert all(np.array_equal(started[0][f"params/{name}"], merged[name]) for name in merged)
    assert {name.removeprefix("params/") for name in started[0] if name.startswith("params/")} == merged.keys()
    assert load_run(result.folder).tokens["eos_token_id"] == 319
    assert result.eval_loss < base.eval_loss


def test_averages_are_a_base(work, adapted):
    """A base that trained with schedule_free starts as the averages that it evaluates."""
    values = {"optim.kind": "schedule_free", "optim.schedule": "constant", "finetune.kind": "full"}
    values |= {"finetune.frozen": "float", "train.steps": 2}
    averaged, engine = run(configured(work, "imported", "averaged", **values), "torch")
    config = configured(work, "averaged", "on", **{"finetune.frozen": "float", "train.steps": 1, "optim.lr": 1e-30})
    result, _ = run(replace(config, optim=replace(config.optim, warmup_steps=0)), "torch")
    assert result.eval_loss == pytest.approx(averaged.eval_loss, rel=1e-10)


PATH = "layers.0.attention.q_proj"


def peft_folder(folder: Path) -> None:
    """Writes an adapter of the queries, as PEFT does."""
    folder.mkdir(exist_ok=True)
    generator, prefix = np.random.default_rng(0), "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    pairs = {"A": generator.standard_normal((2, 32)), "B": generator.standard_normal((32, 2)) / 4}
    tensors = {f"{prefix}{kind}.weight": array.astype(np.float32) for kind, array in pairs.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("twin", ["torch", SLOW_FLAX])
def test_the_adapters_of_an_imported_run_go_on(work, twin, capsys):
    peft_folder(work / "peft")
    for name, as_lora in (("apart", True), ("merged", False)):
        base = work / "models" / f"{name}-{twin}"
        import_run(work / "peft", base, twin, 0, items, str(work / "hf"), as_lora=as_lora)
    config = configured(work, f"apart-{twin}", f"on-{twin}", **{"train.steps": 2})
    assert config.finetune.rank == 2 and config.finetune.alpha == 4 and config.finetune.frozen == "float"
    started = []
    result, engine = run(config, twin, lambda engine: started.append(engine.export_state()))
    assert "adapters of" in (said := capsys.readouterr().err) and "these go on" in said
    given = read_weights(load_run(work / "models" / f"apart-{twin}").checkpoint / "weights")
    changed = engine.export_state()
    for leaf in ("lora_a", "lora_b"):
        assert np.array_equal(started[0][f"params/{PATH}.{leaf}"], given[f"{PATH}.{leaf}"])
        assert not np.array_equal(changed[f"params/{PATH}.{leaf}"], given[f"{PATH}.{leaf}"])
    assert np.array_equal(changed[f"params/{PATH}.weight"], given[f"{PATH}.weight"]) and result.finished


def test_other_adapters_start_beside_the_merged_ones(work, capsys):
    peft_folder(work / "peft")
    import_run(work / "peft", work / "models" / "first", "torch", 0, items, str(work / "hf"), as_lora=True)
    started = []
    config = configured(work, "first", "second", **{"train.steps": 1, "finetune.rank": 3})
    run(config, "torch", lambda engine: started.append(engine.export_state()))
    assert "merged into its matrices, because finetune.rank differs" in capsys.readouterr().err
    whole = run_weights(load_run(work / "models" / "first"))
    assert np.array_equal(started[0][f"params/{PATH}.weight"], whole[f"{PATH}.weight"])
    assert not started[0][f"params/{PATH}.lora_b"].any() and started[0][f"params/{PATH}.lora_a"].shape == (32, 3)
