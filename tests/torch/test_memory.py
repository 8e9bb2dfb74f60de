"""The planner's predictions for the PyTorch twin against MemTracker's counts of an update on fake tensors."""

from itertools import chain

import numpy as np
import pytest
from torch.profiler import ProfilerActivity, profile

from parity.memory import cases, planned
from slm_core.config import Config, presets
from slm_core.config.fields import with_values
from slm_core.config.mixer import RECURRENT
from slm_core.config.validation import drop_unread, validate
from slm_core.planner import predict, resident, torch_attention
from slm_core.planner.fallbacks import KNOWN
from slm_torch.layers.flash import GPU_TILE, TILE
from slm_torch.memory import measured
from slm_torch.optim.adamw8bit import SLICE
from slm_torch.optim.base import named_state
from slm_torch.trainer import Engine
from tests.tiers import some_slow

CASES = cases()
QUICK = ("base",)
LONG = ("long", "sgd", "lion", "muon", "adafactor", "schedule_free")
"""Cases that take a minute or two each."""
SMALL = {
    "model.d_model": 64, "model.n_layers": 2, "model.attention.n_heads": 4, "model.attention.n_kv_heads": 2,
    "model.attention.kernel": "flash", "data.seq_len": 128, "train.batch_size": 8, "train.micro_batch_size": 4,
    "memory.loss_chunk": 256, "memory.remat": "none", "precision.compute": "float32", "run.device": "cpu",
}  # fmt: skip
OPTIONS = {
    "remat=attention": {"memory.remat": "attention"},
    "remat=full": {"memory.remat": "full", "model.n_layers": 4, "train.micro_batch_size": 8},
    "no accumulation, whole logits": {"train.micro_batch_size": 8, "memory.loss_chunk": 0, "model.z_loss": 1e-4},
    "a bias of the logits": {"model.head_bias": True, "memory.loss_chunk": 0, "model.logit_multiplier": 0.5},
    "float16, dropout": {"precision.compute": "float16", "model.dropout": 0.1},
    "lion": {"optim.kind": "lion", "train.micro_batch_size": 8},
    "mixer": {"model.mixer.kind": "gated_delta"},
    "mixers, remat=attention, float16, documents apart": {
        "model.pattern": "mixer.kind=gla | mixer.kind=mamba2 | .",
        "model.n_layers": 3,
        "memory.remat": "attention",
        "precision.compute": "float16",
        "data.document_mask": True,
    },
    "mixer, lora": {"model.mixer.kind": "kda", "finetune.kind": "lora", "finetune.frozen": "nf4"},
    "mixture, frozen": {"model.mlp.kind": "moe", "finetune.kind": "lora", "finetune.frozen": "nf4"},
    "mixture, int8, its router adapted": {
        "model.mlp.kind": "moe",
        "model.mlp.shared_experts": 1,
        "model.mlp.router_bias": True,
        "precision.compute": "float16",
        "finetune.kind": "lora",
        "finetune.frozen": "int8",
        "finetune.targets": r"layers\..*(_proj|router)",
    },
    "mixer, lora elsewhere": {
        "model.pattern": "mixer.kind=kda | .",
        "finetune.kind": "lora",
        "finetune.targets": r"layers\.1\..*_proj",
    },
    **{
        f"documents apart, {kernel}": {"data.document_mask": True, "model.attention.kernel": kernel}
        for kernel in torch_attention.KERNEL
    },
}
MORE = {
    "norm": [{"weight": "none"}, {"placement": "sandwich"}, {"placement": "post"}, {"placement": "output"},
             {"placement": "parallel"}, {"placement": "parallel_shared"}],
    "attention": [{"kind": "mla", "q_rank": 32}, {"qk_norm": "rmsnorm"},
                  {"qk_norm": "rmsnorm", "qk_norm_over": "whole"}, {"qk_norm": "l2"}, {"gate": "element"},
                  {"gate": "head"}, {"value_residual": True}, {"sinks": True}, {"softcap": 30.0}, {"window": 64},
                  {"kernel": "dot_product"}, {"kernel": "fused"}, {"kernel": "fused", "window": 64},
                  {"kernel": "dot_product", "sinks": True}, {"kernel": "dot_product", "softcap": 30.0}],
    "mixer": [{"kind": kind} for kind in RECURRENT]
             + [{"kind": "gla", "convolution": 4, "chunk": 32}, {"kind": "mamba2", "key_dim": 64}],
    "position": [],
    "mlp": [{"bias": True}, {"kind": "moe", "shared_experts": 1},
            {"kind": "moe", "shared_experts": 2, "shared_gate": True}, {"kind": "moe", "expert": "gelu"}],
}  # fmt: skip
"""{section: settings}, beside every kind that has arithmetic."""


