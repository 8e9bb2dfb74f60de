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
from slm_torch.layers.cache import extend
from slm_torch.layers.dot_product import dot_product
from slm_torch.layers.placement import pre
from slm_torch.loss import Losses
from slm_torch.optim.muon import SCALES
from slm_torch.trainer import Engine

CONFIGS = {
    "dense": {
        "model.n_layers": 2,
        "model.z_loss": 0.01,
        "model.logit_multiplier": 0.5,
        "model.attention.window": 5,
        "model.attention.bias": True,
        "model.attention.qk_norm": "rmsnorm",
        "model.attention.value_residual": True,
        "model.attention.gate": "head",
        "model.norm.kind": "layernorm",
        "model.norm.bias": True,
        "model.mlp.kind": "gelu",
    },
    "catalogue": {
        "model.n_layers": 3,
        "model.residual_multiplier": 0.5,
        "model.position.scaling": "yarn",
        "model.position.scaling_factor": 4.0,
        "model.norm.weight": "one_plus",
        "model.norm.placement": "sandwich",
        "model.pattern": "attention.kind=mla,attention.q_rank=12,mlp.kind=moe,mlp.balance_bias=0.01 |"
        " attention.kind=differential,position.kind=alibi |"
        " position.kind=t5,position.buckets=6,position.max_distance=10,attention.window=5,attention.sinks=true",
    },
    "dyt": {"model.norm.kind": "dyt", "model.norm.placement": "parallel"},
    "sgd": {"optim.kind": "sgd"},
    "lion": {"optim.kind": "lion", "model.mup_base_width": 16},
    "muon": {"optim.kind": "muon", "optim.muon_scale": "spectral"},
    "adafactor": {"optim.kind": "adafactor", "optim.clip_rms": 0.3},
    "schedule_free": {"optim.kind": "schedule_free", "optim.schedule": "constant"},
}
"""Overrides of BASE: together they have every part that a fault below breaks."""
RUNGS = {name: (0, 3, 4) for name in ("sgd", "lion", "muon", "adafactor")}


@pytest.fixture(scope="module")
def pair(request) -> Iterator[Pair]:
    config = with_values(BASE, CONFIGS[request.param])
    validate(config)
    yield Pair(Cell(request.param, config, optimized=False), "float64")
    release()


@pytest.fixture(autouse=True)
def short_curves(monkeypatch):
    """Of 20 updates, 10 of them warm-up: enough for a fault, and a fifth of the time."""
    monkeypatch.setattr("parity.rungs.UPDATES", 20)


# The model.


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

    patch.setattr(engine.model.layers[0].attention.attend, "kernel", kernel)


