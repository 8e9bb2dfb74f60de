"""MLPs and mixtures of experts."""

from faults.fault import Fault, changed, edited

FAULTS = {
    "the tanh approximation": Fault(
        changed("model.layers.0.mlp.approximate", lambda original: "tanh"),
        "gelu=erf", "dense", "logits", "layers.0.mlp",
    ),
    "the error function": Fault(
        changed("model.layers.4.mlp.approximate", lambda original: "none"),
        "gelu=tanh", "zoo", "logits", "layers.4.mlp",
    ),
    "x sigmoid(1.702 x)": Fault(
        edited("model.layers.1.mlp.activation", "gelu(x, approximate=self.approximate)",
               "x * (1.702 * x).sigmoid()"),
        "gelu", "dense", "logits", "layers.1.mlp",
    ),
    "no bias of the MLP": Fault(
        edited("model.layers.0.mlp.down_proj.forward", "y + self.bias.to(x.dtype)", "y + 0 * self.bias"),
        "mlp.bias", "dense", "logits", "layers.0.mlp.down_proj",
    ),
    "a slope below 0": Fault(
        edited("model.layers.5.mlp.activation", "torch.relu(x)", "torch.nn.functional.leaky_relu(x)"),
        "relu", "zoo", "logits", "layers.5.mlp",
    ),
    "a block without an MLP adds its stream twice": Fault(
        edited("model.layers.3.placement", "return x if feed is None else block.add(x, feed(block.mlp_norm(x)))",
               "return 2 * x if feed is None else block.add(x, feed(block.mlp_norm(x)))"),
        "none", "deltas", "logits", "layers.3",
    ),
    "not squared": Fault(
        edited("slm_torch.layers.relu2:relu2", "torch.relu(x).square()", "torch.relu(x)"),
        "relu2", "zoo", "logits", "layers.0.mlp",
    ),
    "squared before the ReLU": Fault(
        edited("slm_torch.layers.relu2:relu2", "torch.relu(x).square()", "torch.relu(x.square())"),
        "relu2", "zoo", "logits", "layers.0.mlp",
    ),
    "gate and up exchanged": Fault(
        edited("slm_torch.layers.swiglu:swiglu", "silu(gate) * up", "silu(up) * gate"),
        "swiglu", "zoo", "logits", "layers.3.mlp",
    ),
    "a sigmoid where SiLU stands": Fault(
        edited("slm_torch.layers.swiglu:swiglu", "silu(gate)", "gate.sigmoid()"),
        "swiglu", "zoo", "logits", "layers.3.mlp",
    ),
    "GELU of the other half": Fault(
        edited("slm_torch.layers.geglu:geglu", "gelu(gate, approximate=approximate) * up",
               "gelu(up, approximate=approximate) * gate"),
        "geglu", "zoo", "logits", "layers.1.mlp",
    ),
    "a sigmoid of steepness 1": Fault(
        changed("slm_torch.layers.clipped_swiglu:STEEPNESS", lambda original: 1.0),
        "clipped_swiglu", "zoo", "logits", "layers.2.mlp",
    ),
    "up without 1 +": Fault(
        edited("slm_torch.layers.clipped_swiglu:clipped_swiglu", "(1 + up)", "up"),
        "clipped_swiglu", "zoo", "logits", "layers.2.mlp",
    ),
    "the gate clipped from below, too": Fault(
        edited("slm_torch.layers.clipped_swiglu:clipped_swiglu", "gate.clamp(max=LIMIT)", "gate.clamp(-1, LIMIT)"),
        "clipped_swiglu", "zoo", "logits", "layers.2.mlp",
    ),
    # Mixtures.
    "rows of the wrong expert": Fault(
        edited("model.layers.0.mlp.expert", "y.index_select(0, rows.row)", "y.index_select(0, rows.pair)"),
        "moe", "mixtures", "logits", "layers.0.mlp",
    ),
    "choices in the order of experts": Fault(
        edited("model.layers.0.mlp.weights", "routing.scores.gather(1, routing.chosen)",
               "routing.scores.gather(1, routing.chosen.sort(-1).values)"),
        "order of experts", "mixtures", "logits", "layers.0.mlp",
    ),
    "one expert fewer": Fault(
        changed("model.layers.0.mlp.top_k", lambda original: original - 1),
        "mlp.top_k", "mixtures", "logits", "layers.0.mlp",
    ),
    "experts not renormalised": Fault(
        changed("model.layers.1.mlp.renormalise", lambda original: False),
        "mlp.renormalise", "catalogue", "logits", "layers.1.mlp",
    ),
    "experts renormalised": Fault(
        changed("model.layers.0.mlp.renormalise", lambda original: True),
        "mlp.renormalise", "mixtures", "logits", "layers.0.mlp",
    ),
    "softmax over the chosen": Fault(
        edited("model.layers.0.mlp.weights", "routing.scores.gather(1, routing.chosen)",
               "torch.softmax(routing.logits.gather(1, routing.chosen), -1)"),
        "router=softmax", "mixtures", "logits", "layers.0.mlp",
    ),
    "softmax where a sigmoid stands": Fault(
        changed("model.layers.1.mlp.scores", lambda original: lambda logits: logits.softmax(-1)),
        "router=sigmoid", "mixtures", "logits", "layers.1.mlp",
    ),
    "sum not scaled": Fault(
        changed("model.layers.1.mlp.routed_scale", lambda original: 1),
        "mlp.routed_scale", "mixtures", "logits", "layers.1.mlp",
    ),
    "shared expert scaled, too": Fault(
        edited("model.layers.1.mlp.forward", "shared = self.shared(x)[0]",
               "shared = self.routed_scale * self.shared(x)[0]"),
        "mlp.shared_experts", "mixtures", "logits", "layers.1.mlp",
    ),
    "routed experts gated, too": Fault(
        edited("model.layers.4.mlp.forward",
               "y + (shared if self.shared_gate is None else torch.sigmoid(self.shared_gate(x)) * shared)",
               "torch.sigmoid(self.shared_gate(x)) * (y + shared)"),
        "mlp.shared_gate", "mixtures", "logits", "layers.4.mlp",
    ),
    "gate of the shared expert cut off from the stream": Fault(
        edited("model.layers.4.mlp.forward", "self.shared_gate(x)", "self.shared_gate(x.detach())"),
        "mlp.shared_gate", "mixtures", "gradients", "layers.4.mlp",
    ),
    "bias of the router forgotten": Fault(
        edited("model.layers.3.mlp.router.forward", "y + self.bias.to(x.dtype)", "y + 0 * self.bias"),
        "mlp.router_bias", "mixtures", "logits", "layers.3.mlp.router",
    ),
    "groups of interleaved experts": Fault(
        edited("slm_torch.layers.moe:in_best_groups", "grouped = ranked.unflatten(1, (groups, -1))",
               "grouped = ranked.unflatten(1, (-1, groups)).mT"),
        "mlp.groups", "mixtures", "logits", "layers.2.mlp",
    ),
    "groups by their best expert alone": Fault(
        edited("slm_torch.layers.moe:in_best_groups", "grouped.topk(2)", "grouped.topk(1)"),
        "mlp.groups", "mixtures", "logits", "layers.2.mlp",
    ),
    "one group more": Fault(
        changed("model.layers.2.mlp.top_groups", lambda original: original + 1),
        "mlp.top_groups", "mixtures", "logits", "layers.2.mlp",
    ),
    "balance bias in the weights": Fault(
        edited("model.layers.1.mlp.weights", "routing.scores.gather(1, routing.chosen)",
               "(routing.scores + self.balance.detach()).gather(1, routing.chosen)"),
        "mlp.balance_bias", "catalogue", "logits", "layers.1.mlp",
    ),
    "balance bias of the other sign": Fault(
        edited("model.layers.1.mlp.route", "scores + self.balance.to(scores.dtype)",
               "scores - self.balance.to(scores.dtype)"),
        "mlp.balance_bias", "catalogue", "logits", "layers.1.mlp",
    ),
    "half the balance loss": Fault(
        changed("model.layers.1.mlp.balance_loss", lambda original: original / 2),
        "mlp.balance_loss", "catalogue", "gradients", "layers.1.mlp",
    ),
    "no gradient through the mean scores": Fault(
        edited("model.layers.0.mlp.auxiliary_loss", "probability.mean(0)", "probability.mean(0).detach()"),
        "mlp.balance_loss", "mixtures", "gradients", "layers.0.mlp",
    ),
    "z-loss of the mean's square": Fault(
        edited("model.layers.0.mlp.auxiliary_loss", "logits.logsumexp(-1).square().mean()",
               "logits.logsumexp(-1).mean().square()"),
        "mlp.router_z_loss", "mixtures", "gradients", "layers.0.mlp",
    ),
    "biases of the wrong expert": Fault(
        edited("model.layers.3.mlp.down_proj.forward", "self.bias.unbind()", "self.bias.flip(0).unbind()"),
        "moe", "mixtures", "logits", "layers.3.mlp.down_proj",
    ),
    "experts with the tanh approximation": Fault(
        changed("model.layers.0.mlp.activation", lambda original: lambda x: original(x, approximate="tanh")),
        "expert=gelu", "mixtures", "logits", "layers.0.mlp",
    ),
    "experts squared": Fault(
        changed("model.layers.4.mlp.activation", lambda original: lambda x: x.relu().square()),
        "expert=relu", "mixtures", "logits", "layers.4.mlp",
    ),
    "experts not squared": Fault(
        changed("model.layers.1.mlp.activation", lambda original: lambda x: x.relu()),
        "expert=relu2", "mixtures", "logits", "layers.1.mlp",
    ),
    "experts with gate and up exchanged": Fault(
        changed("model.layers.1.mlp.activation", lambda original: lambda gate, up: original(up, gate)),
        "expert=swiglu", "catalogue", "logits", "layers.1.mlp",
    ),
    "experts with GELU of the other half": Fault(
        changed("model.layers.2.mlp.activation", lambda original: lambda gate, up: original(up, gate)),
        "expert=geglu", "mixtures", "logits", "layers.2.mlp",
    ),
    "experts without 1 +": Fault(
        changed("model.layers.3.mlp.activation", lambda original: lambda gate, up: original(gate, up - 1)),
        "expert=clipped_swiglu", "mixtures", "logits", "layers.3.mlp",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
