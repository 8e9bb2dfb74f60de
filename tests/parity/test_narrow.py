"""Which functions are computed in 16 bits: the gates and activations of MLPs alone, and the same in both twins.

The numbers of 16-bit models cannot tell it: a logarithm or a root in 16 bits is within their tolerance.
"""

from collections.abc import Iterator
from dataclasses import replace

import jax
import pytest
import torch
from jax.extend.core import Jaxpr, jaxprs_in_params
from torch.utils._python_dispatch import TorchDispatchMode

from parity.cases import ONE_PASS, Case, cases
from parity.pair import Pair, release

FUNCTIONS = {
    "a root": ("rsqrt", "sqrt", "cbrt"),
    "an exponential or a logarithm": (
        "exp", "exp2", "expm1", "log", "log1p", "softplus", "_softmax", "_log_softmax", "logsumexp", "elu",
        "log_sigmoid_forward", "logaddexp",
    ),
    "a running sum or product": ("cumsum", "cumprod", "cumlogsumexp", "logcumsumexp"),
    "an angle": ("sin", "cos", "atan2"),
    "sigmoid": ("logistic", "sigmoid", "silu"),
    "tanh": ("tanh",),
    "erf": ("erf", "erfc"),
}  # fmt: skip
"""{function: the names of its operations in PyTorch and in JAX}. PyTorch's gelu is told apart by its argument."""
NAMES = {name: function for function, names in FUNCTIONS.items() for name in names}

MAY_BE_NARROW = {"sigmoid", "tanh", "erf"}
DERIVATIVE = {"erf": {"an exponential or a logarithm"}}
"""What JAX computes in the derivative of a function; PyTorch has one operation for it."""

SECTIONS = ("model", "mixers", "kernels", "attention", "positions", "norms", "MLPs", "fine-tuning")
SMALL = [case for case in cases() if case.section in SECTIONS]


class Narrow(TorchDispatchMode):
    """Records the functions of 16-bit tensors."""

    def __init__(self):
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name, options = operation.overloadpacket.__name__, kwargs or {}
        if any(isinstance(x, torch.Tensor) and x.dtype in (torch.float16, torch.bfloat16) for x in args):
            if name == "gelu":
                name = "tanh" if options.get("approximate") == "tanh" else "erf"
            self.found |= {NAMES[n] for n in (name, name.removesuffix("_")) if n in NAMES}
        return operation(*args, **options)


def equations(jaxpr: Jaxpr) -> Iterator:
    """Yields the equations of a program, and of the programs in it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def narrow_in_torch(pair: Pair, tokens) -> set[str]:
    moving = [p for p in pair.torch.params.values() if p.requires_grad]
    with Narrow() as record:
        torch.autograd.grad(pair.torch.loss_sums(torch.from_numpy(tokens).long(), None).objective, moving)
    return record.found


def narrow_in_flax(pair: Pair, tokens) -> set[str]:
    values = pair.flax.state["params"]
    objective = lambda moving: pair.flax.loss_sums(values | moving, tokens, None).objective  # noqa: E731
    moving = {name: value for name, value in values.items() if name in pair.flax.moving}
    return {
        NAMES[equation.primitive.name]
        for equation in equations(jax.make_jaxpr(jax.grad(objective))(moving).jaxpr)
        if equation.primitive.name in NAMES
        and any(str(x.aval.dtype) in ("float16", "bfloat16") for x in equation.invars)
    }


def of_components_first() -> list:
    """Lists the small cases; those that show no component by itself are slow."""
    return [
        pytest.param(case, id=f"{case.section}, {case.name}", marks=() if "kind=" in case.name else pytest.mark.slow)
        for case in SMALL
    ]


@pytest.mark.parametrize("case", of_components_first())
def test_the_twins_compute_the_same_functions_in_16_bits(case: Case):
    """Forward and backward, in bfloat16."""
    try:
        pair = Pair(replace(case, checks=ONE_PASS), "bfloat16")
        tokens = pair.batch(0)
        in_torch, in_flax = narrow_in_torch(pair, tokens), narrow_in_flax(pair, tokens)
    finally:
        pair = None
        release()
    assert in_torch <= MAY_BE_NARROW
    assert in_flax - in_torch <= set().union(*(DERIVATIVE.get(name, set()) for name in in_torch))
    assert in_torch <= in_flax


def test_a_narrow_function_is_seen():
    x = torch.ones(3, dtype=torch.bfloat16)
    with Narrow() as record:
        torch.rsqrt(x), x.exp_(), torch.nn.functional.gelu(x), torch.nn.functional.silu(x.float())
    assert record.found == {"a root", "an exponential or a logarithm", "erf"}
