"""Softmax attention over given queries, keys and values."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from slm_core.config.layers import LayerSpec
from slm_core.model.initialization import SCALAR
from slm_torch.layers.documents import Documents
from slm_torch.numerics import wide
from slm_torch.params import declare


class Attend(nn.Module):
    """Calls the attention kernel with everything that acts on scores.

    The position may add a bias by distance. The config may add a soft-cap (Gemma 2, https://arxiv.org/abs/2408.00118),
    learned sinks (gpt-oss, https://arxiv.org/abs/2508.10925) and a window, which limits how far back a query sees.
    `dot_product` has the formula.

    Args:
      layer: gives the scale, the window, the soft-cap and the number of sinks.
      kernel: computes softmax attention: a value of `KERNEL`.
      bias: a position that acts on scores, or None.
    """

    def __init__(self, layer: LayerSpec, kernel: Callable[..., Tensor], bias: nn.Module | None):
        super().__init__()
        attention = layer.attention
        self.kernel = kernel
        self.bias = bias
        self.sinks = declare((attention.n_heads,), SCALAR) if attention.sinks else None
        self.options = dict(scale=attention.scale, window=attention.window, softcap=attention.softcap)

    def forward(
        self,
        q: Float[Tensor, "batch time heads head_dim"],
        k: Float[Tensor, "batch keys kv_heads head_dim"],
        v: Float[Tensor, "batch keys kv_heads v_dim"],
        start: int,
        keys_start: int,
        documents: Documents | None = None,
    ) -> Float[Tensor, "batch time heads v_dim"]:
        """Attends from positions start, start + 1, ... to keys at keys_start, keys_start + 1, ... within documents."""
        bias = None if self.bias is None else self.bias(wide(q.dtype))
        options = dict(start=start, keys_start=keys_start, bias=bias, sinks=self.sinks, **self.options)
        if documents is not None:
            options["documents"] = documents.numbers
        return self.kernel(q, k, v, **options)
