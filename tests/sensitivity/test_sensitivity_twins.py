"""Every field that is about numerics changes what each twin computes, under every choice under which it is read."""

import jax.numpy as jnp
import pytest
import torch
from sensitivity_cases import BASE, BOTH, NO_OPS, TWINS, cases
from sensitivity_traces import TRACES, changes, program

import slm_flax.trainer
import slm_torch.trainer
from slm_core.config.fields import with_values
from tests.tiers import some_slow


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("twin", some_slow(BOTH, "flax"))
def test_a_field_changes_the_computation(twin, name):
    _check(twin, name, all_choices=False)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("twin", some_slow(BOTH, "torch", exhaustive=["flax"]))
def test_a_field_changes_the_computation_under_every_choice_of_its_section(twin, name):
    _check(twin, name, all_choices=True)


def _check(twin, name, all_choices):
    tried = [case for case in cases(name, all_choices) if not case.documented(twin)]
    dead = [str(case) for case in tried if not changes(twin, name, case.base, case.other)]
    assert tried, f"{name} has no other value to try: give it one in OTHERS"
    assert dead == []


@pytest.mark.parametrize("no_op", NO_OPS, ids=lambda n: n.name + n.change)
def test_a_documented_no_op_has_no_effect(no_op):
    tried = [case for case in cases(no_op.name, all_choices=True) if case.fits(no_op)]
    changing = [
        f"{twin}: {case}" for case in tried for twin in no_op.twins if changes(twin, case.name, case.base, case.other)
    ]
    assert tried
    assert changing == []


@pytest.mark.parametrize("trace", ["objective", "training", "operations"])
@pytest.mark.parametrize("twin", BOTH)
def test_a_field_that_nothing_reads_leaves_the_trace_as_it_is(twin, trace):
    base = with_values(BASE, {"model.position.kind": "none"})
    unread = {"model.position.theta": 5.0, "model.mlp.top_k": 1, "optim.decay_fraction": 0.5, "run.name": "mine"}
    assert TRACES[twin][trace](base) == TRACES[twin][trace](with_values(base, unread))


@pytest.mark.parametrize(("twin", "trainer"), [("torch", slm_torch.trainer), ("flax", slm_flax.trainer)])
def test_a_field_that_a_twin_ignores_is_found(twin, trainer, monkeypatch):
    base = with_values(BASE, {"seed": 77})  # a config of its own: traces are kept
    other = with_values(base, {"optim.clip_norm": 0.005})
    monkeypatch.setattr(trainer, "clip_factor", lambda norm, limit: 1.0)
    assert not changes(twin, "optim.clip_norm", base, other)


def test_a_value_that_no_result_needs_has_no_effect():
    def operations(factor):
        return next(program(lambda x: (jnp.sin(x) * factor, x + 1)[1], (jnp.ones(3),)))

    assert operations(2.0) == operations(3.0)
