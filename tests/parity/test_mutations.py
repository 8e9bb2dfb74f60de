"""A proof that cannot fail is a defect: one fault at a time in the PyTorch twin, and the rung that must find it."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from parity.cells import BASE, Cell
from parity.ladder import measure
from parity.pair import Pair, release
from slm_core.config_dict import with_values
from slm_core.validate import validate
from slm_torch.layers.dot_product import dot_product
from slm_torch.trainer import Engine

CONFIG = with_values(
    BASE,
    {
        "model.n_layers": 2,
        "model.attention.window": 5,
        "model.attention.bias": True,
        "model.attention.qk_norm": "rmsnorm",
        "model.norm.kind": "layernorm",
        "model.norm.bias": True,
        "model.mlp.kind": "gelu",
    },
)
"""One model with every part that a fault below breaks."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    validate(CONFIG)
    yield Pair(Cell("faults", CONFIG), "float64")
    release()


@pytest.fixture(scope="module")
def flax_probe(pair):
    """The sound twin's logits and gradients, once."""
    return pair.probes[1]


def norm_eps(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[1].mlp_norm, "eps", 1e-6)


def rope_interleaved(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    rope = engine.model.layers[0].attention.position

    def forward(x, start):
        cos, sin = (t[start : start + x.shape[1], None] for t in (rope.cos, rope.sin))
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)

    patch.setattr(rope, "forward", forward)


def kv_heads_in_the_wrong_order(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    def kernel(q, k, v, **options):
        repeat = q.shape[2] // k.shape[2]
        return dot_product(q, k.repeat(1, 1, repeat, 1), v.repeat(1, 1, repeat, 1), **options)

    patch.setattr(engine.model.layers[0].attention, "kernel", kernel)


def no_scale(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(engine.model.layers[0].attention.options, "scale", 1.0)


def window_off_by_one(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(engine.model.layers[1].attention.options, "window", 6)


def no_bias(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    layer = engine.model.layers[0].attention.o_proj
    patch.setattr(layer, "forward", lambda x: x @ layer.weight + 0 * layer.bias)


def other_gelu(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[0].mlp, "approximate", "tanh")


def norm_without_gradient_of_its_mean(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    norm = engine.model.layers[0].mlp_norm

    def forward(x):
        centred = x - x.mean(-1, keepdim=True).detach()
        return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + norm.eps) * norm.weight + norm.bias

    patch.setattr(norm, "forward", forward)


def wrong_beta(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    for group in engine.optimizer.inner.param_groups:
        patch.setitem(group, "betas", (0.9, 0.951))


def decay_on_norms(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(engine.optimizer.inner.param_groups[1], "weight_decay", 1e-3)


def clip_with_an_epsilon(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("slm_torch.trainer.clip_factor", lambda norm, limit: limit / (norm + 1e-6) if norm > limit else 1.0)


def dropout_site_off_by_one(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[1].mlp_dropout, "site", 3)


def average_of_averages(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    """Each micro-batch counts as much as any other, however many of its targets are IGNORE."""
    sound = engine.loss_sum

    def loss_sum(tokens, key):
        valid = (tokens[:, 1:] >= 0).sum()
        return sound(tokens, key) * (tokens[:, 1:].numel() / valid)

    patch.setattr(engine, "loss_sum", loss_sum)


def warmup_forgotten(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    sound = engine.optimizer.update
    patch.setattr(engine.optimizer, "update", lambda lr: sound(max(lr, 3e-3)))


def cache_one_position_late(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    attention = engine.model.layers[0].attention

    def extend(cache, k, v, start):
        end = start + k.shape[1]
        cache["k"][:, start:end], cache["v"][:, start:end] = k, v
        first = max(0, start - 1) if k.shape[1] == 1 else start
        cache["v"][:, first : first + k.shape[1]] = v
        return cache["k"][:, :end], cache["v"][:, :end]

    patch.setattr(attention, "_extend", extend)


def count_that_an_import_forgets(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    sound = engine.import_state
    patch.setattr(engine, "import_state", lambda state: sound({**state, "optim/count": state["optim/count"] * 0}))


FAULTS: list[tuple[Callable, int]] = [
    (norm_eps, 1),
    (rope_interleaved, 1),
    (kv_heads_in_the_wrong_order, 1),
    (no_scale, 1),
    (window_off_by_one, 1),
    (no_bias, 1),
    (other_gelu, 1),
    (norm_without_gradient_of_its_mean, 2),
    (average_of_averages, 2),
    (wrong_beta, 3),
    (decay_on_norms, 3),
    (clip_with_an_epsilon, 3),
    (dropout_site_off_by_one, 3),
    (count_that_an_import_forgets, 3),
    (warmup_forgotten, 4),
    (cache_one_position_late, 5),
]


def first_failure(pair: Pair) -> int | None:
    return next((result.rung for result in measure(pair, range(6)) if not result.passed), None)


@pytest.mark.parametrize(("fault", "rung"), FAULTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_the_ladder_finds_a_fault_at_its_rung(pair, flax_probe, fault, rung, monkeypatch):
    from parity.probe import probe_torch

    pair.start()
    with monkeypatch.context() as patch:
        fault(pair.torch, patch)
        pair.perturb()
        # The broken twin anew; the sound one is as it was.
        patch.setitem(vars(pair), "probes", (probe_torch(pair.torch, pair.tokens), flax_probe))
        pair.start()
        assert first_failure(pair) == rung


def test_a_sound_pair_climbs_to_the_top(pair, flax_probe):
    pair.start()
    assert first_failure(pair) is None


def test_other_initial_weights_fail_at_the_bottom(pair, monkeypatch):
    pair.start()
    name, parameter = next(iter(pair.torch.params.items()))
    with torch.no_grad():
        parameter.view(-1)[0] += 1e-16 + parameter.view(-1)[0].abs() * 1e-15
    assert first_failure(pair) == 0
    assert isinstance(parameter, nn.Parameter) and name


def test_initial_zeros_would_hide_a_missing_bias(pair, flax_probe, monkeypatch):
    """Why the weights are perturbed: with those of the seed, logits agree without the bias."""
    from parity.errors import of_order_one
    from parity.probe import probe_torch

    pair.start()
    with monkeypatch.context() as patch:
        sound = probe_torch(pair.torch, pair.tokens)
        no_bias(pair.torch, patch)
        assert of_order_one(probe_torch(pair.torch, pair.tokens).logits, sound.logits) == 0
