"""Defines a fault, and the two ways to make one: an edit of a function's syntax tree, or another value."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from types import MethodType
from typing import Any

import pytest

from faults import edits
from slm_torch.trainer import Engine

Apply = Callable[[Engine, pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Fault:
    """One mistake in one twin.

    Args:
      apply: makes it, until the patch is undone.
      about: a component ("rope"), a choice ("qk_norm=l2"), a field ("attention.window") or a rule of `faults.rules`.
      pair: the model that has that part, a key of `faults.pairs.CONFIGS`.
      check: the first check of the suite that fails.
      module: what the bisector names.
      twin: that it is in. What is compiled of the Flax twin stays as it is, so that its faults come before its engine:
        their targets are functions of modules.
    """

    apply: Apply
    about: str
    pair: str
    check: str
    module: str
    twin: str = "torch"


def edited(target: str, old: str, new: str) -> Apply:
    """Returns a fault that replaces `old` by `new` in the syntax tree of a function.

    Args:
      target: the function: "model.layers.0.mlp.forward" of the engine, of that object only, or "slm_torch.loss:sums",
        wherever its module calls it.
      old: an expression or whole statements, which the function has exactly once: a fault must not outlive the code
        that it breaks.
      new: likewise.
    """

    def apply(engine: Engine, patch: pytest.MonkeyPatch) -> None:
        owner, name = _owner(engine, target)
        function = getattr(owner, name)
        unwrapped = inspect.unwrap(function)
        tree = edits.tree_of(unwrapped)
        places = edits.replace(tree, old, new)
        assert places == 1, f"{target} has {old!r} {places} times: write the fault anew"
        broken = edits.compiled(tree, unwrapped, f"<{target}>")
        patch.setattr(owner, name, MethodType(broken, owner) if inspect.ismethod(function) else broken)

    return apply


def changed(target: str, change: Callable[[Any], Any]) -> Apply:
    """Returns a fault that gives an attribute at `target`, as in `edited`, the value change(value)."""

    def apply(engine: Engine, patch: pytest.MonkeyPatch) -> None:
        owner, name = _owner(engine, target)
        replace(patch, owner, name, change(getattr(owner, name)))

    return apply


def replace(patch: pytest.MonkeyPatch, owner: Any, name: str, value: Any) -> None:
    """Gives an object an attribute until the patch is undone."""
    buffers = vars(owner).get("_buffers", {})
    if name in buffers:  # which a module keeps apart from its attributes
        patch.setitem(buffers, name, value)
    else:
        patch.setattr(owner, name, value)


def option(target: str, key: str, value: Any) -> Apply:
    """Returns a fault that gives the dictionary at `target`, as in `edited`, another value of `key`."""

    def apply(engine: Engine, patch: pytest.MonkeyPatch) -> None:
        owner, name = _owner(engine, target)
        patch.setitem(getattr(owner, name), key, value)

    return apply


def _owner(engine: Engine, target: str) -> tuple[Any, str]:
    """Returns the object that has the last name of a target, and that name."""
    module, _, path = target.rpartition(":")
    *parts, name = path.split(".")
    return reduce(getattr, parts, import_module(module) if module else engine), name
