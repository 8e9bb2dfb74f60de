"""Stands for the libraries of the trackers, and records what a run tells them."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest


class FakeRun:
    """A run of a tracker: how it was opened, and what was logged."""

    def __init__(self, library: "FakeLibrary", options: dict[str, Any]):
        self.library, self.options = library, options
        self.name, self.config = options["name"], options["config"]
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, values: dict[str, Any], step: int) -> None:
        assert not self.finished
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True

    def delete(self) -> None:
        self.library.runs.remove(self)


class FakeLibrary(types.ModuleType):
    """`trackio` or `wandb`. Each run leaves a file, as the real ones do."""

    def __init__(self, name: str):
        super().__init__(name)
        self.runs: list[FakeRun] = []
        self.Markdown = self.Html = lambda text, **options: text
        self.Settings = lambda **options: options

    def init(self, **options: Any) -> FakeRun:
        self.runs.append(FakeRun(self, options))
        folder = Path(options.get("dir") or options["config"]["run.folder"]) / self.__name__
        folder.mkdir(exist_ok=True)
        (folder / "run.log").touch()
        return self.runs[-1]

    def Api(self) -> Any:
        """Lists the runs of a project, as `trackio.Api` does."""
        return types.SimpleNamespace(runs=self._runs_of)

    def _runs_of(self, project: str) -> list[FakeRun]:
        if not any(run.options["project"] == project for run in self.runs):
            raise ValueError(f"Project {project!r} does not exist")
        return [run for run in self.runs if run.options["project"] == project]


def install(patch: pytest.MonkeyPatch, name: str) -> FakeLibrary:
    """Puts a fake in the place of a library until the patch is undone."""
    library = FakeLibrary(name)
    patch.setitem(sys.modules, name, library)
    if name == "trackio":  # whose first dependency this is
        hub = types.ModuleType("huggingface_hub")
        hub.constants = types.SimpleNamespace(HF_HUB_OFFLINE=False)
        patch.setitem(sys.modules, "huggingface_hub", hub)
    return library
