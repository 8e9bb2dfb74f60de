"""Norms, their forms, and their places in a block."""

from collections.abc import Callable

from torch import Tensor

from faults.fault import Fault, changed, edited
from slm_torch.layers.placement import output, post, pre

MLP_NORM = "model.layers.0.mlp_norm"


def mean(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


def written_out(normalise: Callable[[Tensor, float], Tensor]) -> Callable:
    """Returns a change of LayerNorm's forward: its kernel written out, with another `normalise(x, eps)`."""

    def change(original: Callable) -> Callable:
        norm = original.__self__
        return lambda x: normalise(x, norm.eps) * norm.weight + norm.bias

    return change


FAULTS = {
    "no gradient through the mean": Fault(
        changed(f"{MLP_NORM}.forward", written_out(
            lambda x, eps: (x - mean(x).detach()) * (mean((x - mean(x)).square()) + eps).rsqrt())),
        "layernorm", "dense", "gradients", "layers.0.mlp_norm",
    ),
    "no mean subtracted": Fault(
        changed(f"{MLP_NORM}.forward", written_out(lambda x, eps: x * (mean(x.square()) + eps).rsqrt())),
        "layernorm", "dense", "logits", "layers.0.mlp_norm",
    ),
    "the unbiased variance": Fault(
        changed(f"{MLP_NORM}.forward", written_out(
            lambda x, eps: (x - mean(x)) * (x.var(-1, keepdim=True) + eps).rsqrt())),
        "layernorm", "dense", "logits", "layers.0.mlp_norm",
    ),
    "another epsilon": Fault(
        changed("model.layers.1.mlp_norm.eps", lambda eps: eps / 10),
        "norm.eps", "dense", "logits", "layers.1.mlp_norm",
    ),
    "epsilon added to the root": Fault(
        edited("model.layers.0.mlp_norm.normalised", "torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)",
               "1 / (y.square().mean(-1, keepdim=True).sqrt() + self.eps)"),
        "rmsnorm", "catalogue", "logits", "layers.0.mlp_norm",
    ),
    "the sum of squares": Fault(
        edited("model.final_norm.normalised", "y.square().mean", "y.square().sum"),
        "rmsnorm", "catalogue", "logits", "final_norm",
    ),
    "no gradient through the statistics": Fault(
        edited("model.layers.0.mlp_norm.normalised", "torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)",
               "torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps).detach()"),
        "rmsnorm", "catalogue", "gradients", "layers.0.mlp_norm",
    ),
    "weight forgotten": Fault(
        edited("model.layers.0.mlp_norm.forward", "y * scale", "y * (scale * 0 + 1)"),
        "weight=scale", "zoo", "logits", "layers.0.mlp_norm",
    ),
    "1 + w forgotten": Fault(
        changed("model.layers.1.mlp_norm.form", lambda form: "scale"),
        "weight=one_plus", "catalogue", "logits", "layers.1.mlp_norm",
    ),
    "bias forgotten": Fault(
        edited("model.layers.1.attention_norm.forward", "_cast(self.bias, dtype)", "_cast(0 * self.bias, dtype)"),
        "norm.bias", "dense", "logits", "layers.1.attention_norm",
    ),
    "one alpha for tanh and weight": Fault(
        edited("model.layers.0.mlp_norm.forward", "torch.tanh(self.alpha * x.to(wide(x.dtype))) * self.weight",
               "torch.tanh(self.alpha * x.to(wide(x.dtype))) * self.weight / self.alpha"),
        "dyt", "dyt", "logits", "layers.0.mlp_norm",
    ),
    "alpha never learned": Fault(
        edited("model.layers.0.attention_norm.forward", "self.alpha", "self.alpha.detach() + 0 * self.alpha"),
        "norm.alpha", "dyt", "gradients", "layers.0.attention_norm",
    ),
    "the norm after the sum": Fault(
        changed("model.layers.0.placement", lambda original: post),
        "placement=pre", "dense", "logits", "layers.0",
    ),
    "the norm before the sum": Fault(
        changed("model.layers.1.placement", lambda original: output),
        "placement=post", "rotations", "logits", "layers.1",
    ),
    "norms of the outputs after the sum": Fault(
        edited("model.layers.1.placement", "block.add(x, block.mlp_output_norm(feed(block.mlp_norm(x))))",
               "block.mlp_output_norm(block.add(x, feed(block.mlp_norm(x))))"),
        "placement=sandwich", "catalogue", "logits", "layers.1",
    ),
    "the norm of the inputs": Fault(
        changed("model.layers.1.placement", lambda original: pre),
        "placement=output", "zoo", "logits", "layers.1",
    ),
    "one after the other": Fault(
        changed("model.layers.0.placement", lambda original: pre),
        "placement=parallel", "mixtures", "logits", "layers.0",
    ),
    "the MLP without a norm": Fault(
        edited("model.layers.0.placement", "feed(y)", "feed(x)"),
        "placement=parallel_shared", "lion", "logits", "layers.0",
    ),
    "residual multiplier forgotten": Fault(
        changed("model.layers.1.residual_multiplier", lambda multiplier: 1),
        "residual_multiplier", "dense", "logits", "layers.1",
    ),
    "the stream multiplied, too": Fault(
        edited("model.layers.0.add", "x + self.residual_multiplier * y", "self.residual_multiplier * (x + y)"),
        "residual_multiplier", "dense", "logits", "layers.0",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
