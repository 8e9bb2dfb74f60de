"""docs/components.md is what the schema says."""

from pathlib import Path

from scripts.pages.components import COMMAND
from slm_core.cli.catalogue import TITLES, catalogue
from slm_core.config.fields import field_table
from tests.gates import require

PAGE = (Path(__file__).parents[3] / "docs" / "components.md").read_text(encoding="utf-8").splitlines()


def test_the_page_has_every_component():
    expected = catalogue(COMMAND).splitlines()
    choices = {kind for name, info in field_table().items() if _shown(name) for kind in info.option.choices}
    fields = {name.removeprefix("model."): name.rpartition(".")[2] for name in field_table() if _shown(name)}
    rows = {kind: f"| `{kind}` " for kind in choices} | {name: f"| `{leaf}` " for name, leaf in fields.items()}
    absent = [line for line in expected if line not in PAGE]
    require({
        name: f"its row in docs/components.md: {COMMAND}"
        for name, row in rows.items()
        if any(line.startswith(row) for line in absent)
    })  # fmt: skip


def test_the_page_says_nothing_else():
    """Its rows are the schema's; its counts are, unless an experimental component is not on it yet."""
    expected = catalogue(COMMAND).splitlines()
    assert [line for line in PAGE if line.startswith("|") and line not in expected] == []
    if len(expected) == len(PAGE):
        assert expected == PAGE


def _shown(name: str) -> bool:
    return name.rpartition(".")[0] in TITLES
