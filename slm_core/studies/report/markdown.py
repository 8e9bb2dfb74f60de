"""Writes the report as Markdown, with the pictures beside it."""

import re
from collections.abc import Sequence

from slm_core.studies.report.sections import Section
from slm_core.studies.report.style import Chart
from slm_core.studies.report.tables import Table
from slm_core.studies.results import StudyResult
from slm_core.studies.tables import markdown_table


def picture_name(chart: Chart) -> str:
    """Returns the file name of a chart's picture."""
    return f"report-{chart.name}.png"


def markdown(result: StudyResult, sections: Sequence[Section]) -> str:
    """Returns the text of report.md."""
    blocks = [f"# {escaped(result.name)}", escaped(result.question)]
    for section in sections:
        blocks += _section(section)
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Writes a text so that Markdown shows it as it is, on one line."""
    one_line = " ".join(text.split())
    plain = one_line.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"[\\`*\[\]|$~]|(?<!\w)_|_(?!\w)|^[#>+-](?= )", r"\\\g<0>", plain)


def _section(section: Section) -> list[str]:
    blocks = [f"## {section.title}"]
    if section.lead:
        blocks.append(f"**{escaped(section.lead)}**")
    blocks += [escaped(paragraph) for paragraph in section.paragraphs]
    if section.items:
        blocks.append("\n".join(_item(name, text) for name, text in section.items))
    blocks += [f"![{escaped(chart.description)}]({picture_name(chart)})" for chart in section.charts]
    for table in section.tables:
        blocks += [f"{escaped(table.caption)}:", _table(table)]
    if section.notes:
        blocks.append("\n".join(f"- {escaped(note)}" for note in section.notes))
    if section.code:
        fence = "`" * max(3, 1 + max((len(ticks) for ticks in re.findall("`+", section.code)), default=0))
        blocks.append(f"{fence}\n{section.code}\n{fence}")
    return blocks


def _item(name: str, text: str) -> str:
    return f"- **{escaped(name)}**: {escaped(text)}" if name else f"- {escaped(text)}"


def _table(table: Table) -> str:
    return markdown_table([escaped(cell) for cell in table.head], [[escaped(c) for c in row] for row in table.rows])
