"""Every generated page of docs/ states the counts that the code has today."""

import re
from pathlib import Path

import pytest
from faults import FAULTS
from faults.unseen import UNSEEN as UNSEEN_KINDS

from configs.tasks import VARIANTS
from parity.cases import cases
from parity.memory_page import jobs
from parity.oracle.cases import CASES
from parity.resumes import count
from parity.resumes import jobs as resumes
from parity.suite import checks_of
from parity.tolerances import TOLERANCES
from scripts.pages.resuming import COMMAND as RESUMING
from slm_core.cli.catalogue import catalogue
from slm_core.hf import FAMILIES
from slm_core.studies.calibration.page import EFFECTS, SEEDS
from slm_core.studies.reproducibility import VARIATIONS
from tests.crashes.machine import FAULTS as FAULTS_OF_MACHINES
from tests.crashes.test_kills import EXHAUSTIVE as KILLS
from tests.formula_page import COMMAND as FORMULA_PAGE
from tests.mutation_score import COMMAND as MUTATIONS
from tests.mutation_score import GENERATED, OTHERS, UNSEEN
from tests.outside.families import kinds_of_families
from tests.outside.table import FORMULAS, WITHOUT
from tests.runs.damages import COUNT as KINDS

DOCS = Path(__file__).parents[1] / "docs"
CRASHES = "uv run scripts/pages/crashes.py"
DAMAGE = "uv run scripts/pages/damage.py"
COMPONENTS = "uv run scripts/pages/components.py"
IMPORTS = "uv run scripts/check_imports.py --variants 2000 --flax_variants 160 --markdown docs/imports.md"
MEMORY = "uv run scripts/pages/memory.py"
ORACLE = "uv run scripts/check_oracle.py --markdown docs/oracle.md"
REPRODUCIBILITY = "uv run scripts/pages/reproducibility.py"
STATISTICS = "uv run scripts/pages/calibration.py --study models/pairing --study models/recipes"
TASKS = "uv run scripts/pages/tasks.py"
PARITY = "uv run scripts/check_parity.py --all --markdown=docs/parity.md"


def stated(page: str, sentence: str) -> tuple[int, ...]:
    """Reads the counts of a sentence, in which each `N` is a number; () if the page has no such sentence."""
    pattern = re.escape(sentence).replace("N", r"([\d,]+)").replace(r"\ ", r"\s+")
    match = re.search(pattern, text_of(page))
    return tuple(int(number.replace(",", "")) for number in match.groups()) if match else ()


def remedy(page: str, command: str) -> str:
    return f"docs/{page} is older than the code: write it anew with {command}"


def text_of(page: str) -> str:
    path = DOCS / page
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def test_components_are_those_of_the_schema():
    page = text_of("components.md")
    assert page == catalogue(COMPONENTS), remedy("components.md", COMPONENTS)


def test_the_formulas_are_those_of_the_tests():
    sentence = "**N formulas compared one by one, N kinds inside whole models, N without a source.**"
    counts = len(FORMULAS), len(kinds_of_families()), len(WITHOUT)
    assert stated("formulas.md", sentence) == counts, remedy("formulas.md", FORMULA_PAGE)
    assert all(f"`{formula.about}`" in text_of("formulas.md") for formula in FORMULAS)


def test_the_mutation_score_counts_every_fault():
    sentence = "**N of N caught, N of N named.**"
    assert stated("mutations.md", sentence) == (len(FAULTS),) * 4, remedy("mutations.md", MUTATIONS)


def test_the_page_of_mutations_has_every_mistake_that_no_comparison_shows():
    page, names = (
        text_of("mutations.md").partition(UNSEEN)[2],
        [name for faults in UNSEEN_KINDS.values() for name in faults],
    )
    assert f"**{len(names)} of {len(names)} caught.**" in page, remedy("mutations.md", OTHERS)
    assert all(f"| {name} |" in page for name in names), remedy("mutations.md", OTHERS)


def test_the_proof_measured_every_check_of_every_case():
    every = cases()
    measurements = sum(len(checks_of(case, precision)) for case in every for precision in TOLERANCES)
    counts = stated("parity.md", "N measurements of N cases, all within their tolerances.")
    assert counts == (measurements, len(every)), remedy("parity.md", PARITY)


