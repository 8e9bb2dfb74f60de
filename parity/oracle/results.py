"""Keeps the measurements of the oracle in a file, so that an interrupted run continues."""

import json
from dataclasses import asdict
from pathlib import Path

from parity.oracle.cases import Case
from parity.oracle.measure import BUILD, Measured


class Results:
    """Measurements, by case, twin and precision, and the features that each case notices.

    Args:
      path: a file with one JSON object per line; "": none.
    """

    def __init__(self, path: str = ""):
        self.path = Path(path) if path else None
        self.measured: dict[tuple[str, str, str], Measured] = {}
        self.moved: dict[str, dict[str, float]] = {}
        text = self.path.read_text() if self.path and self.path.is_file() else ""
        if self.path and text and not text.endswith("\n"):  # the last line was cut
            self.path.write_text(text + "\n")
        for line in text.splitlines():
            if line.endswith("}"):
                self._keep(json.loads(line))

    def _keep(self, entry: dict) -> None:
        if "moved" in entry:
            self.moved[entry["case"]] = entry["moved"]
        else:
            measured = Measured(**entry)
            self.measured[measured.case, measured.twin, measured.precision] = measured

    def has(self, case: Case, precision: str) -> bool:
        """Returns whether a case was measured in both twins."""
        return all((case.name, twin, precision) in self.measured for twin in BUILD)

    def of(self, case: Case, precision: str) -> list[Measured]:
        """Returns the measurements of a case."""
        return [self.measured[case.name, twin, precision] for twin in BUILD]

    def add(self, measured: Measured) -> None:
        """Keeps a measurement."""
        self._write(asdict(measured))

    def add_moved(self, case: Case, moved: dict[str, float]) -> None:
        """Keeps the change of logits without each feature."""
        self._write({"case": case.name, "moved": moved})

    def _write(self, entry: dict) -> None:
        self._keep(entry)
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
