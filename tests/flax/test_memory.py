"""The planner's predictions for the Flax twin against XLA's plan of an update, which is compiled but never run.

The plans are for this machine's CPU and for the card, which need not be here.
"""

import jax
import pytest

from parity.memory import cases, planned
from slm_core.config import Config, presets
from slm_core.config.fields import with_values
from slm_core.config.validation import drop_unread, validate
from slm_core.planner import flax_layers, predict, resident
from slm_flax.card import has_card
from slm_flax.layers.flash import GPU_TILE
from slm_flax.layers.fused import BLOCKS
from slm_flax.memory import measured, unallocated
from slm_flax.optim.adamw8bit import SLICE

CASES = cases()
QUICK = ("remat=block",)
MORE = {
    "no accumulation": {"train.batch_size": 8},
    "attention, 12 layers": {"memory.remat": "attention", "model.n_layers": 12},
    "block, 12 layers": {"memory.remat": "block", "model.n_layers": 12},
    "relu": {"model.mlp.kind": "relu"},
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
    "moe, shared, gated, none": {
        "model.mlp.kind": "moe", "model.mlp.shared_experts": 2, "model.mlp.shared_gate": True,
    },
    "float16, none": {"precision.compute": "float16"},
    "window by pattern, block": {"model.pattern": "attention.window=32 | .", "memory.remat": "block"},
    "kinds by pattern, block": {
        "model.pattern": "mlp.kind=gelu | mlp.kind=relu2 | mlp.kind=geglu | .", "memory.remat": "block",
        "model.n_layers": 4,
    },
    "value_residual, block": {"model.attention.value_residual": True, "memory.remat": "block"},
    "value_residual, none": {"model.attention.value_residual": True},
    "mixer, none": {"model.mixer.kind": "gated_delta"},
    "mixers by pattern, block": {
        "model.pattern": "2*mixer.kind=mamba2 | .", "memory.remat": "block", "data.document_mask": True,
    },
}  # fmt: skip


def error(config: Config, vocab_size: int) -> float:
    return predict(config, vocab_size, planned("flax")).update / measured(config, vocab_size) - 1


def changed(config: Config, overrides: dict) -> Config:
    config, _ = drop_unread(config, with_values(config, overrides), overrides)
    validate(config, overrides)
    return config


ON_CARD = {"run.device": "auto"}
card = pytest.mark.skipif(not has_card(), reason="JAX is here without its compiler for NVIDIA GPUs")


@pytest.mark.parametrize("name", QUICK)
def test_an_update_takes_what_is_predicted(name):
    assert abs(error(*CASES[name])) < 0.05


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in CASES if name not in QUICK])
def test_every_case_is_within_a_tenth(name):
    assert abs(error(*CASES[name])) < 0.1


@card
@pytest.mark.parametrize("name", [pytest.param(x, marks=[] if x in QUICK else pytest.mark.exhaustive) for x in CASES])
def test_an_update_on_the_card_takes_what_is_predicted(name):
    config, vocab_size = CASES[name]
    assert abs(error(with_values(config, ON_CARD), vocab_size)) < 0.1


PLACES = [{}, pytest.param(ON_CARD, marks=card)]


@pytest.mark.exhaustive
@pytest.mark.parametrize("place", PLACES, ids=["cpu", "card"])
@pytest.mark.parametrize("name", MORE)
def test_more_options_are_within_a_tenth(name, place):
    config, vocab_size = CASES["loss_chunk"]
    assert abs(error(changed(config, MORE[name] | place), vocab_size)) < 0.1


@card
@pytest.mark.slow
def test_the_card_s_compiler_sees_what_a_gpu_would_compute():
    """It computes flash in the place of fused, so that scores are never kept."""
    config, vocab_size = CASES["remat=block"]
    long = {"model.attention.kernel": "fused", "data.seq_len": 1024, "train.micro_batch_size": 2} | ON_CARD
    config = with_values(config, long)
    same = with_values(config, {"model.attention.kernel": "flash"})
    assert measured(config, vocab_size) == measured(same, vocab_size)


@pytest.mark.slow
def test_gpt2_is_within_a_tenth():
    overrides = {
        "train.micro_batch_size": 8, "memory.remat": "block", "memory.loss_chunk": 1024, "memory.limit_gb": 0.0,
        "precision.compute": "float32", "run.device": "cpu",
    }  # fmt: skip
    assert abs(error(changed(presets.load("configs/gpt2.py:124m")[0], overrides), 50257)) < 0.1


def test_an_engine_is_measured_without_its_arrays():
    config, vocab_size = CASES["remat=block"]
    state = unallocated(config, vocab_size).state
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state))


def test_weights_and_optimizer_are_exact():
    config, vocab_size = CASES["lora, nf4"]
    state, predicted = unallocated(config, vocab_size).state, predict(config, vocab_size, planned("flax"))
    sizes = {part: sum(x.size * x.dtype.itemsize for x in entries.values()) for part, entries in state.items()}
    assert predicted.weights == sizes["params"]
    assert predicted.optimizer == sizes["optim"] - state["optim"]["count"].dtype.itemsize


def test_sizes_of_blocks_and_tiles_are_the_twin_s():
    assert (resident.SLICE, flax_layers.BLOCKS, flax_layers.GPU_TILE) == (SLICE, BLOCKS, GPU_TILE)
