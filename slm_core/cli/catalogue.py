"""Writes the catalogue of components, docs/components.md, from the schema."""

from collections.abc import Iterator

from slm_core.cli.help import default_text
from slm_core.config.fields import FieldInfo, field_table, type_name
from slm_core.studies.tables import markdown_table

TITLES = {
    "model.mixer": "Mixers",
    "model.attention": "Attention",
    "model.position": "Positions",
    "model.norm": "Norms",
    "model.mlp": "MLPs",
    "model": "The model",
    "optim": "Optimizers and schedules",
    "finetune": "Fine-tuning",
    "data": "Data",
    "precision": "Precision",
    "memory": "Memory",
}
"""{section: its title}, in the order of the page."""


def catalogue(command: str) -> str:
    """Returns the page: each section's kinds and options.

    Args:
      command: the command that writes the page.
    """
    selectors = [info for info in field_table().values() if info.option.choices]
    kinds = sum(len(info.option.choices) for info in selectors)
    head = [
        "# Components",
        "",
        f"Written by `{command}` from the schema, not by hand: {len(field_table())} fields, {kinds} kinds in"
        f" {len(selectors)} fields with choices.",
        "`uv run scripts/train_torch.py --help` shows the same in a terminal. Set a field with `--config.FIELD=VALUE`.",
        "",
    ]
    return "\n".join([*head, *(line for section in TITLES for line in _section(section))]).rstrip() + "\n"


def _section(section: str) -> Iterator[str]:
    fields = [info for name, info in field_table().items() if name.rpartition(".")[0] == section]
    yield from (f"## {TITLES[section]}", "")
    for info in fields:
        if info.option.choices:
            yield from (f"`{info.name}`: {info.option.doc} (default `{default_text(info.default)}`)", "")
            yield from _table(("kind", "meaning"), _kinds(info))
    options = [_option(info) for info in fields if not info.option.choices]
    if options:
        yield from _table(("option", "default", "meaning", "read by"), options)


def _kinds(info: FieldInfo) -> list[tuple[str, ...]]:
    return [(f"`{kind}`", meaning) for kind, meaning in info.option.meanings().items()]


def _option(info: FieldInfo) -> tuple[str, ...]:
    rules = info.option.read_by
    readers = "; ".join(f"{selector} {', '.join(kinds)}" for selector, kinds in rules.items())
    name = info.name.rpartition(".")[2]
    return f"`{name}` ({type_name(info.type)})", default_text(info.default), info.option.doc, readers or "all"


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield from (markdown_table(titles, [[cell.replace("|", "\\|") for cell in row] for row in rows]), "")
