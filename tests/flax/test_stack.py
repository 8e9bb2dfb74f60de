"""Stacks of layers: their members, names and optimizer, and the memory that recomputing saves."""

import jax
import numpy as np
import pytest

from slm_core.config.fields import with_values
from slm_flax.memory import compiled_update
from slm_flax.model import Transformer
from slm_flax.optim import OPTIMIZERS
from slm_flax.stack import Stack
from slm_flax.trainer import build
from tests.conformance.small_engine import CONFIG, VOCAB, check_equal_updates

LAYERS = {
    "all alike": ({"model.n_layers": 5}, Stack(0, 1, 5)),
    "one": ({"model.n_layers": 1}, Stack()),
    "kept": ({"model.n_layers": 5, "memory.remat": "none"}, Stack()),
    "a pattern and the start of another": (
        {"model.n_layers": 8, "model.pattern": "2*attention.window=3 | ."}, Stack(0, 3, 2),
    ),
    "after a first one": ({"model.n_layers": 4, "model.attention.value_residual": True}, Stack(1, 1, 3)),
    "of other constants": ({"model.n_layers": 3, "model.attention.kind": "differential"}, Stack(0, 1, 3)),
}  # fmt: skip
"""{name: (overrides, the stack)}."""


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_repeat_are_a_stack(name):
    overrides, stack = LAYERS[name]
    config = with_values(CONFIG, {"memory.remat": "block"} | overrides)
    assert Transformer(config, VOCAB, np.dtype(np.float32)).stack == stack


def test_an_entry_of_a_stack_stands_for_all_its_layers():
    stack = Stack(1, 2, 3)
    assert stack.members("m/layers.2.mlp.up_proj.weight") == [f"m/layers.{i}.mlp.up_proj.weight" for i in (2, 4, 6)]
    for name in ("layers.0.mlp_norm.weight", "layers.7.mlp_norm.weight", "embed.weight", "count"):
        assert stack.members(name) == [name]


def test_a_stack_comes_apart_again():
    stack = Stack(1, 1, 2)
    values = {f"layers.{i}.weight": jax.numpy.full(3, i) for i in range(3)}
    stacked = stack.stacked(dict(values))
    assert {name: value.shape for name, value in stacked.items()} == {
        "layers.0.weight": (3,),
        "layers.1.weight": (2, 3),
    }
    assert [stack.is_stacked(name) for name in stacked] == [False, True]
    apart = stack.unstacked(stacked)
    assert apart.keys() == values.keys() and all((apart[name] == values[name]).all() for name in values)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["5*attention.window=16 | .", "3*. | position.kind=none"])
def test_a_stack_of_many_layers_comes_apart_again(pattern):
    """From the tenth layer on, names and layers sort differently."""
    values = {"memory.remat": "block", "model.n_layers": 13, "model.pattern": pattern}
    check_equal_updates(build, {**values, "memory.remat": "none"}, values)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k == "sgd" else pytest.mark.slow) for k in OPTIMIZERS])
def test_an_optimizer_treats_the_layers_of_a_stack_one_by_one(kind):
    values = {"optim.kind": kind, "optim.schedule": "constant", "model.n_layers": 2, "model.dropout": 0.0}
    if kind == "adamw8bit":
        values |= {"optim.quantised_block": 8, "optim.quantised_from": 64}
    check_equal_updates(build, values, values | {"memory.remat": "block"})


def update_bytes(**overrides) -> int:
    """Returns the bytes that XLA takes for an update beside its state."""
    fields = {name.replace("__", "."): value for name, value in overrides.items()}
    base = {
        "model.d_model": 64, "model.n_layers": 16, "model.attention.kernel": "flash", "memory.loss_chunk": 128,
        "precision.params": "float32", "precision.compute": "float32", "data.seq_len": 512, "memory.limit_gb": 0.0,
        "train.micro_batch_size": 4,
    }  # fmt: skip
    return compiled_update(with_values(CONFIG, base | fields), 64).memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_recomputing_saves_memory():
    sizes = {remat: update_bytes(memory__remat=remat) for remat in ("none", "attention", "block", "full")}
    assert sizes["attention"] < 0.6 * sizes["none"]
    assert sizes["block"] < 0.5 * sizes["attention"]
    assert sizes["full"] < sizes["block"]


@pytest.mark.slow
@pytest.mark.parametrize(("remat", "most"), [("block", 1.6), ("full", 2.5)])
def test_micro_batches_share_one_copy_of_the_gradients(remat, most):
    small = {"model__d_model": 128, "model__n_layers": 8, "data__seq_len": 8, "memory__remat": remat}
    one, four = (update_bytes(train__batch_size=rows, train__micro_batch_size=1, **small) for rows in (1, 4))
    gradients = 8 * 12 * 128**2 * 4
    assert one < four + gradients / 8 and four < one + gradients / 8
    assert one < most * gradients  # beside them full holds the weights of a group, and their gradients
