"""A study: its runs, its file, and what may join it later."""

import dataclasses
import itertools
import json

import pytest

from slm_core.cli.command_line import parse
from slm_core.errors import UserError
from slm_core.studies.study import FILE, Study, arguments, read_study, resumed, write_study
from slm_core.studies.variants import make_variants


@pytest.fixture
def study(tmp_path):
    return Study(
        folder=tmp_path / "study",
        preset="configs/default.py",
        overrides={"train.steps": 60, "optim.betas": (0.9, 0.9)},
        variants=make_variants(["model.norm.kind=rmsnorm,layernorm"], []),
        frameworks=("torch", "flax"),
        seeds=2,
        match="steps",
        threads=1,
        question="Which norm?",
        command="compare",
        adjusted={"layernorm": {"train.steps": 70}},
    )


def test_runs_come_seed_by_seed_with_names_that_say_what_they_are(study):
    names = itertools.product((0, 1), ("rmsnorm", "layernorm"), ("torch", "flax"))
    assert [cell.name for cell in study.cells()] == [f"{norm}-{twin}-seed{seed}" for seed, norm, twin in names]
    assert [cell.steps for cell in study.cells()[:3]] == [60, 60, 70]


def test_the_command_line_of_a_run_gives_its_config(study):
    cell = study.cells()[-1]
    invocation, _ = parse(arguments(cell, study.preset))
    config = invocation.config
    assert (config.seed, config.model.norm.kind, config.train.steps) == (1, "layernorm", 70)
    assert (config.optim.betas, config.run.name, config.run.threads) == ((0.9, 0.9), cell.name, 1)
    assert config.run.dir == str(study.folder)


def test_threads_of_the_study_of_a_variant_or_of_the_preset_come_first(study):
    study = dataclasses.replace(study, overrides=study.overrides | {"run.threads": 2})
    assert {cell.overrides["run.threads"] for cell in study.cells()} == {2}
    varied = dataclasses.replace(study, variants=make_variants(["run.threads=3,4"], []))
    assert [cell.overrides["run.threads"] for cell in varied.cells()[::2]] == [3, 4, 3, 4]
    of_preset = dataclasses.replace(study, preset="configs/tasks.py:repetition", overrides={}, threads=4)
    assert {cell.overrides["run.threads"] for cell in of_preset.cells()} == {1}


@pytest.mark.parametrize(
    "field, remedy", [("run.dir", "--config.run.dir"), ("run.name", "--name"), ("seed", "--seeds")]
)
def test_what_a_study_sets_for_each_run_is_refused(study, field, remedy):
    variant = dataclasses.replace(study.variants[1], overrides={field: 1 if field == "seed" else "x"})
    with pytest.raises(UserError, match=f"sets {field}, which is set for each run: leave it out, and use {remedy}"):
        dataclasses.replace(study, variants=(study.variants[0], variant)).check()
    if field != "seed":
        with pytest.raises(UserError, match=f"the study sets {field}"):
            dataclasses.replace(study, overrides={field: "x"}).check()


def test_a_study_is_read_back_as_it_was_written(study):
    write_study(study)
    assert read_study(study.folder) == study


def test_more_seeds_and_twins_may_join_and_other_variants_may_not(study):
    write_study(dataclasses.replace(study, facts={"rmsnorm": {"parameters": 1}}))
    more = resumed(dataclasses.replace(study, seeds=5, frameworks=("torch",)))
    assert (more.seeds, more.frameworks, more.facts) == (5, ("torch",), {"rmsnorm": {"parameters": 1}})
    other = dataclasses.replace(study, variants=make_variants(["model.norm.kind=rmsnorm,dyt"], []))
    with pytest.raises(UserError, match="it holds a study that differs in variants; choose another --name"):
        resumed(other)


def test_a_folder_of_something_else_is_not_touched(study):
    study.folder.mkdir()
    (study.folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="it is not empty and holds no study"):
        resumed(study)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"variants": 3}'])
def test_a_damaged_file_is_one_line(study, text):
    study.folder.mkdir()
    (study.folder / FILE).write_text(text)
    with pytest.raises(UserError, match="broken"):
        read_study(study.folder)


def test_there_may_be_no_study(tmp_path):
    with pytest.raises(UserError, match="it holds no study"):
        read_study(tmp_path / "nothing")


def test_two_variants_of_one_config_are_refused(study):
    same = dataclasses.replace(study, variants=make_variants([], ["a:", "b: model.norm.kind=rmsnorm"]))
    with pytest.raises(UserError, match="variants 'a' and 'b' have the same config"):
        same.check()


def test_study_json_is_plain_json(study):
    write_study(study)
    assert json.loads((study.folder / FILE).read_text())["question"] == "Which norm?"


@pytest.mark.parametrize("fields", [{"run.resume_from": "models/other"}, {"run.name": "a", "run.branch": "b"}])
def test_a_study_does_not_start_its_runs_from_one_checkpoint(study, fields):
    """Neither in all of its runs nor in a variant: seeds would share the weights."""
    in_all = dataclasses.replace(study, overrides=study.overrides | fields)
    in_one = dataclasses.replace(study, adjusted={"layernorm": fields})
    for each in (in_all, in_one):
        with pytest.raises(UserError, match=f"{list(fields)[-1]}=.*: every run of a study would start from that one"):
            each.check()


def test_a_study_does_not_let_the_clock_decide(study):
    overrides = {name: value for name, value in study.overrides.items() if name != "train.steps"}
    with pytest.raises(UserError, match="train.minutes=5: each run of a study would choose its own train.steps"):
        dataclasses.replace(study, overrides=overrides | {"train.minutes": 5.0}, adjusted={}).check()