def no_scale(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(engine.model.layers[0].attention.attend.options, "scale", 1.0)


def window_off_by_one(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(engine.model.layers[1].attention.attend.options, "window", 6)


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


def values_mixed_the_other_way(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    mix = engine.model.layers[1].attention.value_residual
    patch.setattr(mix, "forward", lambda v, first: mix.weight[1] * v + mix.weight[0] * first)


def gate_without_a_sigmoid(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    gate = engine.model.layers[0].attention.gate
    patch.setattr(gate, "forward", lambda y, x: y * gate.gate_proj(x).unflatten(-1, gate.gates))


def logit_multiplier_forgotten(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model, "logit_factor", 1)


def z_loss_forgotten(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model, "z_loss", 0.0)


def residual_multiplier_forgotten(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[2], "residual_multiplier", 1)


def yarn_without_its_temperature(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    rope = engine.model.layers[0].attention.position
    factor = rope.cos[0, 0]  # the cosine of angle 0
    patch.setattr(rope, "cos", rope.cos / factor)
    patch.setattr(rope, "sin", rope.sin / factor)


def mla_rotates_the_wrong_part(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    attention = engine.model.layers[0].attention

    def queries(x):
        q = attention.q_up_proj(attention.q_latent_norm(attention.q_down_proj(x))).unflatten(-1, (attention.heads, -1))
        return q[..., attention.rope_dim :], q[..., : attention.rope_dim]

    patch.setattr(attention, "_queries", queries)


def mla_latent_not_normed(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    norm = engine.model.layers[0].attention.kv_latent_norm
    patch.setattr(norm, "forward", lambda x: x * (1 + norm.weight))


def differential_adds(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    attention = engine.model.layers[1].attention
    sound = attention._lambda
    patch.setattr(attention, "_lambda", lambda: -sound())


def differential_counts_layers_from_1(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    attention = engine.model.layers[1].attention
    patch.setattr(attention, "lambda_init", 0.8 - 0.6 * torch.tensor(-0.6).exp().item())


def alibi_slopes_of_the_next_head(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    bias = engine.model.layers[1].attention.attend_2.bias
    patch.setattr(bias, "table", bias.table.roll(1, dims=0))


def t5_bucket_off_by_one(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    bias = engine.model.layers[2].attention.attend.bias
    patch.setattr(bias, "bucket", (bias.bucket + 1).clamp(max=len(bias.weight) - 1))


def sinks_missing_in_the_denominator(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    def kernel(q, k, v, *, sinks, **options):
        return dot_product(q, k, v, **options) + 0 * sinks.sum()

    patch.setattr(engine.model.layers[2].attention.attend, "kernel", kernel)


def one_plus_forgotten(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[0].mlp_norm, "form", "scale")


def sandwich_norm_skipped(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    norm = engine.model.layers[1].mlp_output_norm
    patch.setattr(norm, "forward", lambda x: x + 0 * norm.weight)


def experts_not_renormalised(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[0].mlp, "renormalise", False)


def balance_bias_in_the_weights(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    mlp = engine.model.layers[0].mlp

    def weights(routing):
        biased = routing._replace(scores=routing.scores + mlp.balance.detach())
        return type(mlp).weights(mlp, biased)

    patch.setattr(mlp, "weights", weights)


def half_the_balance_loss(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    mlp = engine.model.layers[0].mlp
    patch.setattr(mlp, "balance_loss", mlp.balance_loss / 2)


def balance_bias_to_the_busy(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    for name, step in engine.balance_steps.items():
        patch.setitem(engine.balance_steps, name, -step)


def one_alpha_for_tanh_and_weight(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    norm = engine.model.layers[0].mlp_norm
    patch.setattr(norm, "forward", lambda x: torch.tanh(norm.alpha * x) * norm.weight / norm.alpha)


def one_after_the_other(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[0], "placement", pre)


# Training.


def wrong_beta(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.optimizer, "betas", (0.9, 0.951))


def decay_on_norms(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    groups = {(rate, decay or 1e-3): names for (rate, decay), names in engine.optimizer.groups.items()}
    patch.setattr(engine.optimizer, "groups", groups)


def clip_with_an_epsilon(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("slm_torch.trainer.clip_factor", lambda norm, limit: limit / (norm + 1e-6) if norm > limit else 1.0)


def dropout_site_off_by_one(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.model.layers[1].mlp_dropout, "site", 3)


def average_of_averages(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    """Each micro-batch counts as much as any other, however many of its targets are IGNORE."""
    sound = engine.loss_sums

    def loss_sums(tokens, key):
        valid = (tokens[:, 1:] >= 0).sum()
        return Losses(*(value * (tokens[:, 1:].numel() / valid) for value in sound(tokens, key)))

    patch.setattr(engine, "loss_sums", loss_sums)


def warmup_forgotten(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    sound = engine.optimizer.update
    patch.setattr(engine.optimizer, "update", lambda lr: sound(max(lr, 3e-3)))


def count_that_an_import_forgets(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    sound = engine.import_state
    patch.setattr(engine, "import_state", lambda state: sound({**state, "optim/count": state["optim/count"] * 0}))


def no_nesterov(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.optimizer, "nesterov", False)


def betas_swapped(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.optimizer, "betas", engine.optimizer.betas[::-1])


def mup_rates_forgotten(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.optimizer, "rates", [1.0] * len(engine.optimizer.rates))


def scale_of_the_transpose(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.optimizer, "scale", lambda d_in, d_out: SCALES["spectral"](d_out, d_in))


def rounded_coefficients(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.optimizer, "coefficients", (3.4445, -4.775, 2.03))


def update_not_clipped(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.optimizer, "clip_rms", 1e9)


def wrong_decay_power(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.optimizer, "power", 0.81)


def weights_not_squared(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    optimizer, sound = engine.optimizer, engine.optimizer.update

    def update(lr):
        optimizer.state["weight_sum"] += lr - lr**2
        sound(lr)

    patch.setattr(optimizer, "update", update)


def decoding_with_what_is_trained(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.optimizer, "evaluated", lambda: {name: p.detach() for name, p in engine.params.items()})


# The cache.


def rolling_cache_one_position_late(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    def late(cache, new, start, window):
        seen, first = extend(cache, new, start, window)
        return seen, first + 1

    patch.setattr("slm_torch.layers.gqa.extend", late)


def cache_forgets_what_it_just_read(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    def forgetful(cache, new, start, window):
        seen = {name: value.clone() for name, value in extend(cache, new, start, window)[0].items()}
        cache["v"][:, start] = 0
        return seen, 0

    patch.setattr("slm_torch.layers.differential.extend", forgetful)


def latent_cache_without_positions(engine: Engine, patch: pytest.MonkeyPatch) -> None:
    """Keys rotated as if each call began at 0."""
    position = engine.model.layers[0].attention.position
    sound = position.forward
    patch.setattr(position, "forward", lambda x, start: sound(x, start if x.shape[2] > 1 else 0))


FAULTS: dict[str, dict[Callable, int]] = {
    "dense": {
        norm_eps: 1,
        rope_interleaved: 1,
        kv_heads_in_the_wrong_order: 1,
        no_scale: 1,
        window_off_by_one: 1,
        no_bias: 1,
        other_gelu: 1,
        values_mixed_the_other_way: 1,
        gate_without_a_sigmoid: 1,
        logit_multiplier_forgotten: 1,
        norm_without_gradient_of_its_mean: 2,
        average_of_averages: 2,
        z_loss_forgotten: 2,
        wrong_beta: 3,
        decay_on_norms: 3,
        clip_with_an_epsilon: 3,
        dropout_site_off_by_one: 3,
        count_that_an_import_forgets: 3,
        warmup_forgotten: 4,
        rolling_cache_one_position_late: 5,
    },
    "catalogue": {
        yarn_without_its_temperature: 1,
        mla_rotates_the_wrong_part: 1,
        mla_latent_not_normed: 1,
        differential_adds: 1,
        differential_counts_layers_from_1: 1,
        alibi_slopes_of_the_next_head: 1,
        t5_bucket_off_by_one: 1,
        sinks_missing_in_the_denominator: 1,
        one_plus_forgotten: 1,
        sandwich_norm_skipped: 1,
        residual_multiplier_forgotten: 1,
        experts_not_renormalised: 1,
        balance_bias_in_the_weights: 1,
        half_the_balance_loss: 2,
        balance_bias_to_the_busy: 3,
        cache_forgets_what_it_just_read: 5,
        latent_cache_without_positions: 5,
    },
    "dyt": {one_alpha_for_tanh_and_weight: 1, one_after_the_other: 1},
    "sgd": {no_nesterov: 3},
    "lion": {betas_swapped: 3, mup_rates_forgotten: 3},
    "muon": {scale_of_the_transpose: 3, rounded_coefficients: 3},
    "adafactor": {update_not_clipped: 3, wrong_decay_power: 3},
    "schedule_free": {weights_not_squared: 3, decoding_with_what_is_trained: 5},
}
"""{config: {fault: the first rung that fails}}."""

CASES = [
    pytest.param(name, fault, rung, id=f"{name}-{fault.__name__}")
    for name, faults in FAULTS.items()
    for fault, rung in faults.items()
]


def first_failure(pair: Pair) -> int | None:
    rungs = RUNGS.get(pair.cell.name, range(6))
    return next((result.rung for result in measure(pair, rungs) if not result.passed), None)


@pytest.mark.parametrize(("pair", "fault", "rung"), CASES, indirect=["pair"])
def test_the_ladder_finds_a_fault_at_its_rung(pair, fault, rung, monkeypatch):
    from parity.probe import probe_torch

    probed = pair.cell.name not in RUNGS
    sound = pair.probes[1] if probed else None
    pair.start()
    with monkeypatch.context() as patch:
        fault(pair.torch, patch)
        if probed:
            pair.perturb()
            # The broken twin anew; the sound one is as it was.
            patch.setitem(vars(pair), "probes", (probe_torch(pair.torch, pair.tokens), sound))
        pair.start()
        assert first_failure(pair) == rung


@pytest.mark.parametrize("pair", CONFIGS, indirect=True)
def test_a_sound_pair_climbs_to_the_top(pair):
    pair.start()
    assert first_failure(pair) is None


@pytest.mark.parametrize("pair", ["dense"], indirect=True)
def test_other_initial_weights_fail_at_the_bottom(pair):
    pair.start()
    name, parameter = next(iter(pair.torch.params.items()))
    with torch.no_grad():
        parameter.view(-1)[0] += 1e-16 + parameter.view(-1)[0].abs() * 1e-15
    assert first_failure(pair) == 0
    assert isinstance(parameter, nn.Parameter) and name


@pytest.mark.parametrize("pair", ["dense"], indirect=True)
def test_initial_zeros_would_hide_a_missing_bias(pair, monkeypatch):
    """Why the weights are perturbed: with those of the seed, logits agree without the bias."""
    from parity.errors import of_order_one
    from parity.probe import probe_torch

    pair.start()
    with monkeypatch.context() as patch:
        sound = probe_torch(pair.torch, pair.tokens)
        no_bias(pair.torch, patch)
        assert of_order_one(probe_torch(pair.torch, pair.tokens).logits, sound.logits) == 0
