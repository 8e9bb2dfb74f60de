"""The planner's prediction for the Flax twin against XLA's own plan of an update, compiled and never run."""

import jax
import pytest

from parity.memory import cases
from slm_core import presets
from slm_core.budget import flax_layers, flax_step, predict
from slm_core.config import Config
from slm_core.config_dict import with_values
from slm_core.validate import drop_unread, validate
from slm_flax.layers.fused import BLOCKS
from slm_flax.memory import measured, unallocated
from slm_flax.optim.adamw8bit import SLICE

CASES = cases()
QUICK = ("loss_chunk", "remat=block")
MORE = {
    "no accumulation": {"train.batch_size": 8},
    "attention, 12 layers": {"memory.remat": "attention", "model.n_layers": 12},
    "block, 12 layers": {"memory.remat": "block", "model.n_layers": 12},
    "relu2": {"model.mlp.kind": "relu2"},
    "geglu": {"model.mlp.kind": "geglu"},
    "clipped_swiglu": {"model.mlp.kind": "clipped_swiglu"},
    "qk_norm": {"model.attention.qk_norm": "rmsnorm"},
    "gate": {"model.attention.gate": "element"},
    "sandwich": {"model.norm.placement": "sandwich"},
    "untied head, block": {"model.tie_embeddings": False, "memory.remat": "block"},
    "adamw8bit, 18 layers": {
        "optim.kind": "adamw8bit", "memory.remat": "block", "model.n_layers": 18, "train.micro_batch_size": 1,
    },
    "lora, attention": {"finetune.kind": "lora", "finetune.frozen": "nf4", "memory.remat": "attention"},
    "lora, none": {"finetune.kind": "lora", "finetune.frozen": "nf4"},
    "mla, none": {"model.attention.kind": "mla"},
    "differential, none": {"model.attention.kind": "differential"},
    "moe, none": {"model.mlp.kind": "moe"},
}  # fmt: skip


def error(config: Config, vocab_size: int) -> float:
    return predict(config, vocab_size, "flax").total / measured(config, vocab_size) - 1


def changed(config: Config, overrides: dict) -> Config:
    config, _ = drop_unread(config, with_values(config, overrides), overrides)
    validate(config, overrides)
    return config


@pytest.mark.parametrize("name", QUICK)
def test_an_update_takes_what_is_predicted(name):
    assert abs(error(*CASES[name])) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in QUICK])
def test_every_case_is_within_a_tenth(name):
    assert abs(error(*CASES[name])) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_more_options_are_within_a_tenth(name):
    config, vocab_size = CASES["loss_chunk"]
    assert abs(error(changed(config, MORE[name]), vocab_size)) < 0.1


@pytest.mark.slow
def test_gpt2_is_within_a_tenth():
    overrides = {
        "train.micro_batch_size": 8, "memory.remat": "block", "memory.loss_chunk": 1024, "memory.budget_gb": 0.0,
        "precision.compute": "float32", "run.device": "cpu",
    }  # fmt: skip
    assert abs(error(changed(presets.load("configs/gpt2.py:124m")[0], overrides), 50257)) < 0.1


def test_an_engine_is_measured_without_its_arrays():
    config, vocab_size = CASES["remat=block"]
    state = unallocated(config, vocab_size).state
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state))


def test_weights_and_optimizer_are_exact():
    config, vocab_size = CASES["lora, nf4"]
    state, predicted = unallocated(config, vocab_size).state, predict(config, vocab_size, "flax")
    held = {part: sum(x.size * x.dtype.itemsize for x in entries.values()) for part, entries in state.items()}
    assert predicted.weights == held["params"]
    assert predicted.optimizer == held["optim"] - state["optim"]["count"].dtype.itemsize


def test_what_the_arithmetic_borrows_is_the_twin_s():
    assert (flax_step.SLICE, flax_layers.BLOCKS) == (SLICE, BLOCKS)
