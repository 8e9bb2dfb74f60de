"""Both twins show the same inside of a model. Models of Hugging Face transformers say that it is the right one."""

import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

import slm_flax.evaluator
import slm_torch.evaluator
from parity.oracle.cases import CASES
from parity.oracle.measure import build
from parity.state_transfer import perturbed
from slm_core.config.fields import with_values
from slm_core.hf.importing import open_folder
from tests.conformance.small_engine import CONFIG, VOCAB

EVALUATORS = (slm_torch.evaluator.Evaluator, slm_flax.evaluator.Evaluator)
LAYERS = {
    "kinds": {
        "model.n_layers": 2,
        "model.pattern": "attention.kind=mla | attention.kind=differential,position.kind=alibi",
        "model.norm.placement": "post", "model.logit_softcap": 3.0,
    },
    "scores": {
        "model.n_layers": 2, "model.tie_embeddings": False,
        "model.pattern":
            "attention.window=3,attention.sinks=true,attention.softcap=2.0 | position.kind=t5,attention.n_kv_heads=1",
    },
    "mixture": {
        "model.mlp.kind": "moe", "model.mlp.experts": 4, "model.attention.gate": "head",
        "model.position.kind": "learned", "memory.remat": "block",
    },
}  # fmt: skip
TOKENS = np.random.default_rng(2).integers(0, VOCAB, (2, 6)).astype(np.int32)


def pair(case: str, kernel: str = "dot_product"):
    """Makes both twins with the same perturbed weights, in float64."""
    jax.config.update("jax_enable_x64", True)
    config = with_values(CONFIG, LAYERS[case] | {"model.attention.kernel": kernel})
    models = [evaluator(config, VOCAB) for evaluator in EVALUATORS]
    initial = {f"params/{name}": p.detach().numpy() for name, p in models[0].params.items()}
    weights = {name.removeprefix("params/"): value for name, value in perturbed(initial, 1).items()}
    for model in models:
        model.load(weights)
    return models


def differences(models) -> dict[str, float]:
    """Computes the largest difference of each thing that both twins show, relative to its size."""
    (a, b), logs = [model.inspect(TOKENS) for model in models], []
    assert a.weights.keys() == b.weights.keys() and a.streams.keys() == b.streams.keys()
    for model, inspection in zip(models, (a, b), strict=True):
        logs.append({f"lens/{path}": model.lens(stream) for path, stream in inspection.streams.items()})
    left, right = (i.weights | i.streams | lens for i, lens in zip((a, b), logs, strict=True))
    return {name: float(abs(left[name] - right[name]).max() / max(1, abs(left[name]).max())) for name in left}


@pytest.mark.parametrize(
    ("case", "kernel"),
    [
        pytest.param(case, kernel, marks=[] if (case, kernel) == ("kinds", "dot_product") else pytest.mark.slow)
        for case in LAYERS
        for kernel in ("dot_product", "flash", "fused")
    ],
)
def test_both_twins_show_the_same_and_a_twin_that_differs_is_seen(case, kernel):
    models = pair(case, kernel)
    assert max(differences(models).values()) <= 1e-12
    with torch.no_grad():
        next(iter(models[0].model.layers[0].attention.parameters())).mul_(1 + 1e-9)
    moved = differences(models)
    assert max(moved[name] for name in moved if name.startswith("layers.0.")) > 1e-12
    assert max(moved[name] for name in moved if name.startswith("lens/")) > 1e-12


@pytest.mark.parametrize("case", ["kinds", "scores"])
def test_both_twins_count_the_same_products(case):
    a, b = (model.modules(5) for model in pair(case))
    assert a == b and len(a) > 20 and a[0].flops > 0


def test_a_flax_mixture_counts_whole_blocks():
    a, b = ({module.path: module for module in model.modules(5)} for model in pair("mixture"))
    assert a.keys() == b.keys()
    differing = {path for path in a if a[path] != b[path]}
    experts = {f"layers.0.mlp.{name}_proj" for name in ("gate", "up", "down")}
    assert differing == {"", "layers.0", "layers.0.mlp"} | experts
    assert all(b[path].flops > a[path].flops for path in differing)


OUTSIDE = ["gpt2", "llama", "gemma2, caps, windows", "gpt_oss, windows", "deepseek_v3, groups", "bloom, untied"]
"""Beginnings of the names of cases: learned positions, RoPE, soft-caps and windows, sinks, latents, ALiBi."""


@pytest.mark.parametrize("twin", EVALUATORS, ids=["torch", "flax"])
@pytest.mark.parametrize("start", [pytest.param(s, marks=[] if s == "gpt2" else pytest.mark.slow) for s in OUTSIDE])
def test_a_model_of_hugging_face_has_the_same_inside(start, twin):
    case = next(case for case in CASES if case.name.startswith(start))
    precision, tolerance = ("float64", 1e-12) if case.float64 else ("float32", 1e-5)
    model = build(case, precision)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        imported, items = open_folder(Path(folder))
        weights = dict(items)
    values = {"precision.params": precision, "precision.compute": precision, "run.device": "cpu"}
    ours = twin(with_values(imported.config, values), imported.vocab_size, weights)
    tokens = np.random.default_rng(0).integers(0, imported.vocab_size, (2, 48)).astype(np.int32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens).long(), output_attentions=True, output_hidden_states=True)
        logs = torch.log_softmax(theirs.logits, -1).numpy()
    inspection = ours.inspect(tokens)
    assert len(inspection.weights) == len(theirs.attentions)
    for weights, expected in zip(inspection.weights.values(), theirs.attentions, strict=True):
        np.testing.assert_allclose(weights, expected.numpy(), atol=tolerance)
    *inner, last = inspection.streams.values()
    for stream, expected in zip(inner, theirs.hidden_states[1:-1], strict=True):  # the last is after the final norm
        np.testing.assert_allclose(stream, expected.numpy(), atol=tolerance * max(1, float(expected.abs().max())))
    np.testing.assert_allclose(ours.lens(last), logs, atol=10 * tolerance * max(1, abs(logs).max()))
    if start in FINAL:
        norm, head = (model.get_submodule(name) for name in FINAL[start])
        with torch.no_grad():
            lens = torch.log_softmax(head(norm(theirs.hidden_states[1])), -1).numpy()
        np.testing.assert_allclose(ours.lens(inner[0]), lens, atol=10 * tolerance * max(1, abs(lens).max()))


FINAL = {"gpt2": ("transformer.ln_f", "lm_head"), "llama": ("model.norm", "lm_head")}
"""{case: the final norm and the head of the class}."""
