"""Runs the class of transformers on a variant of config.json: its logits, and those of its cache."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from parity.hugging_face import by_pytorch
from parity.oracle.measure import randomise
from parity.oracle.stepping import prompt_of

ROWS = 2
LARGEST = 400
"""Largest width or number of a tiny model. A class's own values are larger, and such a model is not run."""


class TooLarge(Exception):
    """The variant has a width of the class's own, for which a model takes too long to make."""


@dataclass(frozen=True)
class Reference:
    """What a class computes.

    Args:
      tokens: int32 [rows, length].
      logits: of all tokens, [rows, length, vocab].
      cached: after the prompt of the first row and after each further token, [length - start + 1, vocab].
    """

    tokens: np.ndarray
    logits: np.ndarray
    cached: np.ndarray


def quiet() -> None:
    """Keeps warnings about odd configs off the terminal."""
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.logging.disable_progress_bar()


def write_config(folder: Path, values: dict[str, Any]) -> None:
    """Writes config.json."""
    (folder / "config.json").write_text(json.dumps(values))


def make(folder: Path, values: dict[str, Any]) -> Any:
    """Makes the model of a config.json with random weights, and saves it with just that config.json.

    Raises:
      Exception: the class refuses the config, or cannot be made of it.
    """
    write_config(folder, values)
    model = _model(transformers.AutoConfig.from_pretrained(folder))
    randomise(model)
    model.save_pretrained(folder)
    write_config(folder, values)
    return model


def load(folder: Path) -> Any:
    """Loads the model of a folder. Raises ValueError if its tensors do not fit its config.json."""
    _check_size(transformers.AutoConfig.from_pretrained(folder))
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if wrong := info["missing_keys"] | info["unexpected_keys"] | set(info["mismatched_keys"]):
        raise ValueError(f"tensors do not fit: {sorted(wrong)[0]}")
    return by_pytorch(model.eval())


def _model(config: Any) -> Any:
    _check_size(config)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    return by_pytorch(model.eval())


def _check_size(config: Any) -> None:
    for each in dataclasses.fields(config):
        value = getattr(config, each.name, None)
        if isinstance(value, int) and value > LARGEST:
            harmless = each.name.endswith("_token_id") or "window" in each.name or "max_" in each.name
            if not harmless and each.name not in ("seq_length", "query_pre_attn_scalar"):
                raise TooLarge(f"{each.name}={value}")
        if each.name in ("n_layer", "n_layers", "num_hidden_layers") and isinstance(value, int) and value > 8:
            raise TooLarge(f"{each.name}={value}")


@torch.no_grad()
def run(model: Any, vocab_size: int, length: int) -> Reference:
    """Runs a model over tokens, at once and token by token. Raises Exception if it cannot be run."""
    tokens = np.random.default_rng(0).integers(0, vocab_size, (ROWS, length), dtype=np.int32)
    ids = torch.from_numpy(tokens).long()
    logits = model(ids, use_cache=False, return_dict=True).logits
    start = prompt_of(length)
    out = model(ids[:1, :start], use_cache=True, return_dict=True)
    cache = next(name for name in ("past_key_values", "cache_params") if name in out)  # the second is Mamba-2's
    cached = [out.logits[0, -1]]
    for i in range(start, length):
        out = model(ids[:1, i : i + 1], **{cache: out[cache]}, use_cache=True, return_dict=True)
        cached.append(out.logits[0, -1])
    return Reference(tokens, logits.numpy(), torch.stack(cached).numpy())


def fields_read(values: dict[str, Any]) -> set[str]:
    """Returns the names that a class, and code beneath it, asks its config for: also those that it does not have."""
    with watched() as read, tempfile.TemporaryDirectory() as folder:
        run(make(Path(folder), values), 96, 8)
    return {name for name in read if not name.startswith("_")}


@contextmanager
def watched() -> Iterator[set[str]]:
    """Collects the names of the attributes that are read from any config."""
    base = transformers.PreTrainedConfig
    original, read = base.__getattribute__, set()
    plain = {name for name in dir(base) if callable(getattr(base, name, None))}

    def getattribute(self: Any, key: Any) -> Any:
        if key not in plain:
            read.add(key)
        return original(self, key)

    base.__getattribute__ = getattribute
    try:
        yield read
    finally:
        base.__getattribute__ = original
