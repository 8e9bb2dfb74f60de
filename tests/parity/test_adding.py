"""docs/adding-a-component.md is true: its edits, under other names, add three components to a copy of the sources."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "adding-a-component.md").read_text(encoding="utf-8")
COPIED = ("slm_core", "slm_torch", "slm_flax", "parity", "scripts", "configs", "tests", "docs")
STEP = re.compile(r"^(\d+)\. `([^`]+)`(?:(?!\n\n).)*\n\n```(\w+)\n(.*?)\n```", re.MULTILINE | re.DOTALL)
GATES = re.findall(r"`(tests/[^`]+)`", PAGE.partition("\n## The gates\n")[2].partition("\n## ")[0])


class Example(NamedTuple):
    """One worked example of the page.

    Args:
      title: its section.
      name: the component, as the schema names it.
      new: its name in the copy.
      words: {pattern: replacement}, the rest of what has another name there.
    """

    title: str
    name: str
    new: str
    words: dict[str, str]

    @property
    def steps(self) -> list[tuple[str, str, str]]:
        """(file, language, block) of each edit, in order."""
        section = PAGE.partition(f"\n## {self.title}\n")[2].partition("\n## ")[0]
        return [match.groups()[1:] for match in STEP.finditer(section)]

    @property
    def before_the_gates(self) -> int:
        """How many edits make it train."""
        section = PAGE.partition(f"\n## {self.title}\n")[2].partition("**For the gates:**")[0]
        return len(STEP.findall(section))

    def renamed(self, text: str) -> str:
        for old, new in self.words.items():
            text = re.sub(old, new, text)
        return text

    def is_own(self, path: str) -> bool:
        """Whether a file is the component's own."""
        return Path(path).stem == self.name

    def added(self, group: str) -> str:
        """Returns lines of a file with the new component in them: beside the old one in a list, or below it."""
        quoted, new = f'"{self.name}"', f'"{self.new}"'
        own_entry = group.lstrip().startswith((f"{quoted}:", f"({quoted}")) or "\n" in group
        own_words = [old for old in self.words if self.name not in old]
        own_option = any(re.search(old, group.partition(":")[0]) for old in own_words)
        if not own_entry and not own_option:
            for old, beside in (
                (rf"((?:\(|, ){quoted})(?=[,)])", rf"\1, {new}"),  # in a tuple
                (rf"({quoted}: )([^,}}]+)", rf"\1\2, {new}: \2"),  # in a dictionary
                (rf"(import .*\b{self.name})\b(?=,)", rf"\1, {self.new}"),
            ):
                text, count = re.subn(old, beside, group, count=1)
                if count:
                    return text.replace(f"{new}: {self.name}", f"{new}: {self.new}")
        lines = 3 if group.startswith("def ") else 2 if group.startswith("#") else 1
        return group + "\n" * lines + self.renamed(group)


NORM = Example("A norm", "dyt", "squash", {
    "DynamicTanh": "Squash", "Dynamic Tanh": "Squash", "dyt": "squash", "alpha": "steepness",
})  # fmt: skip
OPTIMIZER = Example(
    "An optimizer", "lion", "tiger", {r"(?<!scale_by_)(?<!optax\.)lion": "tiger", "Lion": "Tiger", "swapped": "turned"}
)
SOURCE = Example("A data source", "jsonl", "records", {
    '"jsonl"': '"records"', r"\.jsonl": ".records", r"\.ndjson": ".ndrecords",
})  # fmt: skip
EXAMPLES = (NORM, OPTIMIZER, SOURCE)


def groups(language: str, block: str) -> list[str]:
    """Returns the places of a file that a block shows, between which it has empty lines."""
    return [block] if language == "markdown" else [group.strip("\n") for group in block.split("\n\n")]


def places(group: str, text: str) -> list[str]:
    """Returns the lines of a file that a group shows, in which "..." stands for anything in a line."""
    pattern = re.sub(r"(\\ )?\\\.\\\.\\\.(\\ )?", ".*", re.escape(group))
    return re.findall(f"^{pattern}$", text, re.MULTILINE)


