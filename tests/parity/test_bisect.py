"""The bisector: sound models agree, a fault is named by its module, and the command says so."""

from pathlib import Path

import numpy as np
import pytest
import torch

from parity.bisect import bisect_models, bisect_pair
from parity.bisect.command import bisect_folders
from parity.bisect.divergence import Comparison, walk
from parity.bisect.folders import open_source
from parity.bisect.huggingface import paths_of
from parity.bisect.models import FlaxTwin, TorchTwin, differing
from parity.bisect.pairs import STAGES, stages
from parity.bisect.trace_torch import TorchTracer
from parity.cases import BASE, Case
from parity.pair import Pair, release
from slm_core.cli.command_line import main
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.model.weights import write_weights
from slm_core.runs.imported import describe_imported, make_imported
from slm_torch.evaluator import Evaluator
from slm_torch.layers.cache import extend
from slm_torch.layers.placement import pre
from slm_torch.trainer import Engine

CONFIG = with_values(
    BASE,
    {
        "model.d_model": 16,
        "model.n_layers": 2,
        "model.attention.n_heads": 2,
        "model.attention.n_kv_heads": 1,
        "model.attention.window": 5,
        "model.mlp.kind": "moe",
        "model.mlp.experts": 4,
        "model.mlp.balance_bias": 0.01,
        "model.norm.placement": "parallel",
        "memory.loss_chunk": 7,
    },
)
"""Everything that a trace must look into: a mixture, a rolling cache, recomputed blocks, a loss in chunks."""


@pytest.fixture(scope="module")
def pair():
    yield Pair(Case("bisected", CONFIG, optimized=False), "float64")
    release()


def norm_eps(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[1].mlp_norm, "eps", 1e-6)


def one_after_the_other(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[0], "placement", pre)