def test_the_page_of_reproducibility_has_every_variation():
    rows = [line for line in text_of("reproducibility.md").splitlines() if " of 100 " in line]
    expected = [variation.name for variation in VARIATIONS for _ in variation.twins]
    assert [row.split("|")[1].strip() for row in rows] == expected, remedy("reproducibility.md", REPRODUCIBILITY)


def test_the_outside_oracle_measured_every_case_of_every_family():
    counts = stated("oracle.md", "N cases of N families, all within their tolerances.")
    assert counts == (len(CASES), len(FAMILIES)), remedy("oracle.md", ORACLE)


def test_no_import_is_wrong_and_none_crashes():
    sentence = "N variants of N families in PyTorch, and N of them in Flax: N wrong, N crash."
    counts = stated("imports.md", sentence)
    assert (*counts[:2], *counts[3:]) == (2000, len(FAMILIES), 0, 0) and counts[2] >= 110, remedy("imports.md", IMPORTS)


def test_every_task_is_learnt_and_not_without_what_it_needs():
    lines = [line for line in text_of("tasks.md").splitlines() if re.search(r"\d s +\|$", line)]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[0] for row in rows] == [preset for preset in VARIANTS for _ in range(2)], remedy("tasks.md", TASKS)
    for preset, changes, _, *accuracies in (row[:5] for row in rows):
        learnt = [float(accuracy) > 0.85 for accuracy in accuracies]
        assert learnt == [not changes or preset == "memorization"] * 2, f"{preset} with {changes or 'no change'}"


def test_the_statistics_were_tried_on_every_planted_difference():
    rates = len(SEEDS) * len(EFFECTS)
    assert stated("statistics.md", "N of N rates are, the largest gap")[1:] == (rates,), remedy(
        "statistics.md", STATISTICS
    )


def test_memory_was_measured_for_every_config_in_each_twin():
    todo = jobs()
    configs = {(job.subject, job.setting) for job in todo}
    counts = stated("memory.md", "N measurements of N configs.")
    assert counts == (len(todo), len(configs)), remedy("memory.md", MEMORY)


def test_every_case_was_resumed_in_the_other_twin():
    counts = stated("resuming.md", "N resumes of N cases and N in another dtype, all within their tolerances.")
    assert counts == count(resumes()), remedy("resuming.md", RESUMING)


def test_every_kind_of_damage_was_done_and_none_was_silent():
    counts = stated("damage.md", "N damages of N kinds, none silent.")
    assert counts[1:] == (KINDS,), remedy("damage.md", DAMAGE)


def test_many_kills_and_every_fault_were_done_and_none_ended_otherwise():
    counts = stated("crashes.md", "N kills in PyTorch and N in Flax: none ended otherwise.")
    assert len(counts) == 2 and min(counts) >= KILLS, remedy("crashes.md", CRASHES)
    rows = [line.split("|")[1].strip() for line in _faults()]
    assert set(rows) == set(FAULTS_OF_MACHINES), remedy("crashes.md", CRASHES)


def _faults() -> list[str]:
    lines = text_of("crashes.md").partition("## Faults of the machine")[2].splitlines()
    return [line for line in lines if line.startswith("| ")][2:]


def test_a_sentence_gives_its_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.DOCS", tmp_path)
    (tmp_path / "page.md").write_text("Before. 1,486 measurements of\n137 cases, all within their tolerances. After.\n")
    assert stated("page.md", "N measurements of N cases, all within their tolerances.") == (1486, 137)
    assert stated("page.md", "N measurements of N models") == ()


@pytest.mark.parametrize(
    ("page", "command"),
    [("components.md", COMPONENTS), ("mutations.md", MUTATIONS), ("mutations.md", OTHERS),
     ("mutations.md", GENERATED), ("oracle.md", ORACLE), ("parity.md", PARITY),
     ("memory.md", MEMORY), ("resuming.md", RESUMING), ("damage.md", DAMAGE), ("crashes.md", CRASHES),
     ("formulas.md", FORMULA_PAGE), ("imports.md", IMPORTS), ("reproducibility.md", REPRODUCIBILITY)],
)  # fmt: skip
def test_a_page_names_the_command_that_writes_it(page, command):
    assert command in text_of(page)
