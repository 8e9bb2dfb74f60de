"""Keeps results in a file, so that an interrupted run continues."""

import json
from pathlib import Path
from typing import Any


class Journal:
    """A file with one JSON object per line. A last line that was cut is left out.

    Args:
      path: the file; "": none, and nothing is kept beyond this process.

    Attributes:
      entries: what the file held when it was opened.
    """

    def __init__(self, path: str = ""):
        self._path = Path(path) if path else None
        text = self._path.read_text() if self._path and self._path.is_file() else ""
        if self._path and text and not text.endswith("\n"):  # what comes next gets a line of its own
            self._path.write_text(text + "\n")
        self.entries: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def write(self, entry: dict[str, Any]) -> None:
        """Adds a line."""
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