def add(root: Path, example: Example, steps: int | None = None) -> None:
    """Makes the page's edits in a copy of the sources, all or the first ones."""
    for path, language, block in example.steps[:steps]:
        file = root / path
        if example.is_own(path):
            file.with_stem(example.new).write_text(example.renamed(block) + "\n")
        elif language == "bash":
            done = run(root, *block.removeprefix("uv run ").split())
            assert done.returncode == 0, done.stderr
        else:
            text = file.read_text()
            for group in groups(language, block):
                (place,) = places(group, text)
                text = text.replace(place, example.added(place), 1)
            file.write_text(text)


def copied(root: Path) -> Path:
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """Gives a copy of the sources with all three examples."""
    root = copied(tmp_path_factory.mktemp("sources"))
    for example in EXAMPLES:
        add(root, example)
    return root


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory) -> Path:
    """Gives a copy with the edits that make each example train, all marked as experimental."""
    root = copied(tmp_path_factory.mktemp("unfinished"))
    for example, file, doc in (
        (NORM, "model.py", '"normalisation of the residual stream",\n'),
        (OPTIMIZER, "training.py", '        forms=("torch:NAME", "flax:NAME"),\n'),
        (SOURCE, "training.py", '        "where the text comes from",\n'),
    ):
        add(root, example, example.before_the_gates)
        schema = root / "slm_core" / "config" / file
        text = schema.read_text()
        assert text.count(doc) == 1
        schema.write_text(text.replace(doc, f'{doc}        experimental=("{example.new}",),\n'))
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True)


def passing(root: Path, *arguments: str) -> str:
    """Runs tests of a copy, and returns what pytest prints; they must pass."""
    done = run(root, "-m", "pytest", "-n", "0", "-q", "-m", "slow or not slow", *arguments)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_every_path_of_the_page_exists():
    paths = re.findall(
        r"`((?:slm_|parity|tests|docs|scripts|configs)[\w/.-]*/[\w/.-]*)(?:::\w+)?`|\]\(([^)#]+)\)", PAGE
    )
    assert len(paths) > 50
    for quoted, linked in paths:
        assert (ROOT / quoted if quoted else ROOT / "docs" / linked).exists(), quoted or linked


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_the_page_shows_the_lines_that_are_there(example):
    numbers = re.findall(r"^(\d+)\. ", PAGE.partition(f"\n## {example.title}\n")[2].partition("\n## ")[0], re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(example.steps) + 1)]
    for path, language, block in example.steps:
        text = (ROOT / path).read_text()
        if example.is_own(path):
            assert text == block + "\n", path
        elif language != "bash":
            assert all(len(places(group, text)) == 1 for group in groups(language, block)), path


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_the_page_counts_its_files(example):
    section = PAGE.partition(f"\n## {example.title}\n")[2].partition("\n## ")[0]
    first, second = map(
        int, re.search(r"(\d+) files to train.*?, (\d+) more for the gates", section, re.DOTALL).groups()
    )
    files = [path for path, _, _ in example.steps]
    assert (first, first + second) == (len(set(files[: example.before_the_gates])), len(set(files)))


def test_it_is_in_the_help_the_schema_and_the_validation(copy):
    shown = run(copy, "scripts/train_torch.py", "--help").stdout
    assert all(name in shown for name in ("squash", "steepness", "tiger", "records"))
    unread = run(copy, "scripts/train_torch.py", "--config.model.norm.steepness=1")
    assert unread.returncode == 2 and len(unread.stderr.splitlines()) == 1
    assert "model.norm.steepness=1.0 is not read by model.norm.kind=rmsnorm" in unread.stderr
    negative = run(
        copy, "scripts/train_torch.py", "--config.model.norm.kind=squash", "--config.model.norm.steepness=-1"
    )
    assert negative.returncode == 2 and "must be more than 0" in negative.stderr


def test_another_component_leaves_the_page_true(copy):
    assert "7 passed" in passing(copy, "tests/parity/test_adding.py", "-k", "the_page and not another")


def test_it_is_in_the_suite(copy):
    code = (
        "from parity.cases import cases\nfrom parity.selection import select\n"
        "entries = cases()\n"
        "quick = [c for c in select(entries) if 'squash' in c.about]\n"
        "print(*(c.name for c in [*select(entries, 'squash'), *quick, *select(entries, 'tiger')]))"
    )
    names = ["norm.kind=squash", "steepness=0.25", "norm.kind=squash", "optim.kind=tiger"]
    assert run(copy, "-c", code).stdout.split() == names


