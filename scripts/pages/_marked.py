"""Pages of docs/ whose measured part stands between two marks, and the rest of which is written by hand."""

from pathlib import Path

from slm_core.errors import UserError

BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def marked_page(name: str) -> Path:
    """Returns the path of a page. Raises UserError if it has no marks."""
    page = Path(name)
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if BEGIN not in text or END not in text:
        raise UserError(f"--markdown={page} has no lines '{BEGIN.strip()}' and '{END.strip()}': name the page")
    return page


def write_measured(page: Path, table: str) -> None:
    """Writes a table, and the machine that it was measured on, between the marks of a page."""
    from slm_core.studies.machine import machine

    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{table}\n\nMeasured on: {machine()}.\n\n{END}{after}", encoding="utf-8")
    print(f"written: {page}")
