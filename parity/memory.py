"""Checks the planner: configs with every memory setting, and their measured memory, which needs no GPU."""

import functools
import importlib
from typing import Any

from slm_core.config import Config, presets
from slm_core.config.fields import with_values
from slm_core.config.validation import drop_unread, validate
from slm_core.planner import Twin
from slm_core.planner.declarations import MixerMemory

VOCAB = 8192
_BASE: dict[str, Any] = {
    "model.d_model": 384, "model.n_layers": 6, "model.attention.n_heads": 6, "model.attention.n_kv_heads": 2,
    "model.attention.kernel": "flash", "data.seq_len": 256, "train.batch_size": 16, "train.micro_batch_size": 8,
    "precision.compute": "float32", "memory.remat": "none", "memory.loss_chunk": 0, "memory.limit_gb": 0.0,
    "run.device": "cpu",
}  # fmt: skip
_SMALL_LOGITS = {"memory.loss_chunk": 256}

_OVERRIDES: dict[str, dict[str, Any]] = {
    "base": {},
    "no accumulation": {"train.micro_batch_size": 16},
    "loss_chunk": _SMALL_LOGITS,
    "remat=attention": {"memory.remat": "attention"} | _SMALL_LOGITS,
    "remat=block": {"memory.remat": "block"} | _SMALL_LOGITS,
    "remat=full": {"memory.remat": "full", "model.n_layers": 16} | _SMALL_LOGITS,
    "remat=block, whole logits": {"memory.remat": "block"},
    "dot_product": {"model.attention.kernel": "dot_product"} | _SMALL_LOGITS,
    "dot_product, long, remat=block": {
        "model.attention.kernel": "dot_product", "data.seq_len": 1024, "train.micro_batch_size": 2,
        "memory.remat": "block",
    } | _SMALL_LOGITS,
    "fused": {"model.attention.kernel": "fused"} | _SMALL_LOGITS,
    "deep": {"model.n_layers": 18, "memory.remat": "block"} | _SMALL_LOGITS,
    "wide": {"model.d_model": 768, "model.attention.n_heads": 12, "model.attention.n_kv_heads": 4} | _SMALL_LOGITS,
    "long": {"data.seq_len": 1024, "train.micro_batch_size": 2, "memory.remat": "block"} | _SMALL_LOGITS,
    "untied head": {"model.tie_embeddings": False},
    "GPT-2's block": {
        "model.norm.kind": "layernorm", "model.norm.bias": True, "model.mlp.kind": "gelu", "model.mlp.bias": True,
        "model.attention.bias": True, "model.position.kind": "learned", "model.attention.n_kv_heads": 6,
    } | _SMALL_LOGITS,
    "dropout": {"model.dropout": 0.1} | _SMALL_LOGITS,
    "float16": {"precision.compute": "float16", "memory.remat": "block"} | _SMALL_LOGITS,
    "adamw8bit": {"optim.kind": "adamw8bit", "memory.remat": "block", "train.micro_batch_size": 1} | _SMALL_LOGITS,
    "sgd": {"optim.kind": "sgd", "memory.remat": "block", "train.micro_batch_size": 1} | _SMALL_LOGITS,
    "lion": {"optim.kind": "lion", "memory.remat": "block", "train.micro_batch_size": 1} | _SMALL_LOGITS,
    "muon": {"optim.kind": "muon", "memory.remat": "block", "train.micro_batch_size": 1} | _SMALL_LOGITS,
    "adafactor": {"optim.kind": "adafactor", "memory.remat": "block", "train.micro_batch_size": 1} | _SMALL_LOGITS,
    "schedule_free": {
        "optim.kind": "schedule_free", "optim.schedule": "constant", "memory.remat": "block",
        "train.micro_batch_size": 1,
    } | _SMALL_LOGITS,
    "mla": {"model.attention.kind": "mla", "memory.remat": "block"} | _SMALL_LOGITS,
    "differential": {"model.attention.kind": "differential", "memory.remat": "block"} | _SMALL_LOGITS,
    "moe": {"model.mlp.kind": "moe", "memory.remat": "block"} | _SMALL_LOGITS,
    "lora, nf4": {"finetune.kind": "lora", "finetune.frozen": "nf4", "memory.remat": "block"} | _SMALL_LOGITS,
    "lora, int8": {"finetune.kind": "lora", "finetune.frozen": "int8", "memory.remat": "block"} | _SMALL_LOGITS,
}  # fmt: skip


def cases() -> dict[str, tuple[Config, int]]:
    """Returns {name: (config, vocabulary)}: small models, one for each memory setting. They compile in seconds."""
    base = with_values(presets.load("configs/llama.py:tiny")[0], _BASE)
    configs = {}
    for name, overrides in _OVERRIDES.items():
        config, _ = drop_unread(base, with_values(base, overrides), overrides)
        validate(config, overrides)
        configs[name] = (config, VOCAB)
    return configs


@functools.cache
def planned(framework: str) -> Twin:
    """Returns the twin for the planner. PyTorch declares the parameters of both: Flax declares the same."""
    from slm_torch.model import declared

    def measure_mixer(config: Config) -> MixerMemory:
        return importlib.import_module(f"slm_{framework}.mixer_memory").mixer_memory(config)

    return Twin(framework, declared, measure_mixer)


def measured(config: Config, vocab_size: int, framework: str) -> int:
    """Measures the bytes that an update takes at its peak, without running it.

    PyTorch's MemTracker counts them on fake tensors; of Flax XLA's compiler plans them.

    Args:
      config: its memory fields are resolved.
      framework: "torch" or "flax".
    """
    from slm_core.hardware.devices import quiet_jax

    quiet_jax()
    return importlib.import_module(f"slm_{framework}.memory").measured(config, vocab_size)
