"""Writes the adapters of a run, trained here or imported, as the folder of a PEFT adapter.

A PEFT module may be several of our linear layers. Its A is then theirs, one below the other, and its B has each one's B
in the place of its own A, and zeros elsewhere: the function is the same.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.hf.adapter import FILE_NAME, PREFIX
from slm_core.hf.adapter_config import CONFIG
from slm_core.hf.family import Family
from slm_core.hf.folder import METADATA
from slm_core.hf.rules import Rule
from slm_core.hf.shapes import weight_shape
from slm_core.model.weights import Weights, save_tensors
from slm_core.quantization.formats import ADAPTER


class Module(NamedTuple):
    """The adapter of a module of PEFT: its name, A [rank, in] and B [out, rank]."""

    name: str
    a: np.ndarray
    b: np.ndarray


def write_adapter(
    folder: Path, family: Family, config: Config, vocab_size: int, adapters: Weights, base: str, dtype: str
) -> int:
    """Writes adapter_config.json and adapter_model.safetensors.

    Args:
      family: of the checkpoint that the adapter is beside.
      adapters: {name: array} of the run's A and B.
      base: the folder or name of that checkpoint; "": the config does not name it.
      dtype: the type of the tensors.

    Returns:
      The number of adapted modules.

    Raises:
      UserError: an adapter is of a layer that no single module of the family has.
    """
    modules = list(_modules(family, config, vocab_size, adapters))
    tensors = {}
    for module in modules:
        for kind, array in (("A", module.a), ("B", module.b)):
            tensors[f"{PREFIX}{module.name}.lora_{kind}.weight"] = np.ascontiguousarray(array.astype(dtype))
    save_tensors(tensors, folder / FILE_NAME, METADATA)
    (folder / CONFIG).write_text(json.dumps(_settings(config, modules, family, base), indent=2) + "\n")
    return len(modules)


def _settings(config: Config, modules: list[Module], family: Family, base: str) -> dict[str, Any]:
    rank, scale = config.finetune.rank, config.finetune.alpha / config.finetune.rank
    wider = {module.name: len(module.a) for module in modules if len(module.a) != rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base or None,
        "r": rank,
        "lora_alpha": config.finetune.alpha,
        "target_modules": [module.name for module in modules],
        "rank_pattern": wider,
        "alpha_pattern": {name: scale * wide for name, wide in wider.items()},
        "fan_in_fan_out": bool(family.inputs_first),
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }


def _modules(family: Family, config: Config, vocab_size: int, adapters: Weights) -> Iterator[Module]:
    left = {name.rpartition(".")[0] for name in adapters}
    for rule in family.rules(config):
        adapted = [name.removesuffix(".weight") for name in rule.names if name.removesuffix(".weight") in left]
        if adapted and len(rule.hf_names) == 1 and rule.names[0].endswith(".weight"):
            left -= {*adapted}
            yield _module(family, rule, adapters, [weight_shape(name, config, vocab_size) for name in rule.names])
    if left:
        raise UserError(f"{min(left)}: no module of a {family.model_type} model is this layer: export without --format")


def _module(family: Family, rule: Rule, adapters: Weights, shapes: list[tuple[int, ...]]) -> Module:
    paths = [name.removesuffix(".weight") for name in rule.names]
    first, second = ADAPTER
    down = {path: adapters[f"{path}.{first}"] for path in paths if f"{path}.{first}" in adapters}
    rank, start, ups = sum(array.shape[1] for array in down.values()), 0, []
    for path, shape in zip(paths, shapes, strict=True):
        up = np.zeros((rank, shape[-1]), np.float64)
        if path in down:
            stop = start + down[path].shape[1]
            up[start:stop], start = adapters[f"{path}.{second}"], stop
        ups.append(up)
    (b,) = rule.layout.to_hf(ups)
    (name,) = rule.hf_names
    a = np.concatenate(list(down.values()), axis=1).T
    return Module(name.removesuffix(".weight"), a, b.T if name.endswith(family.inputs_first) else b)
