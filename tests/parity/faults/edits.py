"""Edits of a function's syntax tree. They ignore layout and comments, which a formatter may change."""

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def tree_of(function: Callable) -> ast.Module:
    """Returns the syntax tree of a function's definition."""
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def compiled(tree: ast.Module, function: Callable, filename: str) -> Any:
    """Runs the definition in a tree, with the globals of a function. Returns the value of the function's name."""
    made: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(tree), filename, "exec"), function.__globals__, made)
    return made[function.__name__]


def replace(tree: ast.Module, old: str, new: str) -> int:
    """Replaces `old` by `new` wherever it stands in a tree. Returns how many places there were.

    Both are Python: two expressions, or two sequences of whole statements. They match by structure, not by text.
    """
    before, after = (ast.parse(textwrap.dedent(text)).body for text in (old, new))
    if all(len(body) == 1 and isinstance(body[0], ast.Expr) for body in (before, after)):
        return _replace_nodes(tree, before[0].value, after[0].value)
    return sum(_replace_statements(body, before, after) for body in _bodies(tree))


def _replace_nodes(tree: ast.Module, old: ast.expr, new: ast.expr) -> int:
    pattern, count = ast.dump(old), 0
    for node in list(ast.walk(tree)):
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                places = [i for i, item in enumerate(value) if isinstance(item, ast.expr) and ast.dump(item) == pattern]
                for i in places:
                    value[i] = copy.deepcopy(new)
                count += len(places)
            elif isinstance(value, ast.expr) and ast.dump(value) == pattern:
                setattr(node, field, copy.deepcopy(new))
                count += 1
    return count


def _bodies(tree: ast.Module) -> list[list[ast.stmt]]:
    """Returns every list of statements in a tree."""
    lists = [value for node in ast.walk(tree) for _, value in ast.iter_fields(node) if isinstance(value, list)]
    return [body for body in lists if body and all(isinstance(item, ast.stmt) for item in body)]


def _replace_statements(body: list[ast.stmt], old: list[ast.stmt], new: list[ast.stmt]) -> int:
    pattern, dumps = [ast.dump(item) for item in old], [ast.dump(item) for item in body]
    places = [i for i in range(len(body)) if dumps[i : i + len(old)] == pattern]
    for i in reversed(places):
        body[i : i + len(old)] = copy.deepcopy(new)
    return len(places)
