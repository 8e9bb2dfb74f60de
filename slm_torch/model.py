"""The decoder-only transformer: embedding, blocks, norm, head."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from slm_core.config import Config
from slm_core.config.layers import LayerSpec, layer_specs, resolve
from slm_core.model.initialization import HEAD_BIAS, embedding, head
from slm_core.model.mup import logit_factor
from slm_core.quantization.formats import Declared
from slm_torch.layers import ATTENTION, KERNEL, MIXER, MLP, NORM, POSITION
from slm_torch.layers.cache import Cache
from slm_torch.layers.documents import Documents
from slm_torch.layers.dropout import Dropout, DropoutKey
from slm_torch.layers.linear import Embedding, Linear
from slm_torch.layers.lora import adapt
from slm_torch.layers.placement import PLACEMENT
from slm_torch.numerics import DTYPES, wide
from slm_torch.params import declare, specs
from slm_torch.remat import Stream, run


class Block(nn.Module):
    """One layer: a mixer, which is attention by default, and an MLP on the residual stream.

    Args:
      layer: the layer's spec.
      index: of the layer, counted from 0.
      context: the largest number of positions.
      gives_values: whether later layers mix in this layer's values.
    """

    def __init__(self, layer: LayerSpec, index: int, context: int, gives_values: bool):
        super().__init__()
        attends, position = layer.mixer.kind == "attention", partial(position_at, layer=layer, context=context)
        kernel = KERNEL[layer.attention.kernel]
        self.attention: Any = ATTENTION[layer.attention.kind](layer, index, kernel, position) if attends else None
        self.mixer: Any = None if attends else MIXER[layer.mixer.kind](layer, context)
        self.attention_dropout = Dropout(layer.dropout, site=0)
        self.mlp: Any = MLP[layer.mlp.kind](layer)
        self.mlp_dropout = Dropout(layer.dropout, site=1)
        self.placement, norms = PLACEMENT[layer.norm.placement]
        norm = {name: NORM[layer.norm.kind](layer.d_model, layer.norm) for name in norms if self.has(name)}
        self.attention_norm: Any = norm.get("attention")
        self.attention_output_norm: Any = norm.get("attention_output")
        self.mlp_norm: Any = norm.get("mlp")
        self.mlp_output_norm: Any = norm.get("mlp_output")
        self.residual_multiplier = layer.residual_multiplier
        self.gives_values = gives_values

    def forward(
        self,
        stream: Stream,
        start: int,
        key: DropoutKey | None,
        cache: Cache | None,
        documents: Documents | None = None,
    ) -> Stream:
        """Computes the stream after this layer.

        Args:
          stream: the stream before this layer.
          start: position of the first token.
          key: turns dropout on.
          cache: of this layer; extended in place.
          documents: of packed sequences, which are kept apart.
        """
        first_values, auxiliary_loss = stream.first_values, stream.auxiliary_loss

        def mix(y: Tensor) -> Tensor:
            nonlocal first_values
            if self.mixer is not None:
                return self.attention_dropout(self.mixer(y, start, cache, documents), key)
            y, values = self.attention(y, start, cache, first_values, documents)
            if self.gives_values:
                first_values = values
            return self.attention_dropout(y, key)

        def feed(y: Tensor) -> Tensor:
            nonlocal auxiliary_loss
            y, mlp_loss = self.mlp(y)
            auxiliary_loss = auxiliary_loss + mlp_loss
            return self.mlp_dropout(y, key)

        x = self.placement(self, stream.x, mix, None if self.mlp is None else feed)
        return Stream(x, first_values, auxiliary_loss)

    def has(self, half: str) -> bool:
        """Returns whether the block has the half that a norm is of."""
        return self.mlp is not None or not half.startswith("mlp")

    def add(
        self, x: Float[Tensor, "batch time d_model"], y: Float[Tensor, "batch time d_model"]
    ) -> Float[Tensor, "batch time d_model"]:
        """Adds `y`, times model.residual_multiplier, to the residual stream `x`."""
        return x + y if self.residual_multiplier == 1 else x + self.residual_multiplier * y

    def empty_cache(self, batch: int, context: int, dtype: torch.dtype, device: torch.device) -> Cache:
        """Makes an empty cache: of attention, with room for `context` positions, or the first state of a recurrence."""
        if self.mixer is not None:
            return self.mixer.empty_cache(batch, dtype, device)
        return self.attention.empty_cache(batch, context, dtype, device)


class Transformer(nn.Module):
    """Computes the final hidden state of each token; `logits` is apart, so that a loss can call it in chunks.

    The constructor declares the parameters, without storage.

    Args:
      config: the resolved config.
      vocab_size: number of token ids.
      dtype: the compute dtype.
    """

    def __init__(self, config: Config, vocab_size: int, dtype: torch.dtype):
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
        self.head_bias = declare((vocab_size,), HEAD_BIAS) if model.head_bias else None
        self.logit_factor, self.logit_softcap = logit_factor(model), model.logit_softcap
        self.z_loss = model.z_loss
        self.adapter_plan = adapt(self, config.finetune) if config.finetune.kind == "lora" else None
        self.remat = config.memory.remat
        self.context, self.document_mask = context, config.data.document_mask

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        start: int = 0,
        key: DropoutKey | None = None,
        caches: list[Cache] | None = None,
        documents: Documents | None = None,
    ) -> tuple[Float[Tensor, "batch time d_model"], Float[Tensor, ""] | float]:
        """Computes the normed hidden state, and the layers' auxiliary loss per token.

        Args:
          tokens: ids at positions start, start + 1, ...
          start: position of the first token; above 0 only with caches.
          key: turns dropout on; not with caches.
          caches: one per layer, from `empty_caches`, with the positions before `start`; extended in place.
          documents: of packed sequences, which are kept apart; not with caches.
        """
        x = self.embed(tokens)
        if self.embed_scale != 1:
            x = x * self.embed_scale
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        if self.position is not None:
            x = self.position(x, start, documents)
        stream = Stream(self.dropout(x, key), None, 0.0)
        if caches is None:
            stream = run(self.layers, self.remat, stream, start, key, documents)
        else:
            for layer, cache in zip(self.layers, caches, strict=True):
                stream = layer(stream, start, None, cache)
        x = stream.x if self.final_norm is None else self.final_norm(stream.x)
        return x, stream.auxiliary_loss

    def logits(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Computes the logits of the next token, float32 or wider.

            logits = cap tanh((factor h W + b) / cap)

        W is the head or the transposed embedding; b exists with model.head_bias, and the cap with model.logit_softcap.
        """
        logits = hidden @ self.embed.weight.to(hidden.dtype).T if self.head is None else self.head(hidden)
        logits = logits.to(wide(logits.dtype))
        if self.logit_factor != 1:
            logits = logits * self.logit_factor
        if self.head_bias is not None:
            logits = logits + self.head_bias.to(logits.dtype)
        return self.logit_softcap * torch.tanh(logits / self.logit_softcap) if self.logit_softcap else logits

    def empty_caches(self, batch: int, dtype: torch.dtype, device: torch.device) -> list[Cache]:
        """Makes one empty cache per layer, with room for the whole context."""
        # pyrefly: ignore[not-callable]  torch's ModuleList does not say what its modules are
        return [layer.empty_cache(batch, self.context, dtype, device) for layer in self.layers]


def position_at(site: str, layer: LayerSpec, context: int) -> nn.Module | None:
    """Makes the layer's position component if it acts at `site`, else None.

    Sites: the "embedding", the "heads" (queries and keys) or the "scores".
    """
    kind = POSITION[layer.position.kind]
    return kind(layer, context) if kind.site == site else None


def declared(config: Config, vocab_size: int) -> Declared:
    """Lists {canonical name: (shape, spec)} of the parameters of a config's model, built without storage."""
    return specs(Transformer(config, vocab_size, DTYPES["float32"]))
