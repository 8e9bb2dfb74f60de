"""Variants of a study are made comparable: equal tokens, parameters, operations or time."""

import dataclasses
from pathlib import Path

import pytest

from slm_core.errors import UserError
from slm_core.studies.matching import Costs, matched
from slm_core.studies.study import Study
from slm_core.studies.variants import make_variants


def study(named, match, overrides=None):
    return Study(
        folder=Path("models/x"), preset="configs/default.py", overrides=overrides or {}, seeds=1,
        variants=make_variants([], named), frameworks=("torch",), match=match, threads=1, question="", command="",
    )  # fmt: skip


def count(config):
    """A transformer's parameters, simplified: four square matrices and three of the MLP per layer."""
    model = config.model
    hidden = model.mlp.hidden or 352
    return model.n_layers * (4 * model.d_model**2 + 3 * model.d_model * hidden) + 256 * model.d_model


COSTS = Costs(
    parameters=count,
    flops=lambda config: 6.0 * count(config) * config.train.batch_size * config.data.seq_len,
    seconds=lambda config: 0.1 * config.model.n_layers,
)


def adjusted(named, match, overrides=None):
    made = matched(study(named, match, overrides), COSTS)
    return made, made.adjusted[made.variants[1].name], made.notes[made.variants[1].name]


def test_equal_steps_change_nothing_and_record_the_costs():
    made, values, notes = adjusted(["a:", "b: model.n_layers=6"], "steps")
    assert (values, notes) == ({}, ())
    assert made.facts["a"]["parameters"] == count(made.config(made.variants[0])) < made.facts["b"]["parameters"]


def test_equal_tokens_change_the_updates():
    _, values, notes = adjusted(["a:", "b: data.seq_len=256"], "tokens")
    assert values == {"train.steps": 300} and "2 times the tokens per update" in notes[0]


def test_equal_operations_change_the_updates():
    made, values, _ = adjusted(["a:", "b: model.n_layers=10"], "flops")
    total = [made.facts[v.name]["flops"] * made.config(v).train.steps for v in made.variants]
    assert total[1] / total[0] == pytest.approx(1, rel=2e-3) and 250 < values["train.steps"] < 350


def test_equal_time_changes_the_updates():
    _, values, _ = adjusted(["a:", "b: model.n_layers=10"], "time")
    assert values == {"train.steps": 300}


def test_equal_parameters_change_the_width_of_the_mlps():
    made, values, notes = adjusted(["a:", "b: model.n_layers=6"], "parameters")
    assert set(values) == {"model.mlp.hidden"} and 200 < values["model.mlp.hidden"] < 352
    assert made.facts["b"]["parameters"] / made.facts["a"]["parameters"] == pytest.approx(1, abs=0.01)
    assert notes == (f"model.mlp.hidden={values['model.mlp.hidden']}: {made.facts['b']['parameters']:,} parameters"
                     f" instead of {count(study(['a:', 'b: model.n_layers=6'], 'steps').config(made.variants[1])):,},"
                     f" to match {made.facts['a']['parameters']:,}",)  # fmt: skip


def test_within_a_percent_nothing_is_changed():
    _, values, _ = adjusted(["a:", "b: model.mlp.hidden=353"], "parameters")
    assert values == {}


def test_a_variant_that_sets_the_mlp_itself_gets_another_d_model():
    base = {"model.d_model": 512, "model.mlp.hidden": 1408}
    _, values, _ = adjusted(["a:", "b: model.mlp.hidden=1024"], "parameters", base)
    assert set(values) == {"model.d_model"} and 512 < values["model.d_model"] < 640


@pytest.mark.parametrize(
    ("named", "match", "message"),
    [
        (["a:", "b: train.steps=100 data.seq_len=256"], "tokens", "it sets train.steps, which --match=tokens adjusts"),
        (["a:", "b: model.n_layers=100"], "parameters", "no width of its MLPs within a factor of 4"),
    ],
)
def test_what_cannot_match_is_refused(named, match, message):
    with pytest.raises(UserError, match=message):
        adjusted(named, match)


def test_earlier_adjustments_stay():
    before = dataclasses.replace(study(["a:", "b: data.seq_len=256"], "tokens"), adjusted={"b": {"optim.lr": 3e-3}})
    assert matched(before, COSTS).adjusted["b"] == {"optim.lr": 3e-3, "train.steps": 300}
