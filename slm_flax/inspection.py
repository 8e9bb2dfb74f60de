"""Looks inside a model: attention weights, the residual stream after each layer, and what each module costs."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params
from jaxtyping import Float, Int

from slm_core.protocols import LOGITS, Module
from slm_flax.details import recorded
from slm_flax.layers.attend import Attend
from slm_flax.layers.dot_product import dot_product
from slm_flax.loss import input_ids, read
from slm_flax.model import Transformer
from slm_flax.numerics import wide
from slm_flax.params import Params, bind, canonical


def inspected(
    model: Transformer, values: Params, tokens: Int[Array, "rows time"]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Computes the attention weights and the streams of a batch; see `slm_core.protocols.Inspection`."""
    weights: dict[str, Array] = {}
    streams: dict[str, Array] = {}

    def keep(path: str, x: Array) -> None:
        if path.count(".") == 1:  # a layer, not a half of it
            streams[path] = x.astype(wide(x.dtype))

    bound = recorded(weighed(bind(model, values), weights.__setitem__), keep)
    read(bound, tokens, None)
    return weights, streams


def weighed(model: Transformer, record: Callable[[str, Array], None]) -> Transformer:
    """Makes a model call `record` with the path and the weights of each softmax attention.

    A kernel is linear in its values. So values that are one-hot, a different one per key, give the weights of the keys:
    [rows, heads, time, keys]. This holds for every kernel, bias, window, soft-cap and sink.
    """

    def weighing(path: str, attend: Attend) -> Callable[..., Array]:
        def call(q: Array, k: Array, v: Array, *places: Any) -> Array:
            one_hot = jnp.eye(k.shape[1], dtype=v.dtype)[:, None]
            one_hot = jnp.broadcast_to(one_hot, (*v.shape[:3], k.shape[1]))
            weights = attend(q, k, one_hot, *places)
            record(path, weights.swapaxes(1, 2).astype(wide(weights.dtype)))
            return attend(q, k, v, *places)

        return call

    for path, module in list(nnx.iter_modules(model)):
        for name, attend in list(vars(module).items()):
            if isinstance(attend, Attend):
                setattr(module, name, weighing(canonical((*path, name)), attend))
    return model


def lens(
    model: Transformer, values: Params, stream: Float[Array, "rows time d_model"]
) -> Float[Array, "rows time vocab"]:
    """Computes log p of each token as if `stream` came out of the last layer; see `slm_core.protocols.Inspector`."""
    model = bind(model, values)
    hidden = stream if model.final_norm is None else model.final_norm(stream)
    return jax.nn.log_softmax(model.logits(hidden), axis=-1)


def modules(model: Transformer, values: Params, tokens: Int[Array, "rows time"]) -> list[Module]:
    """Lists the modules that a forward pass calls, in the order of their calls; see `slm_core.protocols.Inspector`."""
    bound = plain_kernels(bind(model, values))
    named = {canonical(path): module for path, module in nnx.iter_modules(bound)}
    outputs: dict[str, Any] = {}

    def forward(tokens: Array) -> Array:
        hidden, _ = bound(input_ids(tokens))
        with jax.named_scope(LOGITS):
            outputs[LOGITS] = bound.logits(hidden)
        return outputs[LOGITS]

    with scoped(named, outputs):
        traced = jax.make_jaxpr(forward)(tokens)
    flops = dict.fromkeys(outputs, 0)
    for scope, operations in products(traced.jaxpr, ""):
        place = LOGITS if scope == "head" else scope
        for path in outputs:
            if not path or f"{place}.".startswith(f"{path}."):
                flops[path] += operations
    owners: dict[str, nnx.Module | None] = {**named, LOGITS: bound.head}
    return [described(path, owners[path], outputs[path], flops[path]) for path in outputs if path != "head"]


def described(path: str, module: nnx.Module | None, output: Any, flops: int) -> Module:
    """Describes a module, or the logits, by its path, its output and its operations."""
    first = output[0] if isinstance(output, tuple) else output
    parameters = {} if module is None else {n: p for n, p in vars(module).items() if isinstance(p, nnx.Param)}
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    kind = "" if module is None else type(module).__name__
    return Module(path, kind, shapes, flops, tuple(first.shape), first.size * first.dtype.itemsize)


def plain_kernels(model: Transformer) -> Transformer:
    """Lets every attention of a model compute all scores, and its layers run one by one."""
    model.remat = "none"
    for _, module in nnx.iter_modules(model):
        if isinstance(module, Attend):
            module.kernel = dot_product
    return model


@contextmanager
def scoped(named: dict[str, nnx.Module], outputs: dict[str, Any]) -> Iterator[None]:
    """Names the operations of each module by its path, and keeps its output, inside the context."""
    paths = {id(module): path for path, module in named.items()}

    def scoping(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(module: nnx.Module, *arguments: Any, **options: Any) -> Any:
            path = paths[id(module)]
            outputs.setdefault(path)
            with jax.named_scope(path or "model"):
                outputs[path] = function(module, *arguments, **options)
            return outputs[path]

        return call

    with ExitStack() as stack:
        for kind in dict.fromkeys(type(module) for module in named.values() if callable(module)):
            stack.enter_context(mock.patch.object(kind, "__call__", scoping(kind.__call__)))
        yield


def products(jaxpr: Jaxpr, scope: str) -> Iterator[tuple[str, int]]:
    """Yields the scope and the operations of each matrix product of a traced function, loops multiplied out."""
    for equation in jaxpr.eqns:
        own = str(equation.source_info.name_stack).rpartition("/")[2] or scope
        if equation.primitive.name == "dot_general":
            yield own, product_flops(equation)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for inner in jaxprs_in_params(equation.params):
            yield from ((name, times * operations) for name, operations in products(inner, own))


def product_flops(equation: JaxprEqn) -> int:
    """Counts the operations of a `dot_general`: 2 per number of the result and per number that is summed over."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left: Any = equation.invars[0].aval
    result: Any = equation.outvars[0].aval
    return 2 * result.size * math.prod(left.shape[axis] for axis in contracted)
