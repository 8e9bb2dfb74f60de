"""Trackio (https://github.com/gradio-app/trackio): a database on this machine, which `trackio show` opens."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from slm_core.training.trackers.base import Values, library

REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables by which a user sends everything elsewhere. Without them nothing leaves the machine."""

FOLDER = "run.folder"
"""Tells runs of one name apart: another run's entries are never touched."""


class Trackio:
    """Logs to the project that is named as the folder of the runs."""

    def __init__(self, folder: Path, step: int, hyperparameters: Values):
        self._library: Any = library("trackio")
        self.replays = local = not any(os.environ.get(name) for name in REMOTE)
        folder = folder.resolve()
        config = hyperparameters | {FOLDER: str(folder)}
        project, name = folder.parent.name or "models", folder.name
        if local:
            self._forget(project, name, config[FOLDER])
        with _offline() if local else nullcontext():
            self._run = self._library.init(
                project=project,
                name=name,
                config=config,
                resume="allow" if step and not local else "never",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def text(self, step: int, tag: str, text: str) -> None:
        self._run.log({tag: self._library.Markdown(f"```\n{text}\n```")}, step=step)

    def close(self) -> None:
        self._run.finish()

    def _forget(self, project: str, name: str, folder: object) -> None:
        """Deletes what an earlier process told of this run. All of it is told once more, without what is void."""
        try:
            runs = list(self._library.Api().runs(project))
        except ValueError:  # there is no such project yet
            return
        for run in runs:
            if run.name == name and (run.config or {}).get(FOLDER) == folder:
                run.delete()


@contextmanager
def _offline() -> Iterator[None]:
    """Keeps Trackio from asking Hugging Face for the name of a user who has logged in there."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
