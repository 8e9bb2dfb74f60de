"""Makes mutants by rule, as mutation testers do: each changes one operator, comparison, number or condition.

A mutant that no model of `faults.pairs` and no test of its file finds must change nothing.
"""

import ast
import copy
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType, ModuleType

PACKAGES = ("layers", "optim", "quantization")
MODULES = {
    "torch": ("params", "remat", "loss", "model", "trainer", "generate"),
    "flax": ("params", "remat", "stack", "loss", "model", "trainer", "generate"),
}
"""{twin: its files that compute, beside those of the packages}."""
NOT_NUMBERS = {"__init__", "empty_cache"}  # a model of another shape fails at once

SWAPPED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A function and the code of another.

    Args:
      function: of the module.
      code: of the mutant.
      name: "layers.flash Tiles.scores: smallest < 0 -> smallest <= 0".
    """

    function: FunctionType
    code: CodeType
    name: str

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Makes the function compute what the mutant does until the context ends, for every caller that has it."""
        original = self.function.__code__
        self.function.__code__ = self.code
        try:
            yield
        finally:
            self.function.__code__ = original

    @property
    def file(self) -> str:
        """The module of the function, without the package: "layers.flash"."""
        return self.function.__module__.partition(".")[2]


def mutants(twin: str) -> list[Mutant]:
    """Makes every mutant of a twin."""
    packages = [import_module(f"slm_{twin}.{name}") for name in PACKAGES]
    names = [f"{p.__name__}.{module.name}" for p in packages for module in pkgutil.iter_modules(p.__path__)]
    modules = [import_module(name) for name in (*names, *(f"slm_{twin}.{name}" for name in MODULES[twin]))]
    return [mutant for module in modules for mutant in mutants_of(module)]


def mutants_of(module: ModuleType) -> list[Mutant]:
    """Makes every mutant of the functions of a module that close over no variable of another function."""
    return [
        mutant
        for name, function in _functions(module)
        if not function.__closure__
        for mutant in _mutants(f"{module.__name__.partition('.')[2]} {name}", function)
    ]


def reached(run: Callable[[], object]) -> set[CodeType]:
    """Returns the code of every function that `run` calls."""
    called: set[CodeType] = set()
    sys.setprofile(lambda frame, event, argument: called.add(frame.f_code) if event == "call" else None)
    try:
        run()
    finally:
        sys.setprofile(None)
    return called


def _functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """Yields the functions and methods that a module defines, without what wraps them."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", "") != module.__name__:
            continue
        members = vars(value).items() if isinstance(value, type) else ((None, value),)
        for method, member in members:
            unwrapped = inspect.unwrap(getattr(member, "__func__", member)) if callable(member) or method else member
            defined = isinstance(unwrapped, FunctionType) and unwrapped.__module__ == module.__name__
            if defined and method not in NOT_NUMBERS and unwrapped.__code__.co_filename == module.__file__:
                yield f"{name}.{method}" if method else name, unwrapped


def _mutants(name: str, function: FunctionType) -> Iterator[Mutant]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    tree.body[0].decorator_list = []  # the code is the wrapped function's
    for number, node in enumerate(_nodes(tree)):
        changed = copy.deepcopy(tree)
        if not _change(_nodes(changed)[number]):
            continue
        made: dict[str, FunctionType] = {}
        exec(
            compile(ast.fix_missing_locations(changed), function.__code__.co_filename, "exec"),
            function.__globals__,
            made,
        )
        texts = (ast.unparse(n).partition("\n")[0] for n in (node, _nodes(changed)[number]))
        yield Mutant(function, made[function.__name__].__code__, f"{name}: {' -> '.join(texts)}")


def _nodes(tree: ast.Module) -> list[ast.AST]:
    """Lists the nodes of a function's body."""
    return [node for statement in tree.body[0].body for node in ast.walk(statement)]


def _change(node: ast.AST) -> bool:
    """Changes a node in place if there is a rule for it; returns whether there is one."""
    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPPED:
            node.op = SWAPPED[type(op)]()
        case ast.Compare(ops=[op]) if type(op) in SWAPPED:
            node.ops = [SWAPPED[type(op)]()]
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=int(value) | float(value)):
            node.value = value + 1
        case ast.UnaryOp(op=ast.USub()):
            node.op = ast.UAdd()
        case ast.If(test=test):
            node.test = ast.UnaryOp(ast.Not(), test)
        case _:
            return False
    return True