@pytest.mark.slow
def test_the_planner_counts_an_unfinished_one_as_another_and_says_so(unfinished):
    planned = run(unfinished, "scripts/plan_memory.py", "--config.model.norm.kind=squash")
    assert planned.returncode == 0, planned.stderr
    assert "predicted (model.norm.kind=squash counted as layernorm)" in planned.stdout


@pytest.mark.slow
def test_the_gates_pass(copy):
    printed = passing(copy, "-W", "error::UserWarning", *GATES, "-k", "not roles or squash or steepness or tiger")
    assert "passed" in printed


@pytest.mark.slow
def test_the_gates_name_what_an_experimental_one_lacks(unfinished):
    printed = passing(unfinished, *GATES, "-k", "not roles or squash or steepness or tiger")
    for name, lacks in {
        "squash": ("a fault", "arithmetic", "(norm.kind=squash) an outside source", "its row in docs/components.md"),
        "norm.steepness": ("a fault", "its row"),
        "tiger": ("a fault", "arithmetic", "a case", "its line in POWERS", "a line of MEASURED in tests/flax"),
        "records": ("a corpus", "its row"),
    }.items():
        assert all(f"{name} is experimental, and still lacks {what}" in printed for what in lacks), name
    shown = run(unfinished, "scripts/train_torch.py", "--help").stdout
    assert shown.count("(experimental)") == 3


@pytest.mark.slow
def test_without_the_mark_a_gate_fails(unfinished, tmp_path):
    shutil.copytree(unfinished, root := tmp_path / "marked", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("model.py", "training.py"):
        schema = root / "slm_core" / "config" / file
        schema.write_text("".join(line for line in schema.open() if "experimental=(" not in line))
    done = run(root, "-m", "pytest", "-n", "0", "-q", "tests/core/planner/test_fallbacks.py", "-k", "arithmetic")
    assert "squash lacks arithmetic" in done.stdout and "tiger lacks arithmetic" in done.stdout


@pytest.mark.slow
def test_its_formulas_and_faults_are_tested(copy):
    """The formula's test under the new name, its faults, the coordinate check, and the fields' effects."""
    printed = passing(
        copy,
        "tests/conformance/test_layers.py",
        "tests/conformance/test_optimizers.py",
        "tests/torch/test_mup.py",
        "tests/torch/test_library_optimizers.py",
        "tests/flax/test_library_optimizers.py",
        "tests/outside/test_formulas.py",
        "tests/parity/test_mutations.py",
        "tests/sensitivity/test_sensitivity_twins.py::test_a_field_changes_the_computation",
        "tests/sensitivity/test_sensitivity_runs.py::test_a_field_changes_the_loop[data.source]",
        "-k",
        "squash or steepness or tiger or data.source",
    )
    assert int(re.search(r"(\d+) passed", printed)[1]) > 15


TRAINED = {
    "torch, squash and tiger": ("torch", "--config.model.norm.kind=squash", "--config.optim.kind=tiger"),
    "flax, squash and tiger": ("flax", "--config.model.norm.kind=squash", "--config.optim.kind=tiger"),
    "torch, records": ("torch", "--config.data.source=records", "--config.data.path=rows.records"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("twin", "overrides"), [(twin, rest) for twin, *rest in TRAINED.values()], ids=TRAINED)
def test_it_trains(copy, twin, overrides):
    (copy / "rows.records").write_text("".join(f'{{"text": "document {i} of many"}}\n' for i in range(2000)))
    small = ("--config.train.steps=4", "--config.optim.warmup_steps=1", "--config.train.sample_every=0")
    width = ("--config=configs/llama.py:tiny", "--config.run.device=cpu", f"--config.run.dir={copy / 'models'}")
    done = run(copy, f"scripts/train_{twin}.py", *width, *small, *overrides)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_norm_is_proven(copy):
    done = run(copy, "scripts/check_parity.py", "--component=squash", "--jobs=2", "--json=")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "norm.kind=squash" in done.stdout and "steepness=0.25" in done.stdout and "28 passed" in done.stdout


@pytest.mark.slow
def test_the_optimizer_is_proven(copy):
    done = run(copy, "scripts/check_parity.py", "--component=tiger", "--checks=update", "--jobs=2", "--json=")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "optim.kind=tiger" in done.stdout and "2 passed" in done.stdout
