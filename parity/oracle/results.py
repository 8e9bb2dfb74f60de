"""Keeps the measurements of the oracle in a file, so that an interrupted run continues."""

from dataclasses import asdict
from typing import Any

from parity.oracle.cases import Case
from parity.oracle.journal import Journal
from parity.oracle.measure import BUILD, Measured


class Results:
    """Measurements, by case, twin and precision, and the features that each case notices.

    Args:
      path: of their journal; "": none.
    """

    def __init__(self, path: str = ""):
        self._journal = Journal(path)
        self.measured: dict[tuple[str, str, str], Measured] = {}
        self.moved: dict[str, dict[str, float]] = {}
        for entry in self._journal.entries:
            self._keep(entry)

    def _keep(self, entry: dict[str, Any]) -> None:
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

    def _write(self, entry: dict[str, Any]) -> None:
        self._keep(entry)
        self._journal.write(entry)
