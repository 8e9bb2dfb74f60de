"""The details of an update are equal in both twins, and are those of the tensors that the bisector sees."""

import jax
import numpy as np
import pytest

import slm_flax.trainer
import slm_torch.trainer
from parity.bisect.trace_flax import FlaxTracer
from parity.bisect.trace_torch import TorchTracer
from parity.state_transfer import perturbed
from slm_core.config.fields import with_values
from slm_core.protocols import IGNORE
from tests.conformance.small_engine import CONFIG, VOCAB, batch
from tests.tiers import some_slow

CASES = {
    "stacked": {
        "model.n_layers": 3, "model.attention.value_residual": True, "model.mlp.kind": "moe", "model.mlp.experts": 4,
        "model.mlp.balance_bias": 0.01, "model.norm.placement": "sandwich", "memory.remat": "block",
        "memory.loss_chunk": 7,
    },
    "pattern": {
        "model.n_layers": 2, "model.norm.placement": "post", "model.residual_multiplier": 0.5,
        "model.pattern": "attention.kind=mla,attention.window=3 | position.kind=alibi,mlp.kind=relu2",
        "model.tie_embeddings": False,
    },
}  # fmt: skip


def pair(case):
    """Makes both twins with the same perturbed weights, in float64."""
    jax.config.update("jax_enable_x64", True)
    config = with_values(CONFIG, CASES[case])
    engines = [trainer.build(config, VOCAB) for trainer in (slm_torch.trainer, slm_flax.trainer)]
    state = perturbed(engines[0].export_state(), 1)
    for engine in engines:
        engine.import_state(state)
    return engines


@pytest.mark.parametrize("case", some_slow(CASES, "stacked"))
def test_both_twins_report_the_same_and_a_twin_that_differs_is_seen(case):
    torch, flax = pair(case)
    a, b = torch.details(batch(), 3), flax.details(batch(), 3)
    assert a.keys() == b.keys() and len(a) > 20
    assert a == pytest.approx(b, rel=1e-12, abs=1e-15)
    torch.model.layers[1].mlp.register_forward_hook(lambda module, inputs, y: (y[0] * (1 + 1e-9), *y[1:]))
    a = torch.details(batch(), 3)
    differing = [name for name in a if name.startswith("activation") and a[name] != pytest.approx(b[name], rel=1e-12)]
    assert differing[0] == "activation_rms/layers.1.mlp"


@pytest.mark.slow
def test_the_bisector_sees_the_same_tensors():
    tokens = batch()
    count = (tokens[:, 1:] != IGNORE).sum()
    for engine, tracer in zip(pair("pattern"), (TorchTracer, FlaxTracer), strict=True):
        expected = {}
        for event in tracer(engine)(tokens, step=3):
            name = event.tensor.removeprefix("gradient of ")
            if event.stage == "forward" and name in ("output.0", "output.x"):
                expected[f"activation_rms/{event.path}"] = np.sqrt(np.square(event.value).mean())
            elif event.stage == "backward" and not event.side:
                expected[f"gradient_norm/{event.path}.{name}"] = np.linalg.norm(event.value) / count
        details = engine.details(tokens, 3)
        measured = {name: value for name, value in details.items() if not name.startswith("weight_norm")}
        assert measured == pytest.approx({name: expected[name] for name in measured}, rel=1e-11, abs=1e-15)