def expert_of_the_next(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    layer = engine.model.layers[0].mlp.up_proj
    sound = layer.forward
    patch.setattr(layer, "forward", lambda x, sizes: sound(x, sizes[1:] + sizes[:1]))


def half_the_balance_loss(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[1].mlp, "balance_loss", 0.005)


def tied_head_without_a_gradient(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model, "logits", lambda hidden: hidden @ engine.model.embed.weight.detach().T)


def norm_without_gradient_of_its_mean_square(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    norm = engine.model.final_norm

    def forward(x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps).detach() * norm.weight

    patch.setattr(norm, "forward", forward)


def last_chunk_dropped(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    from slm_torch.loss import loss_sums

    def whole_chunks(model, hidden, auxiliary_loss, targets, chunk):
        end = targets.numel() // chunk * chunk if chunk else targets.numel()
        kept = hidden.flatten(0, 1)[None, :end], targets.flatten()[None, :end]
        return loss_sums(model, kept[0], auxiliary_loss, kept[1], chunk)

    patch.setattr("slm_torch.loss.loss_sums", whole_chunks)


def dropout_site_off_by_one(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[1].mlp_dropout, "site", 0)


def dropout_of_the_first_row(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    import slm_torch.trainer

    patch.setattr(slm_torch.trainer, "DropoutKey", lambda sites, first: slm_torch.layers.dropout.DropoutKey(sites, 0))


def clipped_by_half(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("slm_torch.trainer.clip_factor", lambda norm, limit: min(1.0, limit / norm / 2))


def last_micro_batch_alone(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    sound = engine.loss_sums

    def loss_sums(tokens, key):
        for p in engine.params.values():
            p.grad = None
        return sound(tokens, key)

    patch.setattr(engine, "loss_sums", loss_sums)


def wrong_beta(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    for group in engine.optimizer.param_groups:
        patch.setitem(group, "betas", (0.9, 0.951))


def balance_backwards(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    for name, step in engine.balance_steps.items():
        patch.setitem(engine.balance_steps, name, -step)


def count_that_an_import_forgets(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    sound = engine.import_state
    forgotten = {"optim/count": np.zeros((), np.int32)}
    patch.setattr(engine, "import_state", lambda state: sound({**state, **forgotten}))


def warmup_forgotten(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    sound = engine._update
    patch.setattr(engine, "_update", lambda lr, scale: sound(max(lr, 3e-3), scale))


def rolling_cache_one_position_late(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    def late(cache, new, start, window):
        seen, first = extend(cache, new, start, window)
        return seen, first + 1

    patch.setattr("slm_torch.layers.gqa.extend", late)


FAULTS = {
    norm_eps: ("forward", "layers.1.mlp_norm"),
    one_after_the_other: ("forward", "layers.0"),
    expert_of_the_next: ("forward", "layers.0.mlp.up_proj"),
    half_the_balance_loss: ("forward", "layers.1.mlp"),
    tied_head_without_a_gradient: ("backward", "logits"),
    norm_without_gradient_of_its_mean_square: ("backward", "final_norm"),
    dropout_site_off_by_one: ("training", "layers.1.mlp_dropout"),
    last_chunk_dropped: ("training", "loss"),
    dropout_of_the_first_row: ("update", "accumulation"),
    last_micro_batch_alone: ("update", "accumulation"),
    clipped_by_half: ("update", "clipping"),
    wrong_beta: ("update", "optimizer"),
    balance_backwards: ("update", "balance"),
    count_that_an_import_forgets: ("state", "optimizer"),
    warmup_forgotten: ("steps", "optimizer"),
    rolling_cache_one_position_late: ("decode", "layers.0.attention"),
}
"""{fault: (stage, module)}."""


@pytest.mark.slow
def test_a_sound_pair_passes_every_stage(pair):
    pair.start()
    agreements = dict(stages(pair))
    assert list(agreements) == list(STAGES)
    assert all(agreement.divergence is None and agreement.total > 20 for agreement in agreements.values())
    assert all(agreement.worst < 1e-12 for agreement in agreements.values())
    assert bisect_pair(pair) is None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_named(pair, fault, monkeypatch):
    pair.start()
    with monkeypatch.context() as patch:
        fault(pair.torch, patch)
        divergence = bisect_pair(pair)
    assert divergence is not None and (divergence.stage, divergence.module) == FAULTS[fault]
    assert divergence.error > divergence.tolerance and 0 < divergence.position <= divergence.total


def test_a_divergence_describes_its_module(pair, monkeypatch):
    pair.start()
    with monkeypatch.context() as patch:
        norm_eps(pair.torch, patch)
        divergence = bisect_pair(pair)
    assert divergence.detail == "eps is 1e-06 against 1e-05" and divergence.tensor == "layers.1.mlp_norm: output"
    assert divergence.shape == (4, 16, 16) and len(divergence.before) == 3 and len(divergence.after) == 2
    assert "slm_torch/layers/rmsnorm.py:" in TorchTwin(pair.torch).code(divergence.module)
    assert "slm_flax/layers/rmsnorm.py:" in FlaxTwin(pair.flax).code(divergence.module)


def test_the_initial_state_comes_first(pair):
    pair.start()
    with torch.no_grad():
        pair.torch.params["layers.1.attention.o_proj.weight"][0, 0] *= 1 + 1e-15
    divergence = bisect_pair(pair)
    assert (divergence.stage, divergence.module) == ("init", "layers.1.attention.o_proj")


def test_a_trace_leaves_the_model_alone(pair):
    pair.start()
    before = {name: dict(vars(module)) for name, module in pair.torch.model.named_modules()}
    TorchTracer(pair.torch)(pair.tokens)
    assert {name: dict(vars(module)) for name, module in pair.torch.model.named_modules()} == before
    assert all(p.grad is None for p in pair.torch.params.values())


def test_two_checkpoints(pair):
    pair.start()
    weights = {name: p.detach().numpy() for name, p in pair.torch.params.items()}
    name = "layers.0.attention.k_proj.weight"
    changed = weights | {name: weights[name] * 1.01}
    first, second = (TorchTwin(Evaluator(pair.config, pair.case.vocab_size, w)) for w in (changed, weights))
    divergence = bisect_models(first, second, pair.tokens)
    assert (divergence.stage, divergence.module, divergence.detail) == (
        "forward",
        "layers.0.attention.k_proj",
        "weight differs by 1e-02",
    )
    assert bisect_models(second, FlaxTwin(pair.flax), pair.tokens) is None


def test_walk_counts_what_is_missing_as_different():
    a, b = np.ones(2), np.ones(3)
    comparisons = [Comparison("x", "same", a, a), Comparison("y", "lost", None, a), Comparison("z", "other", a, b)]
    agreement = walk("forward", comparisons, 1.0)
    assert (agreement.divergence.module, agreement.divergence.error, agreement.divergence.after) == (
        "y",
        np.inf,
        ("other",),
    )
    assert differing({"a": 1, "b": "x"}, {"a": 2, "b": True}) == "a is 1 against 2"


@pytest.fixture
def run(pair, tmp_path):
    """Makes a run folder of weights; returns its path."""

    def make(name: str, **changes: np.ndarray) -> Path:
        pair.start()
        weights = {name: p.detach().numpy() for name, p in pair.torch.params.items()}
        write_weights(make_imported(tmp_path / name), (weights | changes).items())
        describe_imported(tmp_path / name, pair.config, "torch", "test", pair.case.vocab_size, {})
        return tmp_path / name

    return make


@pytest.mark.parametrize("framework", ["torch", "flax"])
@pytest.mark.slow
def test_folders(pair, run, capsys, framework):
    first, second = run("first"), run("second", **{"final_norm.weight": np.full(16, 1.5)})
    checkpoint = second / "checkpoints" / "step-00000000"
    assert bisect_folders(str(first), str(first), framework, "float64")
    assert "no divergence" in capsys.readouterr().out
    assert not bisect_folders(str(first), str(checkpoint), framework, "float64")
    out = capsys.readouterr().out
    assert "final_norm" in out and "weight differs by 3e-01" in out and "fail: logits, gradients" in out
    assert f"slm_{framework}/layers/rmsnorm.py" in out and max(map(len, out.splitlines())) < 200


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory) -> str:
    """Returns the folder of a tiny Llama whose norm weights are not 1."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-3,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.5 if p.ndim == 1 else 0.0, 0.25, generator=torch.Generator().manual_seed(p.numel()))
    folder = tmp_path_factory.mktemp("llama")
    model.save_pretrained(folder)
    return str(folder)


def test_a_hugging_face_model_against_our_twin_of_it(hugging_face, capsys):
    assert bisect_folders("", hugging_face, "torch", "float32")
    assert "no divergence: 130 tensors agree" in capsys.readouterr().out


def test_a_hugging_face_model_against_a_run(hugging_face, capsys, tmp_path, monkeypatch):
    source = open_source("against", hugging_face)
    config = with_values(source.config, {"model.norm.eps": 1e-2})
    write_weights(make_imported(tmp_path / "run"), source.weights.items())
    describe_imported(tmp_path / "run", config, "torch", "test", source.vocab_size, {})
    assert not bisect_folders(str(tmp_path / "run"), hugging_face, "", "float32")
    out = capsys.readouterr().out
    assert "module    layers.0.attention_norm\n" in out and "LlamaRMSNorm" in out and "slm_torch/layers/rmsnorm" in out


def test_paths_of_a_hugging_face_model_come_from_the_rules_of_its_weights():
    from slm_core.hf.rules import SAME, TRANSPOSED, Rule, split

    rules = [
        Rule(("layers.0.attention.o_proj.weight",), ("h.0.attn.out.weight",), TRANSPOSED),
        Rule(tuple(f"layers.0.attention.{x}_proj.weight" for x in "qk"), ("h.0.attn.qk.weight",), split([2, 2])),
        Rule(("layers.0.mlp_norm.weight",), ("h.0.ln_2.weight",), SAME),
        Rule(("layers.0.mlp.up_proj.weight",), ("h.0.mlp.fc.weight",), SAME),
        Rule(("layers.0.mlp.down_proj.weight",), ("h.0.mlp.proj.weight",), SAME),
    ]  # fmt: skip
    assert {hf_path: twin_path for hf_path, (twin_path, _) in paths_of(rules, 1).items()} == {
        "h.0": "layers.0",
        "h.0.attn": "layers.0.attention",
        "h.0.attn.out": "layers.0.attention.o_proj",
        "h.0.ln_2": "layers.0.mlp_norm",
        "h.0.mlp": "layers.0.mlp",
        "h.0.mlp.fc": "layers.0.mlp.up_proj",
        "h.0.mlp.proj": "layers.0.mlp.down_proj",
    }


@pytest.fixture(scope="module")
def command():
    """Returns a function that calls scripts/bisect_models.py with arguments."""
    from scripts import bisect_models

    return lambda *words: main(bisect_models.run, "", bisect_models.FLAGS, argv=list(words))


@pytest.mark.slow
def test_the_command_bisects_the_twins_of_a_config(command, capsys):
    small = {
        "model.d_model": 16, "model.n_layers": 1, "model.attention.n_heads": 2, "model.attention.n_kv_heads": 1,
        "model.mlp.kind": "gelu", "data.seq_len": 8, "train.batch_size": 2,
    }  # fmt: skip
    command(*(f"--config.{name}={value}" for name, value in small.items()))
    out = capsys.readouterr().out
    assert all(f"\n{stage} " in out for stage in STAGES) and "\nno divergence: " in out


def test_the_command_fails_if_models_differ(command, run, capsys):
    first, second = run("first"), run("second", **{"final_norm.weight": np.full(16, 1.5)})
    with pytest.raises(SystemExit) as status:
        command(f"--run={first}", f"--against={second}", "--framework=torch")
    assert status.value.code == 1 and "first divergence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run=models/x"], "--run=models/x needs --against=FOLDER"),
        (["--against=models/nowhere"], "--against=models/nowhere: no such folder"),
        (["--against=models", "--config.model.n_layers=2"], "--config does not go with --against"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(command, capsys, words, message):
    with pytest.raises(SystemExit) as status:
        command(*words)
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_folders_that_cannot_be_compared(pair, run, tmp_path):
    with pytest.raises(UserError, match="--run=.*nowhere: no such folder"):
        open_source("run", str(tmp_path / "nowhere"))
    first = run("first")
    config = with_values(pair.config, {"model.mlp.experts": 3})
    other = Evaluator(config, pair.case.vocab_size)
    write_weights(make_imported(tmp_path / "other"), ((n, p.detach().numpy()) for n, p in other.params.items()))
    describe_imported(tmp_path / "other", config, "torch", "test", pair.case.vocab_size, {})
    with pytest.raises(UserError, match=r"parameter layers.0.mlp.balance is \[3\] there and \[4\] in"):
        bisect_folders(str(first), str(tmp_path / "other"), "", "float64")
