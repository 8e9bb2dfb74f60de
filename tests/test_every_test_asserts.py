"""Every test can fail: it asserts something itself, or calls a helper of the tests that does."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FAILING = {"raises", "warns", "fail", "validate", "apply"}
"""Functions whose call is an assertion.

They are pytest's, the validation of a config, and the applying of a fault, which fails if its place is missing.
"""


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """Returns the functions of a file, without methods and inner functions."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def helper_of(name: str, tree: ast.Module) -> tuple[ast.FunctionDef, ast.Module] | None:
    """Returns the function of the tests that a file knows by a name, and the file that defines it."""
    if name in functions(tree):
        return functions(tree)[name], tree
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            for other in FILES.get((node.module or "").split(".")[-1], []):
                if name in functions(other):
                    return functions(other)[name], other
    return None


def asserts(function: ast.FunctionDef, tree: ast.Module, seen: frozenset[str] = frozenset()) -> bool:
    """Says whether a function of a file asserts, by itself or by a call to a helper of the tests."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in FAILING or name.startswith("assert"):
            return True
        helper = helper_of(name, tree) if isinstance(node.func, ast.Name) and name not in seen else None
        if helper and asserts(*helper, seen | {name}):
            return True
    return False


def silent_tests(tree: ast.Module) -> list[str]:
    """Returns the names of the tests of a file that assert nothing."""
    by_name = functions(tree)
    return [name for name, function in by_name.items() if name.startswith("test_") and not asserts(function, tree)]


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(TESTS.rglob("*.py"))}
FILES = {path.stem: [tree for other, tree in TREES.items() if other.stem == path.stem] for path in TREES}
"""{name of a module: every file of that name}."""


@pytest.mark.parametrize("path", TREES, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_of_a_file_asserts_something(path):
    assert silent_tests(TREES[path]) == []


def test_a_test_that_asserts_nothing_is_found():
    source = "def check(x):\n    assert x\n\n\ndef test_loud():\n    check(1)\n\n\ndef test_silent():\n    print(1)\n"
    assert silent_tests(ast.parse(source)) == ["test_silent"]