def small(overrides: dict) -> Config:
    base = with_values(presets.load("configs/llama.py:tiny")[0], SMALL)
    config, _ = drop_unread(base, with_values(base, overrides), overrides)
    validate(config, overrides)
    return config


def error(config: Config, vocab_size: int) -> float:
    return predict(config, vocab_size, planned("torch")).update / measured(config, vocab_size) - 1


@pytest.mark.parametrize("name", OPTIONS)
def test_small_updates_take_what_is_predicted(name):
    assert abs(error(small(OPTIONS[name]), 4096)) < 0.02


@pytest.mark.parametrize("kernel", some_slow(("fused", "flash"), "flash"))
@pytest.mark.parametrize("remat", ["none", "block"])
def test_a_gpu_is_predicted_too(kernel, remat):
    overrides = {"model.attention.kernel": kernel, "memory.remat": remat, "run.device": "auto", "data.seq_len": 512}
    assert abs(error(small(overrides), 4096)) < 0.05
    on_cpu = small(overrides | {"run.device": "cpu"})
    assert measured(small(overrides), 4096) >= measured(on_cpu, 4096)


def test_what_is_measured_without_memory_is_what_a_real_update_takes():
    config = small({"memory.remat": "block"})
    engine = Engine(config, 4096)
    state = chain(*named_state(engine.optimizer, engine.trained).values())
    tensors = (*engine.params.values(), *engine.model.buffers(), *state)
    built = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    tokens = np.zeros((config.train.batch_size, config.data.seq_len + 1), np.uint16)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        engine.train_step(tokens, lr=1e-3, step=0)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    assert measured(config, 4096) == pytest.approx(built + np.cumsum(changes).max(), rel=1e-3)


def test_measuring_takes_no_memory():
    config = with_values(small({}), {"model.d_model": 4096, "model.n_layers": 1})
    assert measured(config, 200_000) > 10e9


@pytest.mark.parametrize("name", some_slow(CASES, *CASES.keys() - {*QUICK, *LONG}, exhaustive=LONG))
def test_every_case_is_predicted(name):
    assert abs(error(*CASES[name])) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "block"])
@pytest.mark.parametrize("section", MORE)
def test_every_component_is_predicted(section, remat):
    known = KNOWN.get(f"model.{section}.kind", ((), ""))[0]
    kinds = [{"kind": kind} for kind in sorted(known)]
    for values in kinds + MORE[section]:
        overrides = {f"model.{section}.{name}": value for name, value in values.items()} | {"memory.remat": remat}
        assert abs(error(small(overrides), 4096)) < 0.05, overrides


@pytest.mark.slow
def test_a_model_of_124m_parameters_is_predicted():
    config, _ = presets.load("configs/gpt2.py:124m")
    values = {
        "train.batch_size": 16, "train.micro_batch_size": 8, "data.seq_len": 1024, "run.device": "cpu",
        "precision.compute": "float32", "memory.remat": "block", "memory.loss_chunk": 1024,
        "model.attention.kernel": "fused",
    }  # fmt: skip
    assert abs(error(with_values(config, values), 50257)) < 0.05


def test_sizes_of_pieces_are_the_twins():
    assert (torch_attention.CPU_TILE, torch_attention.GPU_TILE) == (TILE, GPU_TILE)
    assert resident.SLICE == SLICE
