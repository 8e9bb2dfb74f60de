"""Optimizers, and how they treat parameters by their role."""

from collections.abc import Callable

from faults.fault import Apply, Fault, changed, edited, option
from slm_core.quantization.blockwise import signed_code
from slm_torch.optim.adamw8bit import AdamW8bit
from slm_torch.optim.muon import SCALES
from slm_torch.optim.schedule_free import ScheduleFree
from slm_torch.quantization.blockwise import Quantiser

UPDATE = "optimizer.update"


def decayed(names: Callable[[str], bool], by: float) -> Apply:
    """Returns a fault of AdamW: parameters of these names decay by another number."""

    def apply(engine, patch) -> None:
        groups: dict[tuple[float, float], list[str]] = {}
        for (rate, decay), members in engine.optimizer.groups.items():
            for name in members:
                groups.setdefault((rate, by if names(name) else decay), []).append(name)
        patch.setattr(engine.optimizer, "groups", groups)

    return apply


class FromZero(ScheduleFree):
    """z does not start as a copy of the parameters."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for z in self.part("z"):
            z.zero_()


class CodesFromZero(AdamW8bit):
    """The first moment's codes start at 0, which stands for -0.99."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for name, codes in self.state.items():
            if name.startswith("m/") and name not in self.rest.state:
                codes.zero_()


