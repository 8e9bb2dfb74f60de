"""The decoder-only transformer: embedding, blocks, norm, head."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from slm_core.config import Config, Model
from slm_core.params import embedding, matrix
from slm_core.pattern import layer_models
from slm_torch.layers import ATTENTION, KERNEL, MLP, NORM, POSITION
from slm_torch.layers.dropout import Dropout, DropoutKey
from slm_torch.layers.gqa import Cache
from slm_torch.layers.linear import Embedding, Linear
from slm_torch.numerics import wide


class Block(nn.Module):
    """Attention and MLP on the residual stream; `model` is this layer's, with its pattern applied."""

    def __init__(self, model: Model, index: int, context: int):
        super().__init__()
        position = position_at("attention", model, context)
        self.attention = ATTENTION[model.attention.kind](model, KERNEL[model.attention.kernel], position)
        self.attention_norm = NORM[model.norm.kind](model.d_model, model.norm)
        self.attention_dropout = Dropout(model.dropout, site=2 * index + 1)
        self.mlp = MLP[model.mlp.kind](model)
        self.mlp_norm = NORM[model.norm.kind](model.d_model, model.norm)
        self.mlp_dropout = Dropout(model.dropout, site=2 * index + 2)
        self.residual = RESIDUAL[model.norm.placement]

    def forward(
        self,
        x: Float[Tensor, "batch time d_model"],
        start: int,
        key: DropoutKey | None,
        cache: Cache | None,
    ) -> Float[Tensor, "batch time d_model"]:
        x = self.residual(
            x, self.attention_norm, lambda y: self.attention_dropout(self.attention(y, start, cache), key)
        )
        return self.residual(x, self.mlp_norm, lambda y: self.mlp_dropout(self.mlp(y), key))


RESIDUAL = {
    "pre": lambda x, norm, f: x + f(norm(x)),
    "post": lambda x, norm, f: norm(x + f(x)),
}


class Transformer(nn.Module):
    """Tokens to the final hidden state; `logits` goes on from there, so that a loss can take it in chunks."""

    def __init__(self, config: Config, vocab_size: int, dtype: torch.dtype):
        """Declares the parameters, without storage. `dtype` is the compute dtype."""
        super().__init__()
        model, context = config.model, config.data.seq_len
        self.embed = Embedding(vocab_size, model.d_model, embedding(model), dtype)
        self.embed_scale = model.embed_scale
        self.position = position_at("embedding", model, context)
        self.dropout = Dropout(model.dropout, site=0)
        self.layers = nn.ModuleList(Block(layer, i, context) for i, layer in enumerate(layer_models(model)))
        self.final_norm = NORM[model.norm.kind](model.d_model, model.norm) if model.norm.placement == "pre" else None
        self.head = None if model.tie_embeddings else Linear(model.d_model, vocab_size, matrix(model), bias=False)
        self.logit_softcap = model.logit_softcap
        self.remat = config.memory.remat
        self.context = context

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        start: int = 0,
        key: DropoutKey | None = None,
        caches: list[Cache] | None = None,
    ) -> Float[Tensor, "batch time d_model"]:
        """Returns the normed hidden state.

        Args:
          tokens: ids at positions start, start + 1, ...
          start: position of the first token; above 0 only with caches.
          key: turns dropout on.
          caches: one a layer, from `empty_caches`, holding the positions before `start`; extended in place.
        """
        x = self.embed(tokens)
        if self.embed_scale != 1:
            x = x * self.embed_scale
        if self.position is not None:
            x = self.position(x, start)
        x = self.dropout(x, key)
        for i, layer in enumerate(self.layers):
            cache = None if caches is None else caches[i]
            if self.remat == "block" and torch.is_grad_enabled():
                x = checkpoint(layer, x, start, key, cache, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, start, key, cache)
        return x if self.final_norm is None else self.final_norm(x)

    def logits(self, hidden: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch vocab"]:
        """Returns the logits of the next token, float32 or wider."""
        logits = hidden @ self.embed.weight.to(hidden.dtype).T if self.head is None else self.head(hidden)
        logits = logits.to(wide(logits.dtype))
        return self.logit_softcap * torch.tanh(logits / self.logit_softcap) if self.logit_softcap else logits

    def empty_caches(self, batch: int, dtype: torch.dtype, device: torch.device) -> list[Cache]:
        """Returns one empty cache a layer, with room for the whole context."""
        return [layer.attention.empty_cache(batch, self.context, dtype, device) for layer in self.layers]


def position_at(site: str, model: Model, context: int) -> nn.Module | None:
    """Returns the model's position component if it acts at `site` ("embedding" or "attention"), else None."""
    kind = POSITION[model.position.kind]
    return kind(model, context) if kind.site == site else None
