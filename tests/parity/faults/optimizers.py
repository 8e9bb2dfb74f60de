"""Optimizers, and how they treat parameters by their role."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

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
        name_of = {p: name for name, p in engine.trained.items()}
        groups = [
            {**group, "params": [p]} | ({"weight_decay": by / group["lr_multiplier"]} if names(name_of[p]) else {})
            for group in engine.optimizer.param_groups
            for p in group["params"]
        ]
        patch.setattr(engine.optimizer, "param_groups", groups)

    return apply


def grouped(name: str, change: Callable[[dict], Any]) -> Apply:
    """Returns a fault that gives a setting of each parameter group another value."""

    def apply(engine, patch) -> None:
        for group in engine.optimizer.param_groups:
            patch.setitem(group, name, change(group))

    return apply


def stepped(before: Callable[[Optimizer], None], after: Callable[[Optimizer], None] = lambda optimizer: None) -> Apply:
    """Returns a fault that does something to the optimizer before each of its updates, and after it."""

    def change(original: Callable) -> Callable:
        def step() -> None:
            before(original.__self__)
            original()
            after(original.__self__)

        return step

    return changed("optimizer.step", change)


def counted(optimizer: Optimizer, by: int) -> None:
    for state in optimizer.state.values():
        state["step"] += by


def decay_added(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad.add_(p, alpha=group["weight_decay"] * group["lr_multiplier"])


def eps_uncorrected(optimizer: Optimizer, power: float) -> None:
    """Divides eps by the root of 1 - b2^t, t being the count after the update."""
    count = float(next(iter(optimizer.state.values()))["step"]) + (power < 0)
    for group in optimizer.param_groups:
        group["eps"] *= (1 - group["betas"][1] ** count) ** power


class FromZero(ScheduleFree):
    """z does not start as a copy of the parameters."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for group in self.updated_groups:
            for z in self.part(group, "z"):
                z.zero_()


