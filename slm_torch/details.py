"""Measures a model at one update: norms of its parameters and gradients, root mean squares of its activations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from slm_torch.layers.dropout import DropoutKey
from slm_torch.loss import read
from slm_torch.model import Transformer
from slm_torch.numerics import wide

Pieces = Sequence[tuple[Int[Tensor, "rows columns"], DropoutKey]]
"""The micro-batches of an update, of equal size, each with the key of its dropout."""


def norms(kind: str, values: Mapping[str, Tensor]) -> dict[str, float]:
    """Computes {"KIND/NAME": L2 norm} of tensors by name."""
    each = torch.stack(torch._foreach_norm(list(values.values()))).tolist()
    return {f"{kind}/{name}": norm for name, norm in zip(values, each, strict=True)}


def activation_rms(model: Transformer, pieces: Pieces) -> dict[str, float]:
    """Computes {"activation_rms/PATH": root mean square} of what layers and their halves return.

    Args:
      model: with its weights.
      pieces: whose targets are not read.
    """
    squares: dict[str, list[Tensor]] = {}

    def record(path: str, x: Tensor) -> None:
        squares.setdefault(f"activation_rms/{path}", []).append(x.to(wide(x.dtype)).square().mean())

    with torch.no_grad(), recorded(model, record):
        for tokens, key in pieces:
            read(model, tokens[:, :-1], key)
    each = torch.stack([torch.stack(means).mean() for means in squares.values()]).sqrt().tolist()
    return dict(zip(squares, each, strict=True))


@contextmanager
def recorded(model: Transformer, record: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Calls `record` with the path and the output of each layer, its mixer and its MLP, until the context ends."""

    def hook(path: str) -> Callable[..., None]:
        def call(module: Any, inputs: Any, outputs: Any) -> None:
            # Beside the output of attention are its values, beside that of an MLP a loss; a block returns a stream.
            record(path, outputs[0] if isinstance(outputs, tuple) else outputs)

        return call

    modules = {}
    for index, block in enumerate(model.layers):
        path = f"layers.{index}"
        mixer = {"attention": block.attention} if block.mixer is None else {"mixer": block.mixer}
        halves = mixer if block.mlp is None else mixer | {"mlp": block.mlp}
        modules |= {f"{path}.{half}": module for half, module in halves.items()} | {path: block}
    handles = [module.register_forward_hook(hook(path)) for path, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
