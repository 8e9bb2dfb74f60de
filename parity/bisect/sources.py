"""Finds the file and line of a module's code."""

import importlib
import inspect
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

CODE = {
    "logits": ("model", "Transformer.logits"),
    "loss": ("loss", "loss_sums"),
    "accumulation": ("trainer", "Engine.train_step"),
    "clipping": ("trainer", "clip_factor"),
    "balance": ("trainer", "balance"),
    "scaler": ("trainer", "LossScaler"),
    "decoder": ("generate", "Decoder"),
}
"""{broken part that is not a module: (file in either twin, its name there)}."""


def code_of(module: str, framework: str, broken: Any) -> str:
    """Returns the name and place of a broken part, as in "RMSNorm, slm_torch/layers/rmsnorm.py:15"; "" if unknown.

    Args:
      broken: the module or optimizer of this name; None if it is something else.
    """
    if module in CODE:
        file, name = CODE[module]
        code: Any = importlib.import_module(f"slm_{framework}.{file}")
        for part in name.split("."):
            code = getattr(code, part)
        return f"{name}, {_place(code)}"
    return "" if broken is None else f"{type(broken).__name__}, {_place(type(broken))}"


def _place(code: Any) -> str:
    code = inspect.unwrap(code)
    file = Path(inspect.getsourcefile(code) or "")
    installed = "site-packages" in file.parts
    shown = Path(*file.parts[-4:]) if installed or not file.is_relative_to(ROOT) else file.relative_to(ROOT)
    return f"{shown}:{inspect.getsourcelines(code)[1]}"
