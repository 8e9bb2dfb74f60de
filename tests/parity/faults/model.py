"""The stack of blocks: parameters, precision, embedding, residual stream, logits and loss."""

import numpy as np

import slm_torch.params
from faults.fault import Fault, changed, edited, option
from slm_core.model.initialization import Spec, matrix

STREAM = "model.forward"
LOSS = "slm_torch.loss"


def in_the_order_of_construction(initialise):
    """Draws all weights from one generator, whatever their names."""

    def broken(model, seed, dtype, device):
        generator = np.random.default_rng(seed)
        declared = slm_torch.params.specs(model)
        values = {
            n: spec.constant + spec.std * generator.standard_normal(shape) for n, (shape, spec) in declared.items()
        }
        return slm_torch.params.fill(model, values.items(), dtype, device)

    return broken


FAULTS = {
    # Parameters. Faults of initial weights: the engine is built again.
    "weights in the order of construction": Fault(
        changed("slm_torch.params:initialise", in_the_order_of_construction),
        "init by name", "dense", "initial_weights", "embed",
    ),
    "weights drawn in float32": Fault(
        edited("slm_torch.params:initialise", "initial_value(name, shape, spec, seed)",
               "initial_value(name, shape, spec, seed).astype('float32')"),
        "init in float64", "dense", "initial_weights", "embed",
    ),
    "the framework's embeddings": Fault(
        changed("slm_torch.model:embedding", lambda original: lambda model: Spec("embedding", std=1.0)),
        "init_std", "dense", "initial_weights", "embed",
    ),
    "projections into the stream as any other": Fault(
        changed("slm_torch.layers.dense:residual_matrix", lambda original: matrix),
        "depth_scaled_init", "dense", "initial_weights", "layers.0.mlp.down_proj",
    ),
    "1 + w from 1": Fault(
        option("slm_torch.layers.rmsnorm:NORM_WEIGHT", "one_plus", Spec("norm", constant=1.0)),
        "init of norms", "catalogue", "initial_weights", "final_norm",
    ),
    "mixing weights of 1": Fault(
        changed("slm_torch.layers.value_residual:HALF", lambda original: Spec("scalar", constant=1.0)),
        "init of scalars", "dense", "initial_weights", "layers.1.attention.value_residual",
    ),
    "muP's widths forgotten": Fault(
        changed("slm_torch.layers.dense:matrix", lambda original: lambda model: Spec("matrix", std=model.init_std)),
        "muP init", "adamw", "initial_weights", "layers.0.mlp.up_proj",
    ),
    # Precision: always float32, though the rule is "float32 or wider".
    "norm in float32": Fault(
        edited("model.layers.0.mlp_norm.forward", "x.to(wide(x.dtype))", "x.float()"),
        "wide norms", "catalogue", "logits", "layers.0.mlp_norm",
    ),
    "norm in float16": Fault(
        changed("slm_torch.layers.rmsnorm:wide", lambda original: lambda dtype: dtype),
        "wide norms", "half", "loss_curve", "layers.0.attention_norm",
    ),
    "softmax in float32": Fault(
        edited("model.layers.0.attention.attend.kernel", "wide_product(q, k.mT)", "(q @ k.mT).float()"),
        "wide softmax", "dense", "logits", "layers.0.attention.attend",
    ),
    "rotation in float32": Fault(
        edited("model.layers.0.attention.position.forward", "dtype = wide(x.dtype)", "dtype = torch.float32"),
        "wide rotation", "dense", "logits", "layers.0.attention.position",
    ),
    "router in float32": Fault(
        edited("model.layers.1.mlp.route", "x.to(wide(x.dtype))", "x.float()"),
        "wide router", "mixtures", "logits", "layers.1.mlp",
    ),
    "logits in float32": Fault(
        edited("model.logits", "logits.to(wide(logits.dtype))", "logits.float()"),
        "wide logits", "dense", "logits", "logits",
    ),
    "loss in float32": Fault(
        edited(f"{LOSS}:token_losses", "_TokenLosses.apply(logits, targets)",
               "_TokenLosses.apply(logits.float(), targets)"),
        "wide loss", "dense", "gradients", "loss",
    ),
    # The stream.
    "embedding not scaled": Fault(
        changed("model.embed_scale", lambda original: 1), "embed_scale", "dense", "logits", "model",
    ),
    "embedding not normed": Fault(
        edited(STREAM, "x = self.embed_norm(x)", "x = x * self.embed_norm.weight + self.embed_norm.bias"),
        "embed_norm", "dense", "logits", "model",
    ),
    "embedding added twice": Fault(
        edited(STREAM, "x = self.position(x, start, documents)", "x = x + self.position(x, start, documents)"),
        "embedding", "catalogue", "logits", "model",
    ),
    "dropout before the position": Fault(
        edited(STREAM, "    if self.position is not None:\n        x = self.position(x, start, documents)\n"
               "    stream = Stream(self.dropout(x, key), None, 0.0)",
               "    stream = Stream(self.position(self.dropout(x, key), start, documents), None, 0.0)"),
        "embedding", "catalogue", "update", "model",
    ),
    "embedding's rows cut off from the gradient": Fault(
        edited(STREAM, "x = self.embed(tokens)", "x = self.embed(tokens).detach()"),
        "embedding", "dense", "gradients", "model",
    ),
    "a layer without its pattern": Fault(
        option("model.layers.2.attention.attend.options", "window", 0),
        "pattern", "catalogue", "logits", "layers.2.attention.attend",
    ),
    "no final norm": Fault(
        edited(STREAM, "self.final_norm(stream.x)", "stream.x * (1 + self.final_norm.weight)"),
        "final norm", "catalogue", "logits", "model",
    ),
    "a head of its own for the gradient": Fault(
        edited("model.logits", "self.embed.weight.to(hidden.dtype)", "self.embed.weight.detach()"),
        "tie_embeddings", "dense", "gradients", "logits",
    ),
    "logit multiplier forgotten": Fault(
        changed("model.logit_factor", lambda original: 1), "logit_multiplier", "dense", "logits", "logits",
    ),
    "bias of the logits multiplied, too": Fault(
        edited("model.logits", "self.head_bias.to(logits.dtype)",
               "self.logit_factor * self.head_bias.to(logits.dtype)"),
        "head_bias", "dense", "logits", "logits",
    ),
    "bias of the logits after the cap": Fault(
        edited("model.logits", "torch.tanh(logits / self.logit_softcap)",
               "torch.tanh((logits - self.head_bias) / self.logit_softcap) + self.head_bias"),
        "head_bias", "dense", "logits", "logits",
    ),
    "multiplied after the cap": Fault(
        edited("model.logits", "torch.tanh(logits / self.logit_softcap)",
               "torch.tanh(logits / self.logit_factor / self.logit_softcap) * self.logit_factor"),
        "logit_softcap", "dense", "logits", "logits",
    ),
    "cap of the logits forgotten": Fault(
        changed("model.logit_softcap", lambda original: 0.0), "logit_softcap", "dense", "logits", "logits",
    ),
    "muP logits not scaled": Fault(
        changed("model.logit_factor", lambda original: 1), "muP logits", "lion", "logits", "logits",
    ),
    # Recomputation: what a backward pass computes again.
    "a block computed again with another input": Fault(
        edited("model.layers.0.mlp.forward", "self.up_proj(x)",
               "self.up_proj(x * (1 + 1e-6 * (__import__('torch')._C._current_graph_task_id() != -1)))"),
        "remat=block", "lion", "gradients", "model",
    ),
    "dropout drawn anew in recomputation": Fault(
        edited("model.layers.1.mlp_dropout.forward", "key.sites[self.site]",
               "key.sites[self.site - (torch._C._current_graph_task_id() != -1)]"),
        "remat=full", "dense", "update", "model",
    ),
    "another dropout beside products that are kept": Fault(
        edited("model.layers.1.attention_dropout.forward", "key.sites[self.site]",
               "key.sites[self.site + (torch._C._current_graph_task_id() != -1)]"),
        "remat=attention", "catalogue", "update", "model",
    ),
    # The loss.
    "targets not shifted": Fault(
        edited("slm_torch.trainer:batch_losses", "tokens[:, 1:]", "tokens[:, :-1]"),
        "targets", "dense", "gradients", "loss",
    ),
    "IGNORE counted": Fault(
        edited(f"{LOSS}:token_losses", "_TokenLosses.apply(logits, targets)",
               "_TokenLosses.apply(logits, targets.clamp(min=0))"),
        "IGNORE", "dense", "gradients", "loss",
    ),
    "an unscored token is not read": Fault(
        edited(f"{LOSS}:input_ids", "torch.maximum(tokens, unscored(tokens))", "tokens"),
        "unscored", "dense", "logits", "loss",
    ),
    "an unscored token counts": Fault(
        edited(f"{LOSS}:target_ids", "tokens.clamp(min=IGNORE)", "torch.maximum(tokens, unscored(tokens))"),
        "unscored", "dense", "gradients", "loss",
    ),
    "z-loss forgotten": Fault(changed("model.z_loss", lambda original: 0.0), "z_loss", "dense", "gradients", "loss"),
    "z-loss of tokens without a target": Fault(
        edited(f"{LOSS}:sums", "torch.where(targets == IGNORE, 0, logits.logsumexp(-1).square())",
               "logits.logsumexp(-1).square()"),
        "z_loss", "dense", "gradients", "loss",
    ),
    "auxiliary loss of tokens without a target": Fault(
        edited(f"{LOSS}:loss_sums", "(targets != IGNORE).sum()", "targets.numel()"),
        "auxiliary losses", "catalogue", "gradients", "loss",
    ),
    "auxiliary loss of the last layer only": Fault(
        edited("model.layers.3.forward", "auxiliary_loss = auxiliary_loss + mlp_loss", "auxiliary_loss = mlp_loss"),
        "auxiliary losses", "mixtures", "gradients", "layers.3",
    ),
    "the last chunk dropped": Fault(
        edited(f"{LOSS}:loss_sums",
               "[checkpoint(piece_sums, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in pieces]",
               "[checkpoint(piece_sums, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in"
               " list(pieces)[:-1]]"),
        "memory.loss_chunk", "dense", "gradients", "loss",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
