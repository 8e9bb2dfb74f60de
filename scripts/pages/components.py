"""Writes docs/components.md: every kind and option of the schema."""

from pathlib import Path

from slm_core.cli.catalogue import catalogue
from slm_core.cli.command_line import Flag, Invocation, main

COMMAND = "uv run scripts/pages/components.py"


def run(invocation: Invocation) -> None:
    target = Path(invocation.flags["markdown"])
    target.write_text(catalogue(COMMAND), encoding="utf-8")
    print(f"written: {target}")


if __name__ == "__main__":
    main(
        run,
        "Writes the catalogue of components.",
        [Flag("markdown", str, "docs/components.md", "page to write")],
        takes_config=False,
    )
