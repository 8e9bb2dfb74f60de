"""Reads the adapter_config.json of a PEFT adapter: which modules have LoRA matrices, of which rank, at which scale.

Format: https://huggingface.co/docs/peft/package_reference/lora. Each field is read, or is known to change nothing, or
the import is refused.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from slm_core.errors import UserError
from slm_core.hf.fields import KINDS, text
from slm_core.hf.folder import read_json

CONFIG = "adapter_config.json"
NEUTRAL = frozenset({
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "megatron_core", "qalora_group_size", "runtime_config", "eva_config", "corda_config",
    "lora_ga_config", "loftq_config", "bias", "modules_to_save", "fan_in_fan_out",
})  # fmt: skip
"""Fields that change nothing beside those that are read.

eva_config and its like say how A and B started, and init_lora_weights is read. The file has the biases and the modules
that were trained whole. PEFT itself sets fan_in_fan_out as each module needs it.
"""
READ = frozenset({
    "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "init_lora_weights",
})  # fmt: skip
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the checkpoint's own weights as they are."""


class Shape(NamedTuple):
    """What the config says of the adapter of one module.

    Args:
      rank: rows of A.
      scale: the product B A is multiplied by it.
    """

    rank: int
    scale: float


class AdapterConfig:
    """An adapter_config.json.

    Raises:
      UserError: it is not of a plain LoRA, or a field cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._values = read_json(folder / CONFIG)
        self._check()
        self._rank = self._typed("r", 8, "a whole number")
        self._alpha = self._typed("lora_alpha", 8, "a number")
        self._stable = self._typed("use_rslora", False, "true or false")
        self._ranks = self._pattern("rank_pattern", "a whole number")
        self._alphas = self._pattern("alpha_pattern", "a number")

    def _check(self) -> None:
        values = self._values
        if values.get("peft_type") != "LORA":
            raise UserError(f"{CONFIG}: peft_type={text(values.get('peft_type'))} cannot be imported: only LORA")
        for name, value in values.items():
            if value and name not in READ | NEUTRAL:
                raise UserError(f"{CONFIG}: {name}={text(value)} cannot be imported: merge the adapter with PEFT first")
        start = values.get("init_lora_weights", True)
        if start not in PLAIN_STARTS:
            raise UserError(
                f"{CONFIG}: init_lora_weights={text(start)} changed the checkpoint's own weights:"
                " merge the adapter with PEFT first"
            )

    def _typed(self, name: str, default: Any, kind: str) -> Any:
        value = self._values.get(name, default)
        if not KINDS[kind](value):
            raise UserError(f"{CONFIG}: {name}={text(value)} is not {kind}: restore the file")
        return value

    def _pattern(self, name: str, kind: str) -> Mapping[str, Any]:
        pattern = self._values.get(name) or {}
        if not isinstance(pattern, dict) or not all(KINDS[kind](value) for value in pattern.values()):
            raise UserError(
                f"{CONFIG}: {name}={text(pattern)} is not an object of which each entry is {kind}: restore it"
            )
        return pattern

    def shape(self, module: str) -> Shape:
        """Returns the rank and the scale of a module's adapter: alpha / rank; alpha / sqrt(rank) with use_rslora."""
        rank = self._ranks.get(self._key(self._ranks, module), self._rank)
        alpha = self._alphas.get(self._key(self._alphas, module), self._alpha)
        if rank < 1:
            raise UserError(f"{CONFIG}: {module} has rank {rank}, which is less than 1: restore the file")
        return Shape(rank, alpha / (rank**0.5 if self._stable else rank))

    def _key(self, pattern: Mapping[str, Any], module: str) -> str:
        """Returns the first expression that matches the last parts of a module's name."""
        return next((key for key in pattern if self._matches(re.match, rf"(.*\.)?({key})$", module)), "")

    def targets(self, module: str) -> bool:
        """Returns whether the config gives a module an adapter, as PEFT decides it."""
        if self._named("exclude_modules", module):
            return False
        targets = self._values.get("target_modules")
        if targets == "all-linear":
            return True
        if not self._named("target_modules", module):
            return False
        return isinstance(targets, str) or module in (targets or ()) or self._in_layers(module)

    def _named(self, field: str, module: str) -> bool:
        """Returns whether a field names a module: by an expression for its whole name, or in a list by its end."""
        names = self._texts(field)
        if isinstance(names, str):
            return self._matches(re.fullmatch, names, module)
        return any(f".{module}".endswith(f".{name}") for name in names)

    def _texts(self, field: str) -> str | list[str]:
        names = self._values.get(field) or []
        if not (isinstance(names, str) or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
            raise UserError(f"{CONFIG}: {field}={text(names)} is not a text or a list of texts: restore the file")
        return names

    def _in_layers(self, module: str) -> bool:
        layers = self._values.get("layers_to_transform")
        if layers is None or layers == []:
            return True
        layers = layers if isinstance(layers, list) else [layers]
        if not all(KINDS["a whole number"](layer) for layer in layers):
            raise UserError(f"{CONFIG}: layers_to_transform={text(layers)} are not numbers of layers: restore the file")
        patterns = self._texts("layers_pattern") or r"[^.]*"
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            if found := self._matches(re.match, rf"(?:^|.*?\.){pattern}\.(\d+)\.", module):
                return int(found[found.re.groups]) in layers
        return False

    def _matches(self, match: Callable[[str, str], Any], expression: str, module: str) -> Any:
        try:
            return match(expression, module)
        except re.error as error:
            raise UserError(f"{CONFIG}: {expression} is not a regular expression ({error}): restore the file") from None
