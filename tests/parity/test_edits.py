"""Edits of syntax trees match structure and not text, and every fault still finds its place exactly once."""

import ast

import pytest
from faults import CONFIGS, FAULTS, edits

import slm_torch.trainer
from slm_core.config.fields import with_values

SOURCE = """
def f(x, y):
    '''Doubles.'''
    if x:  # a comment
        z = g(x)[
            0
        ]
        return z * 2
    return g(y)[0] * 2
"""


def edited(old: str, new: str) -> tuple[int, str]:
    tree = ast.parse(SOURCE)
    return edits.replace(tree, old, new), ast.unparse(tree)


def test_layout_and_comments_do_not_matter():
    count, text = edited("g( x )[0]", "h(x)")
    assert count == 1 and "z = h(x)" in text


def test_an_expression_keeps_its_operands_together():
    assert "return (z + 1) * 2" in edited("z", "z + 1")[1]


def test_statements_are_replaced_as_a_whole():
    count, text = edited("z = g(x)[0]\nreturn z * 2", "pass")
    assert count == 1 and "if x:\n        pass\n" in text


def test_every_place_counts_and_a_missing_one_is_seen():
    assert edited("2", "3")[0] == 2 and edited("g(z)", "z")[0] == 0 and edited("z = g(x)", "pass")[0] == 0


@pytest.mark.parametrize("name", CONFIGS)
def test_every_fault_of_the_pytorch_twin_has_its_place(name, monkeypatch):
    tiny = CONFIGS[name]
    case = tiny.case(name)
    engine = slm_torch.trainer.build(with_values(case.config, {"precision.params": "float32"}), case.vocab_size)
    for fault in FAULTS.values():
        if fault.pair == name and fault.twin == "torch":
            with monkeypatch.context() as patch:
                fault.apply(engine, patch)
