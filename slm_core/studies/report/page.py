"""Writes the report as a page of HTML: one file that needs no network and no script."""

from collections.abc import Sequence
from pathlib import Path

from slm_core.studies.report.sections import Section
from slm_core.studies.report.style import DARK, LIGHT
from slm_core.studies.results import StudyResult


def page(result: StudyResult, sections: Sequence[Section]) -> str:
    """Returns the page. Every text is escaped, except for the charts, which are SVG of our own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    template = environment.get_template("page.html.jinja")
    return template.render(result=result, sections=sections, light=LIGHT, dark=DARK)
