"""Writes the report of a study: report.html, report.md and its pictures."""

from collections.abc import Sequence
from pathlib import Path

from slm_core.files import write_atomically
from slm_core.studies.comparison import Comparison
from slm_core.studies.report.markdown import markdown, picture_name
from slm_core.studies.report.page import page
from slm_core.studies.report.sections import sections
from slm_core.studies.results import StudyResult


def write_report(result: StudyResult, comparisons: Sequence[Comparison], folder: Path) -> Path:
    """Writes the report into a folder. It replaces an older one. The same input gives the same bytes.

    Args:
      result: what the study measured so far.
      comparisons: each variant with the baseline, in the order of the variants. A variant without a finished pair of
        runs has none.
      folder: the study's folder, which must exist.

    Returns:
      The path of report.html.
    """
    parts = sections(result, comparisons)
    for old in folder.glob("report-*.png"):
        old.unlink()
    for chart in [chart for part in parts for chart in part.charts]:
        (folder / picture_name(chart)).write_bytes(chart.png)
    write_atomically(folder / "report.md", markdown(result, parts))
    write_atomically(folder / "report.html", page(result.name, result.question, parts))
    return folder / "report.html"
