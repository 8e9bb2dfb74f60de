"""scripts/convert.py as a user calls it: a checkpoint in, text from it, its loss, and out again."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

transformers = pytest.importorskip("transformers")

from slm_core.data.tokenizers import train_bpe  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 200


def script(name: str, *words: object, status: int = 0) -> str:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / name, *map(str, words)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if status else done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    import torch

    work = tmp_path_factory.mktemp("convert")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, eos_token_id=319, bos_token_id=0,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(work / "hf")
    train_bpe([TEXT], 300).inner.save(str(work / "hf" / "tokenizer.json"))
    (work / "text.txt").write_text(TEXT)
    script("convert.py", "--import", work / "hf", "--run", work / "run", "--framework", "flax")
    return work


@pytest.mark.slow
def test_an_import_is_a_run_of_either_twin(work):
    described = json.loads((work / "run" / "config.json").read_text())
    assert described["framework"] == "flax" and described["imported"]["model_type"] == "llama"
    texts = [
        script("generate.py", "--run", work / "run", "--prompt", "the ", "--framework", twin, "--max_tokens", 12)
        for twin in ("torch", "flax")
    ]
    assert texts[0] == texts[1] and texts[0].startswith("the ")


def test_an_import_is_evaluated(work):
    words = ("--run", work / "run", "--source", "text", "--path", work / "text.txt", "--data_dir", work / "data")
    printed = script("evaluate.py", *words, "--batches", 2, "--framework", "torch")
    assert "validation loss 5." in printed and "bits/byte" in printed


def test_the_contents_of_a_run_and_of_a_folder_are_shown(work):
    table = script("convert.py", "--show", work / "run")
    assert "kind        imported run" in table and "embed.weight" in table and "320x32" in table
    shown = json.loads(script("convert.py", "--show", work / "hf", "--json"))
    assert shown["facts"]["model_type"] == "llama"
    norms = {row["name"]: row["norm"] for row in shown["arrays"]}
    assert len(norms) > 10 and all(norm > 0 for norm in norms.values())


def test_an_export_is_what_was_imported(work):
    import torch

    script("convert.py", "--export", work / "out", "--run", work / "run")
    tokens = torch.from_numpy(np.arange(40)[None])
    models = [transformers.AutoModelForCausalLM.from_pretrained(work / name) for name in ("hf", "out")]
    with torch.no_grad():
        logits = [model(tokens).logits for model in models]
    assert torch.equal(*logits)
    encode = transformers.AutoTokenizer.from_pretrained(work / "out")
    assert encode("the quick").input_ids == train_bpe([TEXT], 300).encode("the quick")
    assert models[1].config.eos_token_id == 319


def test_an_orbax_export_has_the_parameters(work):
    import orbax.checkpoint as ocp

    from slm_core.runs.saved import load_run
    from slm_core.runs.weights import run_weights

    script("convert.py", "--export", work / "orbax", "--run", work / "run", "--format", "orbax")
    tree = ocp.StandardCheckpointer().restore(work / "orbax" / "params")
    weights = run_weights(load_run(work / "run"))
    for name, array in weights.items():
        np.testing.assert_array_equal(functools.reduce(lambda place, word: place[word], name.split("."), tree), array)
    assert len(weights) > 10 and script("verify.py", work / "orbax")


def test_an_adapter_goes_in_and_out(work, tmp_path):
    names = [f"base_model.model.model.layers.0.self_attn.q_proj.lora_{kind}.weight" for kind in "AB"]
    pair = {names[0]: np.ones((2, 32), np.float32), names[1]: np.full((32, 2), 0.1, np.float32)}
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    save_file(pair, tmp_path / "in" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (tmp_path / "in" / "adapter_config.json").write_text(json.dumps(settings))
    words = ("--import", tmp_path / "in", "--run", tmp_path / "run")
    assert "give that checkpoint's folder with --base" in script("convert.py", *words, status=2)
    script("convert.py", *words, "--base", work / "hf", "--adapter", "lora")
    described = json.loads((tmp_path / "run" / "config.json").read_text())["config"]["finetune"]
    assert described["targets"] == r"layers\.0\.attention\.q_proj" and described["alpha"] == 4
    words = ("--export", tmp_path / "out" / "peft", "--run", tmp_path / "run", "--format", "peft")
    assert "adapter of a llama model, adapted modules: 1" in script("convert.py", *words)
    again = load_file(tmp_path / "out" / "peft" / "adapter_model.safetensors")
    assert all(np.array_equal(again[name], pair[name]) for name in names)
    assert "--adapter=lora" in script(
        "convert.py", "--import", work / "hf", "--run", tmp_path / "x", "--adapter", "lora", status=2
    )
    assert "has no adapters" in script("convert.py", *words[:2], "--run", work / "run", "--format", "peft", status=2)


def test_mistakes_are_one_line(work, tmp_path):
    def error(*words):
        (text,) = script("convert.py", *words, status=2).splitlines()
        assert text.startswith("error: ")
        return text

    assert "--import FOLDER, --export FOLDER and --show PATH" in error("--run", work / "run")
    assert "--run is missing" in error("--export", tmp_path / "x")
    assert "already holds config.json" in error("--import", work / "hf", "--run", work / "run")
    assert "is not a folder" in error("--import", tmp_path / "nothing", "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "is not a family here" in error("--export", tmp_path / "x", "--run", work / "run", "--family", "lama")
    assert "no such run" in error("--export", tmp_path / "x", "--run", tmp_path / "run")
    assert "--step=4: " in error("--export", tmp_path / "x", "--run", work / "run", "--step", 4)
    assert "--step is not read beside --show" in error("--show", work / "run", "--step", "best")
    assert "--context=65" in error("--import", work / "hf", "--run", tmp_path / "run", "--context", 65)
    assert not (tmp_path / "x").exists()


def fine_tuning(work, run):
    words = ("--config", f"configs/finetune.py:{work / 'run'}", "--config.run.dir", work, "--config.run.name", run)
    return (*words, "--config.data.path", work / "text.txt", "--config.data.dir", work / "data")


@pytest.mark.slow
def test_training_never_writes_into_an_import(work):
    message = script("train_torch.py", *fine_tuning(work, "run"), status=2)
    assert "is an imported model" in message and f"--config=configs/finetune.py:{work / 'run'}" in message


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_training_starts_from_an_import(work, twin):
    """Adapters in one twin, then every parameter in the other; text and an export of that."""
    short = ("--config.train.steps", 3, "--config.optim.warmup_steps", 1, "--config.train.sample_tokens", 4)
    adapted = script(f"train_{twin}.py", *fine_tuning(work, f"{twin}-1"), *short)
    assert "adapters of rank 8 on 14 of 14 linear layers" in adapted and "after 3 steps" in adapted
    other = "flax" if twin == "torch" else "torch"
    base = ("--config.finetune.base", work / f"{twin}-1", "--config.finetune.kind", "full")
    assert "starts from" in script(f"train_{other}.py", *fine_tuning(work, f"{twin}-2"), *base, *short)
    assert script("generate.py", "--run", work / f"{twin}-2", "--prompt", "the ", "--max_tokens", 4).startswith("the ")
    script("convert.py", "--export", work / f"{twin}-out", "--run", work / f"{twin}-1")
    assert transformers.AutoModelForCausalLM.from_pretrained(work / f"{twin}-out").config.eos_token_id == 319
