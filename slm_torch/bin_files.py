"""Opens pytorch_model.bin files, which PyTorch alone can read."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch

from slm_core.errors import UserError
from slm_core.model.weights import Lazy, Weights


def read_bin(files: Iterable[Path]) -> Weights:
    """Opens the tensors of files by name. No code in them is run: only tensors are loaded (weights_only).

    Raises:
      UserError: a file is damaged, or has more than tensors.
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        loaded = _load(file)
        if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
            raise UserError(f"{file} is not a dictionary of tensors: save the model again as safetensors")
        tensors |= loaded
    return Lazy({name: partial(_array, tensor) for name, tensor in tensors.items()})


def _load(file: Path) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{file} cannot be read ({reason}): save the model again as safetensors") from None


def _array(tensor: torch.Tensor) -> np.ndarray:
    plain = tensor.detach()
    return (plain.float() if plain.dtype in (torch.bfloat16, torch.float16) else plain).numpy()
