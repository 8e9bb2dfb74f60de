"""Writes docs/damage.md: every kind of damage, what is reported about it, and what is used in its place."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import output_file
from slm_core.errors import UserError

DESCRIPTION = """Trains a tiny run with each twin. Does every damage of tests/runs/damages.py to copies of it, of its
dataset, of an import and of an export. Exits with 1 if a damage is not reported. Takes a minute."""

COMMAND = "uv run scripts/pages/damage.py"
ROOT = Path(__file__).resolve().parents[2]
TWINS = {"torch": "PyTorch", "flax": "Flax"}

HEAD = f"""# Damage

This page is written by `{COMMAND}`. It does each damage to a copy of a real run, and writes down what was said and
what was used.

Each checkpoint, imported model, exported folder and prepared dataset has a `manifest.json`: the size and the XXH3
checksum of every file, the step, and fingerprints of the config and of the data. It is written before the folder gets
its name, and every reader checks it. `config.json` ends with a checksum of itself, and each checkpoint has a copy of
it. `loop.json` in a checkpoint has the checksum of the lines of `metrics.jsonl` up to its step.

- **A damaged checkpoint** is named with the file. The newest whole one before it is used. Training renames what is
  damaged to `damaged-step-...`, and deletes none of it. If no checkpoint is whole, one error says what to do.
- **A damaged `config.json`** is read from its copy in the newest whole checkpoint. Training puts the copy back.
- **A damaged line of `metrics.jsonl`** is left out, and the others are kept. Training keeps the damaged file as
  `damaged-metrics.jsonl`.
- **A damaged dataset** is not used. It is prepared anew if its folder is deleted. If its manifest is damaged, it is
  prepared anew at once.
- **A checkpoint without a manifest** was made by an older version, and counts as damaged.

```
uv run scripts/verify.py models/NAME   # a run, checkpoint, dataset or export; or models/ or data/ with all inside
```

It reads every byte and prints a table. The exit code is 0 if everything is whole, 1 if something is damaged, and 2 if
the path is none of these.

Checksums find damage. They do not stop someone who changes a file and its checksum on purpose.



"""


def run(invocation: Invocation) -> None:
    target = output_file("markdown", invocation.flags["markdown"], [".md"])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for twin in TWINS:
            rows += [row | {"twin": twin} for row in _observe(twin, Path(folder, twin))]
    silent = [row for row in rows if not row["reported"]]
    target.write_text(HEAD.strip() + "\n\n" + "\n".join(_page(rows, len(silent))) + "\n", encoding="utf-8")
    print(f"written: {target}, {len(rows)} damages")
    for row in silent:
        print(f"silent: {row['what']} {row['place']}: {row['kind']}")
    if silent:
        raise SystemExit(1)


def _observe(twin: str, folder: Path) -> list[dict[str, str]]:
    folder.mkdir()
    command = [sys.executable, "-m", "tests.runs.observed", twin, str(folder)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        raise UserError(f"the {TWINS[twin]} twin failed: {done.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _page(rows: list[dict[str, str]], silent: int) -> Iterator[str]:
    total = len({row["kind"] for row in rows})
    yield f"{len(rows)} damages of {total} kinds, {silent or 'none'} silent."
    for what, title in SECTIONS.items():
        yield from ("", f"## {title}", "", "| damaged | kind | reported | used |", "|---|---|---|---|")
        merged: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in rows:
            if row["what"] == what:
                merged.setdefault((_general(row), row["used"]), []).append(row)
        for (reported, used), each in merged.items():
            places = _places(each)
            twins = {row["twin"] for row in each}
            only = "" if twins == set(TWINS) or what != "run" else f" ({', '.join(TWINS[twin] for twin in twins)})"
            kinds = "; ".join(dict.fromkeys(row["kind"] for row in each))
            yield f"| {places}{only} | {kinds} | {reported} | {used} |"


SECTIONS = {
    "run": "A run with checkpoints of steps 1, 2 and 3, when training continues it",
    "import": "An imported model, when it is opened",
    "export": "An exported folder, when it is imported",
    "dataset": "A prepared dataset, when it is opened",
}


def _places(rows: list[dict[str, str]]) -> str:
    """Names the damaged files; those of a checkpoint together, because each twin has files of its own."""
    names = list(dict.fromkeys(row["place"] for row in rows if row["place"]))
    inside = [name for name in names if _INSIDE.match(name)]
    if len(inside) < 3:
        return ", ".join(f"`{name}`" for name in names)
    but = "" if any(name.endswith("/manifest.json") for name in inside) else " but its manifest"
    return ", ".join([f"every file of the newest checkpoint{but}", *(f"`{n}`" for n in names if n not in inside)])


_INSIDE = re.compile("checkpoints/step-[0-9]+/")


def _general(row: dict[str, str]) -> str:
    """Leaves out of a report what differs from file to file: names, numbers of bytes, places in a file."""
    inside = _INSIDE.sub("", row["place"])
    text = row["reported"]
    for name in (inside, Path(inside).name):
        if name and name != "latest":
            text = text.replace(f"{name} ", "FILE ")
    for pattern, general in _GENERAL.items():
        text = re.sub(pattern, general, text)
    return text.replace("|", r"\|").replace("\n", " ")


_GENERAL = {
    r"models/[a-z]+(/checkpoints)?(: |/(?=latest))": "",
    "[a-z]+/exported": "exported",
    "-[0-9a-f]{16}'?(?=[:/])": "-...",
    "dataset '": "dataset ",
    "fingerprints .*? instead of .*?(?=\\))": "its fingerprints of config and data differ",
    "[0-9]+ bytes instead of [0-9]+": "M bytes instead of N",
    r" \(byte [0-9]+\)": "",
    r"broken \((?!its checksum)[^()]*\)": "broken (...)",
    "holds '.*?', the newest": "holds '...', the newest",
}


if __name__ == "__main__":
    main(run, DESCRIPTION, [Flag("markdown", str, "docs/damage.md", "page to write")], takes_config=False)
