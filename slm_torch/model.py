"""The decoder-only transformer: embedding, blocks, norm, head."""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from slm_core.config import Config
from slm_core.config.layers import LayerSpec, layer_specs, resolve
from slm_core.model.initialization import embedding, head
from slm_core.model.mup import logit_factor
from slm_core.quantization.formats import Declared
from slm_torch.layers import ATTENTION, KERNEL, MLP, NORM, POSITION
from slm_torch.layers.cache import Cache
from slm_torch.layers.dropout import Dropout, DropoutKey
from slm_torch.layers.linear import Embedding, Linear
from slm_torch.layers.lora import adapt
from slm_torch.layers.placement import PLACEMENT
from slm_torch.numerics import DTYPES, wide
from slm_torch.params import specs
from slm_torch.remat import run


class Stream(NamedTuple):
    """What one block hands to the next.

    Args:
      x: the residual stream.
      first_values: the first layer's values, where a later layer mixes them in.
      penalty: what the layers so far add to the loss a token.
    """

    x: Float[Tensor, "batch time d_model"]
    first_values: Float[Tensor, "batch time kv_heads head_dim"] | None
    penalty: Float[Tensor, ""] | float


class Block(nn.Module):
    """Attention and MLP on the residual stream; `layer` is this one's spec."""

    def __init__(self, layer: LayerSpec, index: int, context: int, gives_values: bool):
        """`gives_values`: later layers mix this one's values into theirs."""
        super().__init__()
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

    def forward(self, stream: Stream, start: int, key: DropoutKey | None, cache: Cache | None) -> Stream:
        first_values, penalty = stream.first_values, stream.penalty

        def attend(y: Tensor) -> Tensor:
            nonlocal first_values
            y, values = self.attention(y, start, cache, first_values)
            if self.gives_values:
                first_values = values
            return self.attention_dropout(y, key)

        def feed(y: Tensor) -> Tensor:
            nonlocal penalty
            if hasattr(self.mlp, "penalty"):
                penalty = penalty + self.mlp.penalty(y)
            return self.mlp_dropout(self.mlp(y), key)

        x = self.placement(self, stream.x, attend, feed)
        return Stream(x, first_values, penalty)

    def add(
        self, x: Float[Tensor, "batch time d_model"], y: Float[Tensor, "batch time d_model"]
    ) -> Float[Tensor, "batch time d_model"]:
        """Adds to the residual stream."""
        return x + y if self.residual_multiplier == 1 else x + self.residual_multiplier * y


class Transformer(nn.Module):
    """Tokens to the final hidden state; `logits` goes on from there, so that a loss can take it in chunks."""

    def __init__(self, config: Config, vocab_size: int, dtype: torch.dtype):
        """Declares the parameters, without storage. `dtype` is the compute dtype."""
        super().__init__()
        model, context = config.model, config.data.seq_len
        layers = layer_specs(model)
        mixed = any(layer.attention.value_residual for layer in layers[1:])
        self.embed = Embedding(vocab_size, model.d_model, embedding(model), dtype)
        self.embed_scale = model.embed_scale
        self.embed_norm = NORM[model.norm.kind](model.d_model, model.norm) if model.embed_norm else None
        self.position = position_at("embedding", resolve(model), context)
        self.dropout = Dropout(model.dropout, site=0)
        self.layers = nn.ModuleList(
            Block(layer, i, context, gives_values=mixed and i == 0) for i, layer in enumerate(layers)
        )
        self.final_norm = NORM[model.norm.kind](model.d_model, model.norm) if model.norm.placement != "post" else None
        self.head = None if model.tie_embeddings else Linear(model.d_model, vocab_size, head(model), bias=False)
        self.logit_factor, self.logit_softcap = logit_factor(model), model.logit_softcap
        self.z_loss = model.z_loss
        self.adapter_plan = adapt(self, config.finetune) if config.finetune.kind == "lora" else None
        self.remat = config.memory.remat
        self.context = context

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        start: int = 0,
        key: DropoutKey | None = None,
        caches: list[Cache] | None = None,
    ) -> tuple[Float[Tensor, "batch time d_model"], Float[Tensor, ""] | float]:
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
            stream = run(self.layers, self.remat, stream, start, key)
        else:
            for layer, cache in zip(self.layers, caches, strict=True):
                stream = layer(stream, start, None, cache)
        x = stream.x if self.final_norm is None else self.final_norm(stream.x)
        return x, stream.penalty

    def logits(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Returns the logits of the next token, float32 or wider."""
        logits = hidden @ self.embed.weight.to(hidden.dtype).T if self.head is None else self.head(hidden)
        logits = logits.to(wide(logits.dtype))
        if self.logit_factor != 1:
            logits = logits * self.logit_factor
        return self.logit_softcap * torch.tanh(logits / self.logit_softcap) if self.logit_softcap else logits

    def empty_caches(self, batch: int, dtype: torch.dtype, device: torch.device) -> list[Cache]:
        """Returns one empty cache a layer, with room for the whole context."""
        return [layer.attention.empty_cache(batch, self.context, dtype, device) for layer in self.layers]


def position_at(site: str, layer: LayerSpec, context: int) -> nn.Module | None:
    """Returns the layer's position component if it acts at `site`, else None.

    Sites: the "embedding", the "heads" (queries and keys) or the "scores".
    """
    kind = POSITION[layer.position.kind]
    return kind(layer, context) if kind.site == site else None


def declared(config: Config, vocab_size: int) -> Declared:
    """Returns {canonical name: (shape, spec)} of the parameters of a config's model, built without storage."""
    return specs(Transformer(config, vocab_size, DTYPES["float32"]))
