"""Measures a model at one update: norms of its parameters and gradients, root mean squares of its activations."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, UInt32

from slm_flax.layers.dropout import DropoutKey
from slm_flax.loss import read
from slm_flax.model import Transformer
from slm_flax.numerics import wide
from slm_flax.params import Params, bind


def norms(kind: str, values: Mapping[str, Array]) -> dict[str, Array]:
    """Computes {"KIND/NAME": L2 norm} of arrays by name."""
    return {f"{kind}/{name}": jnp.sqrt(jnp.sum(jnp.square(value))) for name, value in values.items()}


def activation_rms(
    model: Transformer, values: Params, pieces: Int[Array, "pieces rows columns"], sites: UInt32[Array, "sites"]
) -> dict[str, Array]:
    """Computes {"activation_rms/PATH": root mean square} of what layers and their halves return.

    Args:
      model: without its weights.
      values: the model's parameters, one array per layer.
      pieces: the micro-batches of an update. Their targets are not read.
      sites: the keys of its dropout.
    """

    def mean_squares(tokens: Array, first_row: Array) -> dict[str, Array]:
        squares: dict[str, Array] = {}

        def record(path: str, x: Array) -> None:
            squares[f"activation_rms/{path}"] = jnp.mean(jnp.square(x.astype(wide(x.dtype))))

        bound = recorded(bind(model, values), record)
        read(bound, tokens[:, :-1], DropoutKey(sites, first_row))
        return squares

    first_rows = (jnp.arange(len(pieces)) * pieces.shape[1]).astype(jnp.uint32)
    by_piece = jax.lax.map(lambda piece: mean_squares(*piece), (pieces, first_rows))
    return {path: jnp.sqrt(jnp.mean(means)) for path, means in by_piece.items()}


def recorded(model: Transformer, record: Callable[[str, Array], None]) -> Transformer:
    """Makes a model call `record` with the path and the output of each layer, its mixer and its MLP.

    Its layers then run one by one: a recorded value must not leave a loop or a recomputation.
    """

    def recording(path: str, function: Callable, output: Callable[[Any], Array]) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            record(path, output(result))
            return result

        return call

    model.remat = "none"
    layers: Any = model.layers
    for index, block in enumerate(layers):
        path = f"layers.{index}"
        if block.mixer is None:
            block.attention = recording(f"{path}.attention", block.attention, lambda result: result[0])
        else:
            block.mixer = recording(f"{path}.mixer", block.mixer, lambda result: result)
        if block.mlp is not None:
            block.mlp = recording(f"{path}.mlp", block.mlp, lambda result: result[0])
        block.placement = recording(path, block.placement, lambda x: x)  # it returns the stream after the layer
    return model
