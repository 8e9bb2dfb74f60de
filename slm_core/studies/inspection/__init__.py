"""Looks inside a run, and writes what it finds as a page: modules, attention, logit lens, induction heads, norms."""

from pathlib import Path

from slm_core.files import write_atomically
from slm_core.studies.inspection.maps import style
from slm_core.studies.inspection.measure import Inside
from slm_core.studies.inspection.sections import sections
from slm_core.studies.report.page import page


def write_page(inside: Inside, path: Path) -> None:
    """Writes the page of a run. It replaces an older one. The same input gives the same bytes."""
    question = f"Inside the model after {inside.step:,} updates" if inside.step else "Inside the imported model"
    write_atomically(path, page(Path(inside.run).name, question, sections(inside), style()))
