"""Writes sections as a page of HTML: one file that needs no network and no script."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slm_core.studies.report.sections import Section
from slm_core.studies.report.style import DARK, LIGHT


def page(name: str, question: str, sections: Sequence[Section], style: str = "") -> str:
    """Returns the page. Every text is escaped, except for charts and markup, which are our own.

    Args:
      name: of what the page is about.
      question: its heading.
      sections: in order.
      style: CSS for the markup of the sections.
    """
    template = read_template(Path(__file__).parent / "page.html.jinja")
    return template.render(name=name, question=question, sections=sections, light=LIGHT, dark=DARK, style=style)


@functools.cache
def read_template(path: Path) -> Any:
    """Reads a template of HTML. What it is rendered with is escaped, and a name that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(path.name)
