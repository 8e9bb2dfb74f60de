"""scripts/pages/documents.py makes short documents, and compares how runs read them, seed by seed."""

import ast
import itertools

import pytest

from scripts.pages import documents
from scripts.pages.documents import Job, Losses
from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.config.validation import validate


def test_each_document_is_one_function():
    for text in itertools.islice(documents.functions(), 50):
        (node,) = ast.parse("if 1:\n" + text if text[0] == " " else text).body
        inner = node.body[0] if isinstance(node, ast.If) else node
        assert isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)


@pytest.mark.parametrize("variant", documents.VARIANTS)
def test_every_variant_is_a_valid_config(variant):
    fields = documents.SETTINGS | {"data.path": "functions.jsonl"} | documents.VARIANTS[variant]
    validate(with_values(Config(), fields), list(fields))


def test_the_table_has_the_differences_of_equal_seeds():
    losses = {
        Job(variant, seed): Losses(2.0 + seed - 0.1 * place, 3.0 + seed + 0.01 * place * seed)
        for place, variant in enumerate(documents.VARIANTS)
        for seed in range(3)
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in documents._table(losses).splitlines()[2:]]
    assert rows[0] == ["neither", "3.0000", "", "4.0000", ""]
    assert rows[1][1] == "2.9000" and rows[1][2].startswith("-0.1000 ± 0.0000")
    assert rows[1][4].startswith("+0.0100 ± 0.0248")