FAULTS = {
    # AdamW.
    "bias corrected by the next update's count": Fault(
        edited(UPDATE, 'float(self.state["count"])', 'float(self.state["count"] + 1)'),
        "adamw", "adamw", "update", "optimizer",
    ),
    "another beta": Fault(
        changed("optimizer.betas", lambda own: (own[0], 0.951)), "optim.betas", "dense", "update", "optimizer",
    ),
    "a library's epsilon": Fault(
        changed("optimizer.eps", lambda own: 1e-8), "optim.eps", "adamw", "update", "optimizer",
    ),
    "decay in the gradient": Fault(
        edited(UPDATE, "[p.grad for p in params]", "[p.grad + decay * p for p in params]"),
        "decoupled decay", "adamw", "update", "optimizer",
    ),
    "decay at the rate of muP": Fault(
        edited(UPDATE, "decay / rate", "decay"), "muP decay", "adamw", "update", "optimizer",
    ),
    "no decay": Fault(decayed(lambda name: True, 0.0), "optim.weight_decay", "dense", "update", "optimizer"),
    "embeddings not decayed": Fault(
        decayed(lambda name: name == "embed.weight", 0.0), "optim.decay_embeddings", "adamw", "update", "optimizer",
    ),
    "norms not decayed": Fault(
        decayed(lambda name: "norm" in name, 0.0), "optim.decay_norms", "adamw", "update", "optimizer",
    ),
    "biases not decayed": Fault(
        decayed(lambda name: name.endswith("bias"), 0.0), "optim.decay_biases", "adamw", "update", "optimizer",
    ),
    "a tied head decayed": Fault(
        decayed(lambda name: name == "embed.weight", 0.1), "roles", "dense", "update", "optimizer",
    ),
    "mixing weights decayed": Fault(
        decayed(lambda name: "value_residual" in name, 0.1), "roles", "dense", "update", "optimizer",
    ),
    "epsilon before the bias correction": Fault(
        edited(UPDATE, "self.eps", 'self.eps / (1 - self.betas[1] ** int(self.state["count"])) ** 0.5'),
        "optim.eps", "adamw", "update", "optimizer",
    ),
    "muP rates forgotten": Fault(
        changed("optimizer.lr_multipliers", lambda own: [1.0] * len(own)), "muP rates", "lion", "update", "optimizer",
    ),
    # AdamW with 8 bits.
    "moments used as they are stored": Fault(
        edited("optimizer.step",
               "p.addcdiv_(m, v.sqrt().div_(corrections[1] ** 0.5).add_(self.eps), value=-rate / corrections[0])",
               "m, v = (self.m.dequantise(*self.m.quantise(m)), self.v.dequantise(*self.v.quantise(v)))\n"
               "p.addcdiv_(m, v.sqrt().div_(corrections[1] ** 0.5).add_(self.eps), value=-rate / corrections[0])"),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "second moment by the signed table": Fault(
        changed("optimizer.v", lambda own: Quantiser(signed_code(), own.block, own.table)),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "the entry below and not the nearest": Fault(
        changed("optimizer.m.thresholds", lambda own: own + (own - own.roll(1)).abs() / 2),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "scales not multiplied in": Fault(
        edited("optimizer.m.dequantise", "values * scales[:, None]", "values"),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "8 bits, bias of the second moment kept": Fault(
        edited("optimizer.step", "v.sqrt().div_(corrections[1] ** 0.5)", "v.sqrt()"),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "8 bits, another beta": Fault(
        changed("optimizer.betas", lambda own: (own[0], 0.951)), "optim.betas", "adamw8bit", "update", "optimizer",
    ),
    "codes from 0": Fault(
        option("slm_torch.trainer:OPTIMIZERS", "adamw8bit", CodesFromZero),
        "adamw8bit", "adamw8bit", "initial_weights", "optimizer",
    ),
    "one scale for all blocks": Fault(
        edited("optimizer.m.quantise", "blocks.abs().amax(-1)", "blocks.abs().amax().expand(len(blocks))"),
        "optim.quantised_block", "adamw8bit", "update", "optimizer",
    ),
    "small parameters rounded, too": Fault(
        edited(UPDATE, "self.decay(lr)",
               "for m in self.rest.part('m'):\n"
               "    m.copy_(self.m.dequantise(*self.m.quantise(m.view(-1))).view_as(m))\n"
               "self.decay(lr)"),
        "optim.quantised_from", "adamw8bit", "update", "optimizer",
    ),
    # SGD.
    "no Nesterov": Fault(
        changed("optimizer.nesterov", lambda own: False), "optim.nesterov", "sgd", "update", "optimizer",
    ),
    "momentum dampened": Fault(
        edited(UPDATE, "torch._foreach_add_(m, grads)", "torch._foreach_add_(m, grads, alpha=1 - self.momentum)"),
        "sgd", "sgd", "update", "optimizer",
    ),
    "a library's momentum": Fault(
        changed("optimizer.momentum", lambda own: 0.9), "optim.momentum", "sgd", "update", "optimizer",
    ),
    "the gradient as much as the momentum": Fault(
        edited(UPDATE, "torch._foreach_add_(grads, m, alpha=self.momentum)",
               "torch._foreach_add_(grads, m)"),
        "sgd", "sgd", "update", "optimizer",
    ),
    "decay in the momentum": Fault(
        edited(UPDATE, "grads, m = self.grads(), self.part(\"m\")",
               "grads, m = [p.grad + d * p for p, d in zip(self.params.values(), self.decays)], self.part(\"m\")"),
        "decoupled decay", "sgd", "update", "optimizer",
    ),
    # Lion.
    "betas swapped": Fault(
        changed("optimizer.betas", lambda own: own[::-1]), "lion", "lion", "update", "optimizer",
    ),
    "the sign forgotten": Fault(
        edited(UPDATE, "torch._foreach_sign_(u)", "pass"), "lion", "lion", "update", "optimizer",
    ),
    "the sign of the new momentum": Fault(
        edited(UPDATE, "u = torch._foreach_mul(m, b1)", "u = torch._foreach_mul(m, b2)"),
        "lion", "lion", "update", "optimizer",
    ),
    # Muon.
    "rounded coefficients": Fault(
        changed("optimizer.coefficients", lambda own: (3.4445, -4.775, 2.03)), "muon", "muon", "update", "optimizer",
    ),
    "one step of Newton and Schulz fewer": Fault(
        changed("optimizer.steps", lambda own: own - 1), "optim.newton_schulz_steps", "muon", "update", "optimizer",
    ),
    "not divided by the norm": Fault(
        edited("optimizer.orthogonal", "x / (torch.linalg.matrix_norm(x, keepdim=True) + self.eps)",
               "x / (torch.linalg.matrix_norm(x, ord=2, keepdim=True) + self.eps)"),
        "muon", "muon", "update", "optimizer",
    ),
    "experts as one matrix": Fault(
        edited("optimizer.orthogonal", "torch.linalg.matrix_norm(x, keepdim=True)", "x.norm()"),
        "muon", "muon", "update", "optimizer",
    ),
    "momentum as a sum": Fault(
        edited(UPDATE, "torch._foreach_lerp_(m, grads, 1 - self.momentum)",
               "torch._foreach_mul_(m, self.momentum); torch._foreach_add_(m, grads)"),
        "muon", "muon", "update", "optimizer",
    ),
    "scale of the smaller side": Fault(
        changed("optimizer.scale", lambda own: lambda d_in, d_out: 0.2 * min(d_in, d_out) ** 0.5),
        "muon_scale=rms", "muon", "update", "optimizer",
    ),
    "scale of the transpose": Fault(
        changed("optimizer.scale", lambda own: lambda d_in, d_out: SCALES["spectral"](d_out, d_in)),
        "muon_scale=spectral", "spectral", "update", "optimizer",
    ),
    "Nesterov all the same": Fault(
        changed("optimizer.nesterov", lambda own: True), "optim.nesterov", "spectral", "update", "optimizer",
    ),
    "AdamW of the rest not run": Fault(
        edited(UPDATE, "self.rest.update(lr)", 'self.state["count"] += 1'), "muon", "muon", "update", "optimizer",
    ),
    # Adafactor.
    "another power of the decay": Fault(
        changed("optimizer.power", lambda own: 0.81), "optim.decay_power", "adafactor", "update", "optimizer",
    ),
    "update not clipped": Fault(
        changed("optimizer.clip_rms", lambda own: 1e9), "optim.clip_rms", "adafactor", "update", "optimizer",
    ),
    "small parameters at their own rate": Fault(
        changed("optimizer.min_rms", lambda own: 1e-9), "optim.min_rms", "adafactor", "loss_curve", "optimizer",
    ),
    "columns from the rows' mean": Fault(
        edited("optimizer.inverse_root", "col.rsqrt()[..., None, :]", "col.mean(-1, keepdim=True).rsqrt()[..., None]"),
        "adafactor", "adafactor", "update", "optimizer",
    ),
    "not divided by the mean of the rows": Fault(
        edited("optimizer.inverse_root", "(row / row.mean(-1, keepdim=True))", "row"),
        "adafactor", "adafactor", "update", "optimizer",
    ),
    "size of the decayed parameter": Fault(
        edited(UPDATE, "u = u / (rms(u) / self.clip_rms).clamp(min=1)",
               "u = u / (rms(u) / self.clip_rms).clamp(min=1); size = rms(p).clamp(min=self.min_rms)"),
        "adafactor", "adafactor", "update", "optimizer",
    ),
    # Schedule-free AdamW.
    "rates not squared in the weights": Fault(
        edited(UPDATE, 'self.state["weight_sum"] += lr**2', 'self.state["weight_sum"] += lr'),
        "schedule_free", "schedule_free", "update", "optimizer",
    ),
    "y interpolated with the next weight": Fault(
        edited(UPDATE, "-lr * (1 - b1 * (1 - c))", "-lr * (1 - b1)"),
        "schedule_free", "schedule_free", "update", "optimizer",
    ),
    "epsilon inside the root": Fault(
        edited(UPDATE, "root = torch._foreach_sqrt(v)", "root = torch._foreach_sqrt(torch._foreach_add(v, self.eps))"),
        "schedule_free", "schedule_free", "update", "optimizer",
    ),
    "bias of the second moment kept": Fault(
        edited(UPDATE, "torch._foreach_div_(root, correction)", "pass"),
        "schedule_free", "schedule_free", "update", "optimizer",
    ),
    "decay of z": Fault(
        edited(UPDATE, "d[i].add_(y[i], alpha=decay)", "d[i].add_(z[i], alpha=decay)"),
        "schedule_free", "schedule_free", "update", "optimizer",
    ),
    "z from 0": Fault(
        option("slm_torch.trainer:OPTIMIZERS", "schedule_free", FromZero),
        "schedule_free", "schedule_free", "initial_weights", "optimizer",
    ),
    "decoding with what is trained": Fault(
        changed("optimizer.evaluated", lambda own: lambda: {n: p.detach() for n, p in own.__self__.params.items()}),
        "averaged weights", "schedule_free", "decoding", "optimizer",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
