"""The decoder-only transformer: embedding, blocks, norm, head."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from slm_core.config import Config
from slm_core.config.layers import LayerSpec, layer_specs, resolve
from slm_core.model.initialization import embedding, head
from slm_core.model.mup import logit_factor
from slm_core.quantization.formats import Declared
from slm_flax.layers import ATTENTION, KERNEL, MLP, NORM, POSITION
from slm_flax.layers.cache import Cache
from slm_flax.layers.dropout import Dropout, DropoutKey
from slm_flax.layers.linear import Embedding, Linear
from slm_flax.layers.lora import adapt
from slm_flax.layers.placement import PLACEMENT
from slm_flax.numerics import DTYPES, wide
from slm_flax.params import specs
from slm_flax.remat import AGAIN, run
from slm_flax.stack import Stack, find


class Stream(NamedTuple):
    """What one block hands to the next.

    Args:
      x: the residual stream.
      first_values: the first layer's values, where a later layer mixes them in.
      penalty: what the layers so far add to the loss a token.
    """

    x: Float[Array, "batch time d_model"]
    first_values: Float[Array, "batch time kv_heads head_dim"] | None
    penalty: Float[Array, ""] | float


class Block(nnx.Module):
    """Attention and MLP on the residual stream; `layer` is this one's spec."""

    def __init__(self, layer: LayerSpec, index: int, context: int, gives_values: bool):
        """`gives_values`: later layers mix this one's values into theirs."""
        position = partial(position_at, layer=layer, context=context)
        self.attention = ATTENTION[layer.attention.kind](layer, index, KERNEL[layer.attention.kernel], position)
        self.attention_dropout = Dropout(layer.dropout, site=0)
        self.mlp = MLP[layer.mlp.kind](layer)
        self.mlp_dropout = Dropout(layer.dropout, site=1)
        self.placement, norms = PLACEMENT[layer.norm.placement]
        norm = {name: NORM[layer.norm.kind](layer.d_model, layer.norm) for name in norms}
        self.attention_norm, self.attention_output_norm = norm.get("attention"), norm.get("attention_output")
        self.mlp_norm, self.mlp_output_norm = norm.get("mlp"), norm.get("mlp_output")
        self.residual_multiplier = layer.residual_multiplier
        self.gives_values = gives_values

    def __call__(self, stream: Stream, start: int | Array, key: DropoutKey | None, cache: Cache | None) -> Stream:
        first_values, penalty = stream.first_values, stream.penalty

        def attend(y: Array) -> Array:
            nonlocal first_values
            y, values = self.attention(y, start, cache, first_values)
            if self.gives_values:
                first_values = values
            return self.attention_dropout(y, key)

        def feed(y: Array) -> Array:
            nonlocal penalty
            if hasattr(self.mlp, "penalty"):
                penalty = penalty + self.mlp.penalty(y)
            return self.mlp_dropout(self.mlp(y), key)

        x = self.placement(self, stream.x, attend, feed)
        return Stream(x, first_values, penalty)

    def add(
        self, x: Float[Array, "batch time d_model"], y: Float[Array, "batch time d_model"]
    ) -> Float[Array, "batch time d_model"]:
        """Adds to the residual stream."""
        return x + y if self.residual_multiplier == 1 else x + self.residual_multiplier * y


class Transformer(nnx.Module):
    """Tokens to the final hidden state; `logits` goes on from there, so that a loss can take it in chunks."""

    def __init__(self, config: Config, vocab_size: int, dtype: np.dtype):
        """Declares the parameters, without storage. `dtype` is the compute dtype."""
        model, context = config.model, config.data.seq_len
        layers = layer_specs(model)
        mixed = any(layer.attention.value_residual for layer in layers[1:])
        self.embed = Embedding(vocab_size, model.d_model, embedding(model), dtype)
        self.embed_scale = model.embed_scale
        self.embed_norm = NORM[model.norm.kind](model.d_model, model.norm) if model.embed_norm else None
        self.position = position_at("embedding", resolve(model), context)
        self.dropout = Dropout(model.dropout, site=0)
        self.layers = nnx.List(
            Block(layer, i, context, gives_values=mixed and i == 0) for i, layer in enumerate(layers)
        )
        self.final_norm = NORM[model.norm.kind](model.d_model, model.norm) if model.norm.placement != "post" else None
        self.head = None if model.tie_embeddings else Linear(model.d_model, vocab_size, head(model), bias=False)
        self.logit_factor, self.logit_softcap = logit_factor(model), model.logit_softcap
        self.z_loss = model.z_loss
        self.adapter_plan = adapt(self, config.finetune) if config.finetune.kind == "lora" else None
        self.remat = config.memory.remat
        self.stack = find(self.layers) if self.remat in AGAIN else Stack()
        self.context = context

    def __call__(
        self,
        tokens: Int[Array, "batch time"],
        start: int | Array = 0,
        key: DropoutKey | None = None,
        caches: list[Cache] | None = None,
    ) -> tuple[Float[Array, "batch time d_model"], Float[Array, ""] | float]:
        """Returns the normed hidden state, and what the layers add to the loss a token.

        Args:
          tokens: ids at positions start, start + 1, ...
          start: position of the first token; above 0 only with caches.
          key: turns dropout on; not with caches.
          caches: one a layer, from `empty_caches`, holding the positions before `start`; extended in place.
        """
        x = self.embed(tokens)
        if self.embed_scale != 1:
            x = x * self.embed_scale
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        if self.position is not None:
            x = self.position(x, start)
        stream = Stream(self.dropout(x, key), None, 0.0)
        if caches is None:
            stack = self.stack if self.stack.in_use(self.layers) else Stack()
            stream = run(self.layers, stack, self.remat, stream, start, key)
        else:
            for layer, cache in zip(self.layers, caches, strict=True):
                stream = layer(stream, start, None, cache)
        x = stream.x if self.final_norm is None else self.final_norm(stream.x)
        return x, stream.penalty

    def logits(self, hidden: Float[Array, "*batch d_model"]) -> Float[Array, "*batch vocab"]:
        """Returns the logits of the next token, float32 or wider."""
        logits = hidden @ self.embed.weight.astype(hidden.dtype).T if self.head is None else self.head(hidden)
        logits = logits.astype(wide(logits.dtype))
        if self.logit_factor != 1:
            logits = logits * self.logit_factor
        return self.logit_softcap * jnp.tanh(logits / self.logit_softcap) if self.logit_softcap else logits

    def empty_caches(self, batch: int, dtype: np.dtype) -> list[Cache]:
        """Returns one empty cache a layer, with room for the whole context."""
        return [layer.attention.empty_cache(batch, self.context, dtype) for layer in self.layers]


def position_at(site: str, layer: LayerSpec, context: int) -> nnx.Module | None:
    """Returns the layer's position component if it acts at `site`, else None.

    Sites: the "embedding", the "heads" (queries and keys) or the "scores".
    """
    kind = POSITION[layer.position.kind]
    return kind(layer, context) if kind.site == site else None


def declared(config: Config, vocab_size: int) -> Declared:
    """Returns {canonical name: (shape, spec)} of the parameters of a config's model, built without storage."""
    return specs(Transformer(config, vocab_size, DTYPES["float32"]))
