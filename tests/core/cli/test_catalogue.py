"""docs/components.md is what the schema says."""

import re
from pathlib import Path

from scripts.pages.components import COMMAND
from slm_core.cli.catalogue import TITLES, catalogue
from slm_core.config.fields import field_table
from tests.gates import require

PAGE = (Path(__file__).parents[3] / "docs" / "components.md").read_text(encoding="utf-8").splitlines()
COUNTS = "Written by "
"""How the line begins that counts fields and kinds."""


def rows() -> dict[str, str]:
    """Returns {kind or field: how its row of the page begins}."""
    shown = {name: info for name, info in field_table().items() if name.rpartition(".")[0] in TITLES}
    kinds = {kind: f"| `{kind}` " for info in shown.values() for kind in info.option.choices}
    return kinds | {
        name.removeprefix("model."): f"| `{name.rpartition('.')[2]}` "
        for name, info in shown.items()
        if not info.option.choices
    }


def test_the_page_is_the_schema_s():
    """An experimental component may be absent: from its own row, from those of fields that it reads, and the counts."""
    absent = {name: row for name, row in rows().items() if not any(line.startswith(row) for line in PAGE)}
    require({name: f"its row in docs/components.md: {COMMAND}" for name in absent})
    expected = catalogue(COMMAND).splitlines()
    if not absent:
        assert expected == PAGE
        return
    without = (*absent.values(), COUNTS)
    expected = [re.sub(rf", ({'|'.join(absent)})\b", "", line) for line in expected if not line.startswith(without)]
    assert [unpadded(line) for line in expected] == [unpadded(line) for line in PAGE if not line.startswith(without)]


def unpadded(line: str) -> str:
    """Returns a table's line without the spaces and dashes that make its columns line up."""
    return re.sub(r" +\|", " |", re.sub(r"-+ \|", "- |", line))
