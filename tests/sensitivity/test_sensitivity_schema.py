"""The whole schema is covered, and a field set under a choice that does not read it is refused."""

import pytest
from sensitivity_cases import (
    BASE,
    MACHINE,
    ONLY_VALUES,
    RUNS,
    TWINS,
    cases,
    contexts,
    others,
    unread_contexts,
    values_of,
)  # fmt: skip

from parity.fields import selecting, selectors
from slm_core.cli.command_line import parse
from slm_core.config.fields import field_table, flatten
from slm_core.errors import UserError
from tests.gates import require

HERE = "tests/sensitivity/sensitivity_cases.py"


def _component(name, context):
    """Returns the kind under which a field has no other value, or the field itself."""
    return context.rpartition("=")[2] or name


def test_every_field_is_perturbed():
    assert {*TWINS, *RUNS, *MACHINE} == set(field_table())


@pytest.mark.parametrize("name", field_table())
def test_every_choice_that_reads_a_field_has_another_value_of_it(name):
    reading = {(name, context) for context, _ in contexts(name, all_choices=True)}
    tried = list(cases(name, all_choices=True))
    silent = reading - ONLY_VALUES - {(name, case.context) for case in tried}
    require({_component(*pair): f"another value of {name} in {HERE}" for pair in silent})
    assert {(name, case.context) for case in tried} <= reading - ONLY_VALUES
    assert {flatten(config)[name] for case in tried for config in (case.base, case.other)} >= set(values_of(name))


@pytest.mark.parametrize(
    ("name", "selector", "value"), [(name, *context) for name in field_table() for context in unread_contexts(name)]
)
def test_a_field_is_refused_under_a_choice_that_does_not_read_it(name, selector, value):
    given = others(name, field_table()[name].default)[0]
    text = ",".join(map(str, given)) if isinstance(given, tuple) else str(given)
    with pytest.raises(UserError) as caught:
        beside = [f"--config.{other}={kind}" for other, kind in selecting(selector, BASE).items()]
        parse([*beside, f"--config.{selector}={value.replace('PATH', 'x.json')}", f"--config.{name}={text}"])
    message = str(caught.value)
    assert message.startswith(f"{name}=") and "\n" not in message
    assert f"is not read by {selector}={value.replace('PATH', 'x.json')}: " in message
    assert message.endswith(f"set {selector} to {' or '.join(selectors(name)[selector])}")
