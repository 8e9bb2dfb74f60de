"""Reads the folder of a PEFT adapter: LoRA matrices, merged into the tensors of the checkpoint they were trained on.

W + scale B A (Hu et al. 2021, https://arxiv.org/abs/2106.09685). The scale is alpha / rank; with use_rslora, it is
alpha / sqrt(rank). Format: https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slm_core.errors import UserError
from slm_core.hf.fields import text
from slm_core.hf.folder import read_json, tensors_of
from slm_core.model.weights import Lazy, Weights

CONFIG = "adapter_config.json"
FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
UNSET = (
    "use_dora", "lora_bias", "alpha_pattern", "layer_replication", "trainable_token_indices", "target_parameters",
    "use_qalora", "alora_invocation_tokens", "arrow_config", "megatron_config", "use_bdlora", "eva_config",
)  # fmt: skip
"""Fields that change what is added, and are not supported."""
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the checkpoint's own weights as they are."""


def is_adapter(folder: Path) -> bool:
    """Returns whether a folder has a PEFT adapter."""
    return (folder / CONFIG).is_file()


def base_folder(folder: Path, base: str) -> Path:
    """Returns the folder of the checkpoint that an adapter was trained on.

    Args:
      base: the folder that the user gives; "": the one that the adapter names.

    Raises:
      UserError: there is no such folder.
    """
    named = base or str(read_json(folder / CONFIG).get("base_model_name_or_path") or "")
    for candidate in (Path(named).expanduser(), folder / named):
        if named and (candidate / "config.json").is_file():
            return candidate
    raise UserError(
        f"{folder} is an adapter of {named or 'a checkpoint that it does not name'}, which is not a folder with a"
        " config.json: give that checkpoint's folder with --base"
    )


def merged(folder: Path, tensors: Weights) -> Weights:
    """Returns the tensors of a checkpoint with an adapter merged into them, each made when it is read.

    Raises:
      UserError: the adapter is not a plain LoRA, or it changes a tensor that the checkpoint does not have.
    """
    config = read_json(folder / CONFIG)
    _check(config)
    adapter = tensors_of([folder / FILE])
    changed: dict[str, Any] = {name: partial(tensors.__getitem__, name) for name in tensors}
    pairs: dict[str, dict[str, str]] = {}
    for name in adapter:
        inner = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        module, _, kind = inner.rpartition(".lora_")
        if not module:
            changed[_known(inner, tensors)] = partial(adapter.__getitem__, name)
        elif kind in ("A.weight", "B.weight"):
            pairs.setdefault(module, {})[kind[0]] = name
        else:
            raise UserError(f"{folder}: tensor {name} is not of a plain LoRA: merge the adapter with PEFT first")
    for module, pair in pairs.items():
        if len(pair) < 2:
            raise UserError(f"{folder}: {module} has one of lora_A and lora_B alone: download the adapter again")
        weight = _known(f"{module}.weight", tensors)
        changed[weight] = partial(_sum, weight, changed[weight], adapter, pair, config)
    return Lazy(changed)


def _check(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise UserError(f"{CONFIG}: peft_type={text(config.get('peft_type'))} cannot be imported: only LORA")
    for name in UNSET:
        if config.get(name):
            raise UserError(
                f"{CONFIG}: {name}={text(config[name])} cannot be merged: merge the adapter with PEFT first"
            )
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        raise UserError(
            f"{CONFIG}: init_lora_weights={text(config['init_lora_weights'])} changed the checkpoint's own weights:"
            " merge the adapter with PEFT first"
        )
    alpha = config.get("lora_alpha", 8)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise UserError(f"{CONFIG}: lora_alpha={text(alpha)} is not a number: restore the file")


def _known(name: str, tensors: Weights) -> str:
    """Returns the name under which a checkpoint has a tensor. Older checkpoints leave its beginning out."""
    for known in (name, name.removeprefix("model."), name.removeprefix("transformer.")):
        if known in tensors:
            return known
    raise UserError(f"the adapter changes {name}, which the checkpoint does not have: give another --base")


def _sum(name: str, weight: Any, adapter: Weights, pair: Mapping[str, str], config: Mapping[str, Any]) -> np.ndarray:
    a, b = adapter[pair["A"]], adapter[pair["B"]]
    rank = a.shape[0]
    scale = config.get("lora_alpha", 8) / (rank**0.5 if config.get("use_rslora") else rank)
    added, array = scale * (b @ a), weight()
    if config.get("fan_in_fan_out"):
        added = added.T
    if added.shape != array.shape:
        raise UserError(
            f"the adapter adds {list(added.shape)} to tensor {name}, which has the shape {list(array.shape)}: give"
            " another --base"
        )
    return (array + added).astype(array.dtype)
