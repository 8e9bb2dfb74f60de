"""Attention: scores, masks, and the parts around them."""

import torch

from faults.fault import Fault, changed, edited, option

FIRST = "model.layers.0.attention"
KERNEL = "slm_torch.layers.dot_product:dot_product"

FAULTS = {
    "kv heads in the wrong order": Fault(
        edited(f"{FIRST}.attend.kernel", '"b t (g r) d -> b g r t d"', '"b t (r g) d -> b g r t d"'),
        "gqa", "dense", "logits", "layers.0.attention.attend",
    ),
    "queries projected by the keys' order of heads": Fault(
        edited(f"{FIRST}.forward", "self.q_proj(x).unflatten(-1, (self.heads, self.head_dim))",
               "self.q_proj(x).unflatten(-1, (self.head_dim, self.heads)).mT"),
        "gqa", "dense", "logits", "layers.0.attention",
    ),
    "scale forgotten": Fault(
        option(f"{FIRST}.attend.options", "scale", 1.0),
        "attention.scale", "dense", "logits", "layers.0.attention.attend",
    ),
    "scale by the width, not its root": Fault(
        option("model.layers.3.attention.attend.options", "scale", 1 / 8),
        "default scale", "zoo", "logits", "layers.3.attention.attend",
    ),
    "scale without the rotary part's width": Fault(
        option("model.layers.1.attention.attend.options", "scale", 8**-0.5),
        "default scale", "catalogue", "logits", "layers.1.attention.attend",
    ),
    "muP scale of 1 / sqrt(width)": Fault(
        option(f"{FIRST}.attend.options", "scale", 8**-0.5),
        "muP scores", "lion", "logits", "layers.0.attention.attend",
    ),
    "cosines divided by sqrt(width)": Fault(
        option("model.layers.1.attention.attend.options", "scale", 12**-0.5),
        "qk_norm=l2", "rotations", "logits", "layers.1.attention.attend",
    ),
    "sees the next token": Fault(
        edited("slm_torch.layers.dot_product:visible", "distance >= 0", "distance >= -1"),
        "mask", "dense", "logits", "layers.0.attention.attend",
    ),
    "mask of a score of 0": Fault(
        edited(f"{FIRST}.attend.kernel", "torch.where(mask, scores, MASKED)", "torch.where(mask, scores, 0)"),
        "mask", "dense", "logits", "layers.0.attention.attend",
    ),
    "window one wider": Fault(
        option("model.layers.1.attention.attend.options", "window", 6),
        "attention.window", "dense", "logits", "layers.1.attention.attend",
    ),
    "cap forgotten": Fault(
        option(f"{FIRST}.attend.options", "softcap", 0.0),
        "attention.softcap", "dense", "logits", "layers.0.attention.attend",
    ),
    "cap before the scale": Fault(
        edited(f"{FIRST}.attend.kernel", "softcap * torch.tanh(scores / softcap)",
               "softcap * torch.tanh(scores / scale / softcap) * scale"),
        "attention.softcap", "dense", "logits", "layers.0.attention.attend",
    ),
    "sinks missing in the denominator": Fault(
        edited("model.layers.2.attention.attend.kernel",
               "torch.softmax(torch.cat([scores, sink], dim=-1), dim=-1)[..., :-1]",
               "torch.softmax(scores + 0 * sink, dim=-1)"),
        "attention.sinks", "catalogue", "logits", "layers.2.attention.attend",
    ),
    "sinks scaled like scores": Fault(
        edited("model.layers.2.attention.attend.kernel", 'rearrange(sinks, "(g r) -> g r 1 1", r=scores.shape[2])',
               'rearrange(sinks * scale, "(g r) -> g r 1 1", r=scores.shape[2])'),
        "attention.sinks", "catalogue", "logits", "layers.2.attention.attend",
    ),
    "no bias of the queries": Fault(
        edited(f"{FIRST}.q_proj.forward", "y + self.bias.to(x.dtype)", "y + 0 * self.bias"),
        "attention.bias", "dense", "logits", "layers.0.attention.q_proj",
    ),
    "no bias of the output": Fault(
        edited(f"{FIRST}.o_proj.forward", "y + self.bias.to(x.dtype)", "y + 0 * self.bias"),
        "attention.output_bias", "dense", "logits", "layers.0.attention.o_proj",
    ),
    "a matrix of [out, in]": Fault(
        edited("model.layers.1.attention.gate.gate_proj.product", "self.weight.to(x.dtype)",
               "self.weight.reshape(self.weight.shape[::-1]).mT"),
        "linear map", "dense", "logits", "layers.1.attention.gate.gate_proj",
    ),
    "queries not normed": Fault(
        edited(f"{FIRST}.q_norm.forward", "self.norm(x)", "x * self.norm.weight"),
        "qk_norm=rmsnorm", "dense", "logits", "layers.0.attention.q_norm",
    ),
    "normed after the position": Fault(
        edited(f"{FIRST}.forward",
               "if self.q_norm is not None:\n"
               "    q = self.q_norm(q)\n"
               "if self.k_norm is not None:\n"
               "    k = self.k_norm(k)\n"
               "if self.position is not None:\n"
               "    q, k = (self.position(q, start, documents), self.position(k, start, documents))",
               "if self.q_norm is not None:\n"
               "    q = self.q_norm(self.position(q, start, documents))\n"
               "    k = self.k_norm(self.position(k, start, documents))"),
        "position after QK-norm", "dense", "logits", "layers.0.attention",
    ),
    "length 1 by the mean": Fault(
        edited("model.layers.2.attention.q_norm.norm.forward", "y.square().sum", "y.square().mean"),
        "qk_norm=l2", "zoo", "logits", "layers.2.attention.q_norm.norm",
    ),
    "all heads normed at once": Fault(
        edited(f"{FIRST}.q_norm.forward", "self.norm(x)",
               "x * torch.rsqrt(x.square().mean((-2, -1), keepdim=True) + self.norm.eps) * self.norm.weight"),
        "qk_norm_over=head", "dense", "logits", "layers.0.attention.q_norm",
    ),
    "each head normed by itself": Fault(
        edited("model.layers.5.attention.q_norm.forward", "self.norm(x.flatten(-2)).view(x.shape)",
               "x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.norm.eps)"
               " * self.norm.weight.view(x.shape[-2:])"),
        "qk_norm_over=whole", "zoo", "logits", "layers.5.attention.q_norm",
    ),
    "gate of a head without a sigmoid": Fault(
        edited(f"{FIRST}.gate.forward", "torch.sigmoid(self.gate_proj(x))", "self.gate_proj(x)"),
        "gate=head", "dense", "logits", "layers.0.attention.gate",
    ),
    "gates of elements in the order [width, heads]": Fault(
        edited("model.layers.2.attention.gate.forward", "torch.sigmoid(self.gate_proj(x)).unflatten(-1, self.gates)",
               "torch.sigmoid(self.gate_proj(x)).unflatten(-1, self.gates[::-1]).mT"),
        "gate=element", "zoo", "logits", "layers.2.attention.gate",
    ),
    "values mixed the other way": Fault(
        edited("model.layers.1.attention.value_residual.forward", "a * v + b * first",
               "b * v + a * first"),
        "attention.value_residual", "dense", "logits", "layers.1.attention.value_residual",
    ),
    "the first layer's values cut off from the gradient": Fault(
        edited("model.layers.1.attention.value_residual.forward", "b * first", "b * first.detach()"),
        "attention.value_residual", "dense", "gradients", "layers.1.attention.value_residual",
    ),
    "the previous layer's values": Fault(
        changed("model.layers.1.gives_values", lambda gives: True),
        "attention.value_residual", "catalogue", "logits", "layers.1",
    ),
    "the rotary part first": Fault(
        edited("model.layers.1.attention._queries", "q[..., : self.head_dim], q[..., self.head_dim :]",
               "q[..., self.rope_dim :], q[..., : self.rope_dim]"),
        "mla", "catalogue", "logits", "layers.1.attention",
    ),
    "the queries' latent not normed": Fault(
        edited("model.layers.1.attention.q_latent_norm.normalised",
               "y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)", "y"),
        "mla", "catalogue", "logits", "layers.1.attention.q_latent_norm",
    ),
    "the latent not normed": Fault(
        edited("model.layers.1.attention.kv_latent_norm.normalised",
               "y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)", "y"),
        "mla", "catalogue", "logits", "layers.1.attention.kv_latent_norm",
    ),
    "the shared rotary part not rotated": Fault(
        edited("model.layers.1.attention.forward", "self.position(k_rope, start, documents)", "k_rope"),
        "mla", "catalogue", "logits", "layers.1.attention",
    ),
    "keys without position not normed": Fault(
        edited("model.layers.1.attention.forward", "k = self.k_norm(k)", "k = k * self.k_norm.norm.weight"),
        "mla", "catalogue", "logits", "layers.1.attention",
    ),
    "the second map added": Fault(
        edited(f"{FIRST}.forward", "y_1 - self._lambda().to(x.dtype) * y_2", "y_1 + self._lambda().to(x.dtype) * y_2"),
        "differential", "catalogue", "logits", "layers.0.attention",
    ),
    "lambda of layers counted from 1": Fault(
        changed(f"{FIRST}.lambda_init", lambda init: 0.8 - 0.6 * torch.tensor(-0.3).exp().item()),
        "differential", "catalogue", "logits", "layers.0.attention",
    ),
    "not scaled by 1 - init": Fault(
        edited(f"{FIRST}.forward", "self.head_norm(y_1 - self._lambda().to(x.dtype) * y_2) * (1 - self.lambda_init)",
               "self.head_norm(y_1 - self._lambda().to(x.dtype) * y_2)"),
        "differential", "catalogue", "logits", "layers.0.attention",
    ),
    "exponentials of lambda's terms summed": Fault(
        edited(f"{FIRST}._lambda", "torch.exp((self.lambda_q1 * self.lambda_k1).sum())",
               "torch.exp(self.lambda_q1 * self.lambda_k1).sum()"),
        "differential", "catalogue", "logits", "layers.0.attention",
    ),
    "maps of neighbouring heads": Fault(
        edited(f"{FIRST}.forward", "q[:, :, self.heads :]", "q[:, :, 1::2]"),
        "differential", "catalogue", "logits", "layers.0.attention",
    ),
    "the output's norm over all heads": Fault(
        edited(f"{FIRST}.head_norm.normalised", "y.square().mean(-1, keepdim=True)",
               "y.square().mean((-2, -1), keepdim=True)"),
        "differential", "catalogue", "logits", "layers.0.attention.head_norm",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
