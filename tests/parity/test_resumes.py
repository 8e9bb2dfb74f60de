"""A run that one twin begins and the other continues, and what must not pass for one."""

import dataclasses

import numpy as np
import pytest

from parity.resume_page import HEADING, with_tables
from parity.resumes import CASES, DIRECTIONS, DTYPES, Job, Move, Resume, case_of, count, jobs, measure, same
from slm_core.config import Optim
from slm_core.config.option import options
from tests.tiers import some_slow

QUICK = Job("LoRA on NF4", "float64")


def test_a_quick_case_resumes_in_both_directions():
    results = measure(QUICK)
    assert [(r.source, r.target) for r in results] == list(DIRECTIONS)
    assert all(r.passed and r.same_bits and r.losses < 1e-13 and r.state < 1e-12 for r in results), results


SLOW = (Job("adamw", "float16"), Job("adamw8bit", "float32"), Job("adamw", "float32", "float16"))
"""The others repeat at length what the page measures, and the proof in `tests/parity/test_suite.py` for more models."""
OTHERS = [job for job in jobs() if job not in (QUICK, *SLOW)]


@pytest.mark.parametrize("job", some_slow([*SLOW, *OTHERS], *SLOW, exhaustive=OTHERS), ids=lambda job: " ".join(job))
def test_every_case_resumes_in_both_directions(job):
    results = measure(job)
    assert len(results) == 2 and all(result.passed for result in results), results


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["optim/m/", "scaler/good_steps"])
def test_a_state_that_loses_an_entry_does_not_pass(monkeypatch, lost):
    """A resume that forgets moments, or the updates since the loss scale moved, is found."""
    import slm_flax.trainer
    import slm_torch.trainer
    from slm_core.runs.states import open_state_for

    def forgetful(folder, config):
        state = dict(open_state_for(folder, config))
        return {name: value * 0 if name.startswith(lost) else value for name, value in state.items()}

    for trainer in (slm_torch.trainer, slm_flax.trainer):
        monkeypatch.setattr(trainer, "open_state_for", forgetful)
    results = measure(Job("adamw", "float16" if lost.startswith("scaler") else "float64"))
    assert not any(result.passed for result in results) and not any(result.same_bits for result in results)


def test_every_optimizer_and_every_form_of_frozen_matrices_has_a_case():
    configs = [case_of(Job(name, "float64")).config for name in CASES]
    assert {config.optim.kind for config in configs} == set(options(Optim)["kind"].choices)
    lora = [config for config in configs if config.finetune.kind == "lora"]
    assert {config.finetune.frozen for config in lora} == {"float", "int8", "nf4"}
    assert case_of(Job("adamw", "float16")).config.precision.compute == "float16"
    assert count(jobs()) == (2 * (2 * len(CASES) + 1), len(CASES) + 1, 2 * len(DTYPES))


@pytest.mark.parametrize(
    "change", [{"losses": 1e-9}, {"losses": np.inf}, {"state": 1e-9}, {"same_bits": False}], ids=str
)
def test_a_resume_that_is_too_far_away_does_not_pass(change):
    good = Resume("adamw", "float64", "torch", "flax", 1e-15, 1e-15, "", True)
    assert good.passed and not dataclasses.replace(good, **change).passed


def test_a_single_bit_a_dtype_and_a_name_count():
    state = {"a": np.ones(3, np.float32)}
    assert same(state, {"a": np.ones(3, np.float32)})
    for other in ({"a": np.nextafter(np.ones(3, np.float32), 2)}, {"a": np.ones(3)}, {"b": state["a"]}, {}):
        assert not same(state, other)


def test_the_tables_replace_the_tables_and_nothing_else():
    results = [
        Resume("adamw", precision, "torch", "flax", 1e-15, 2e-15, "", True)
        for precision in ("float64", "float32", "float16")
    ]
    results.append(Move("torch float32", "flax float16", 1e-6, 2e-2))
    page = with_tables(f"# Text\n\n{HEADING}\nold tables\n", results, "the command")
    assert page.startswith("# Text\n") and "old tables" not in page and page.count(HEADING) == 1
    assert "3 resumes of 2 cases and 1 in another dtype, all within their tolerances." in page
    assert "| PyTorch, float32 | Flax, float16 | 1.0e-06   | 2e-02" in page
    assert with_tables(page, results, "the command") == page
    assert "NOT all" in with_tables(page, [*results, Move("torch float32", "flax float16", 1.0, 2e-2)], "the command")