class CodesFromZero(AdamW8bit):
    """The first moment's codes start at 0, which stands for -0.99."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for group in self.updated_groups:
            for codes in self.part(group, "m"):
                codes.zero_()


FAULTS = {
    # AdamW.
    "bias corrected by the next update's count": Fault(
        stepped(lambda optimizer: counted(optimizer, 1), lambda optimizer: counted(optimizer, -1)),
        "adamw", "adamw", "update", "optimizer",
    ),
    "another beta": Fault(
        grouped("betas", lambda group: (group["betas"][0], 0.951)), "optim.betas", "dense", "update", "optimizer",
    ),
    "a library's epsilon": Fault(
        grouped("eps", lambda group: 1e-8), "optim.eps", "adamw", "update", "optimizer",
    ),
    "decay in the gradient": Fault(
        stepped(decay_added),
        "decoupled decay", "adamw", "update", "optimizer",
    ),
    "decay at the rate of muP": Fault(
        grouped("weight_decay", lambda group: group["weight_decay"] * group["lr_multiplier"]),
        "muP decay", "adamw", "update", "optimizer",
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
        stepped(lambda optimizer: eps_uncorrected(optimizer, -0.5), lambda optimizer: eps_uncorrected(optimizer, 0.5)),
        "optim.eps", "adamw", "update", "optimizer",
    ),
    "muP rates forgotten": Fault(
        grouped("lr_multiplier", lambda group: 1.0), "muP rates", "lion", "update", "optimizer",
    ),
    # AdamW with 8 bits.
    "moments used as they are stored": Fault(
        edited("optimizer.update_blocks",
               "p.addcdiv_(m, v.sqrt().div_(corrections[1] ** 0.5).add_(self.eps), value=-lr / corrections[0])",
               "m, v = (self.m.dequantise(*self.m.quantise(m)), self.v.dequantise(*self.v.quantise(v)))\n"
               "p.addcdiv_(m, v.sqrt().div_(corrections[1] ** 0.5).add_(self.eps), value=-lr / corrections[0])"),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "second moment by the signed table": Fault(
        changed("optimizer.v", lambda original: Quantiser(signed_code(), original.block, original.table)),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "the entry below and not the nearest": Fault(
        changed("optimizer.m.thresholds", lambda original: original + (original - original.roll(1)).abs() / 2),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "scales not multiplied in": Fault(
        edited("optimizer.m.dequantise", "values * scales[:, None]", "values"),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "8 bits, bias of the second moment kept": Fault(
        edited("optimizer.update_blocks", "v.sqrt().div_(corrections[1] ** 0.5)", "v.sqrt()"),
        "adamw8bit", "adamw8bit", "update", "optimizer",
    ),
    "8 bits, another beta": Fault(
        changed("optimizer.betas", lambda original: (original[0], 0.951)),
        "optim.betas", "adamw8bit", "update", "optimizer",
    ),
    "codes from 0": Fault(
        option("slm_torch.optim:OPTIMIZERS", "adamw8bit", CodesFromZero),
        "adamw8bit", "adamw8bit", "initial_weights", "optimizer",
    ),
    "one scale for all blocks": Fault(
        edited("optimizer.m.quantise", "blocks.abs().amax(-1)", "blocks.abs().amax().expand(len(blocks))"),
        "optim.quantised_block", "adamw8bit", "update", "optimizer",
    ),
    "small parameters rounded, too": Fault(
        edited(UPDATE, "self.small.step()",
               'self.small.step()\n'
               'for m in (state["exp_avg"] for state in self.small.state.values()):\n'
               '    m.copy_(self.m.dequantise(*self.m.quantise(m.view(-1))).view_as(m))'),
        "optim.quantised_from", "adamw8bit", "update", "optimizer",
    ),
    # SGD.
    "no Nesterov": Fault(
        changed("optimizer.nesterov", lambda original: False), "optim.nesterov", "sgd", "update", "optimizer",
    ),
    "momentum dampened": Fault(
        edited(UPDATE, "torch._foreach_add_(m, g)", "torch._foreach_add_(m, g, alpha=1 - self.momentum)"),
        "sgd", "sgd", "update", "optimizer",
    ),
    "a library's momentum": Fault(
        changed("optimizer.momentum", lambda original: 0.9), "optim.momentum", "sgd", "update", "optimizer",
    ),
    "the gradient as much as the momentum": Fault(
        edited(UPDATE, "torch._foreach_add_(g, m, alpha=self.momentum)", "torch._foreach_add_(g, m)"),
        "sgd", "sgd", "update", "optimizer",
    ),
    "decay in the momentum": Fault(
        edited(UPDATE, "grads(group)", "[p.grad + group[\"weight_decay\"] * p for p in group[\"params\"]]"),
        "decoupled decay", "sgd", "update", "optimizer",
    ),
    # Lion.
    "betas swapped": Fault(
        changed("optimizer.betas", lambda original: original[::-1]), "lion", "lion", "update", "optimizer",
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
        changed("slm_torch.optim.muon:COEFFICIENTS", lambda original: (3.4445, -4.775, 2.03)),
        "muon", "muon", "update", "optimizer",
    ),
    "one step of Newton and Schulz fewer": Fault(
        changed("optimizer.steps", lambda original: original - 1),
        "optim.newton_schulz_steps", "muon", "update", "optimizer",
    ),
    "not divided by the norm": Fault(
        edited("slm_torch.optim.muon:orthogonal", "x / (torch.linalg.matrix_norm(x, keepdim=True) + EPS)",
               "x / (torch.linalg.matrix_norm(x, ord=2, keepdim=True) + EPS)"),
        "muon", "muon", "update", "optimizer",
    ),
    "experts as one matrix": Fault(
        edited("slm_torch.optim.muon:orthogonal", "torch.linalg.matrix_norm(x, keepdim=True)", "x.norm()"),
        "muon", "muon", "update", "optimizer",
    ),
    "momentum as a sum": Fault(
        edited(UPDATE, "torch._foreach_lerp_(m, g, 1 - self.momentum)",
               "torch._foreach_mul_(m, self.momentum); torch._foreach_add_(m, g)"),
        "muon", "muon", "update", "optimizer",
    ),
    "scale of the smaller side": Fault(
        changed("optimizer.scale", lambda original: lambda d_in, d_out: 0.2 * min(d_in, d_out) ** 0.5),
        "muon_scale=rms", "muon", "update", "optimizer",
    ),
    "scale of the transpose": Fault(
        changed("optimizer.scale", lambda original: lambda d_in, d_out: SCALES["spectral"](d_out, d_in)),
        "muon_scale=spectral", "spectral", "update", "optimizer",
    ),
    "Nesterov all the same": Fault(
        changed("optimizer.nesterov", lambda original: True), "optim.nesterov", "spectral", "update", "optimizer",
    ),
    "AdamW of the rest not run": Fault(
        edited(UPDATE, "self.rest.step()", "pass"), "muon", "muon", "update", "optimizer",
    ),
    # Adafactor.
    "another power of the decay": Fault(
        changed("optimizer.power", lambda original: 0.81), "optim.decay_power", "adafactor", "update", "optimizer",
    ),
    "update not clipped": Fault(
        changed("optimizer.clip_rms", lambda original: 1e9), "optim.clip_rms", "adafactor", "update", "optimizer",
    ),
    "small parameters at their own rate": Fault(
        changed("optimizer.min_rms", lambda original: 1e-9), "optim.min_rms", "adafactor", "loss_curve", "optimizer",
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
        edited(UPDATE, 'self.shared["weight_sum"] += lr**2', 'self.shared["weight_sum"] += lr'),
        "schedule_free", "schedule_free", "update", "optimizer",
    ),
    "y interpolated with the next weight": Fault(
        edited(UPDATE, "1 - b1 * (1 - c)", "1 - b1"), "schedule_free", "schedule_free", "update", "optimizer",
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
        edited(UPDATE, 'torch._foreach_add_(d, y, alpha=group["weight_decay"])',
               'torch._foreach_add_(d, z, alpha=group["weight_decay"])'),
        "schedule_free", "schedule_free", "update", "optimizer",
    ),
    "z from 0": Fault(
        option("slm_torch.optim:OPTIMIZERS", "schedule_free", FromZero),
        "schedule_free", "schedule_free", "initial_weights", "optimizer",
    ),
    "decoding with what is trained": Fault(
        changed("averages", lambda original: lambda optim, params, state: {n: p.detach() for n, p in params.items()}),
        "averaged weights", "schedule_free", "decoding", "optimizer",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
