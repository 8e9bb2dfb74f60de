"""Weights & Biases (https://docs.wandb.ai): files in `wandb/` of the run's folder, which `wandb sync` sends."""

import hashlib
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from slm_core.training.trackers.base import Values, library


class Wandb:
    """Logs to the project of WANDB_PROJECT, or the one that is named as the folder of the runs.

    The processes of a run share one id. Without a server, each writes a folder of its own.
    """

    replays = False  # the server keeps the first of two lines with one step

    def __init__(self, folder: Path, step: int, hyperparameters: Values):
        self._library: Any = library("wandb")
        folder = folder.resolve()
        self._run = self._library.init(
            project=os.environ.get("WANDB_PROJECT") or folder.parent.name or "models",
            name=folder.name,
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:16],
            dir=str(folder),
            config=dict(hyperparameters),
            mode=os.environ.get("WANDB_MODE") or "offline",
            resume="allow" if step else None,
            settings=self._library.Settings(console="off"),  # the display redraws its lines
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def text(self, step: int, tag: str, text: str) -> None:
        self._run.log({tag: self._library.Html(f"<pre>{escape(text)}</pre>", inject=False)}, step=step)

    def close(self) -> None:
        self._run.finish()
