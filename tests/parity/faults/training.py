"""An update around its optimizer: accumulation, dropout, clipping, the loss scale, the learning rate, the state."""

from collections.abc import Callable

import numpy as np

from faults.fault import Apply, Fault, changed, edited
from faults.pairs import WARMUP

STEP, UPDATE, SCALER = "train_step", "_update", "scaler.update"
DROPOUT = "model.layers.1.mlp_dropout"
HASH = "slm_torch.layers.dropout"


def rate(change: Callable[[float, int], float]) -> Apply:
    """Returns a fault: updates use the learning rate change(lr, step)."""
    return changed("train_step", lambda original: lambda tokens, lr, step: original(tokens, change(lr, step), step))


def after_warmup(change: Callable[[float], float]) -> Apply:
    """Returns a fault of the learning rate that begins when the schedule does."""
    return rate(lambda lr, step: lr if step < WARMUP else change(lr))


def one_update_late(original: Callable) -> Callable:
    """Updates with the rate of the update before."""
    rates: list[float] = []

    def broken(tokens, lr, step):
        rates.append(lr)
        return original(tokens, rates[-1 if step < WARMUP else -2], step)

    return broken


FAULTS = {
    # Accumulation.
    "an average of averages": Fault(
        edited(STEP, "scale / count",
               "scale / targets_of_update(tokens[first : first + micro]) * micro / len(tokens)"),
        "loss sum", "dense", "update", "accumulation",
    ),
    "divided by all tokens": Fault(
        edited(STEP, "targets_of_update(tokens)", "tokens[:, 1:].size"),
        "loss sum", "dense", "update", "accumulation",
    ),
    "the last micro-batch's gradient": Fault(
        edited(STEP, "(sums.objective * (scale / count)).backward()",
               "self.model.zero_grad()\n"
               "(sums.objective * (scale / count)).backward()"),
        "accumulation", "dense", "update", "accumulation",
    ),
    "what is minimised reported": Fault(
        edited(STEP, "sums.tokens.detach()", "sums.objective.detach()"),
        "loss sum", "dense", "update", "accumulation",
    ),
    # Dropout.
    "site off by one": Fault(
        changed(f"{DROPOUT}.site", lambda original: original - 1),
        "dropout site", "dense", "update", "layers.1.mlp_dropout",
    ),
    "not scaled up": Fault(
        edited(f"{DROPOUT}.forward", "x * (1 / (1 - self.rate))", "x"),
        "dropout", "dense", "update", "layers.1.mlp_dropout",
    ),
    "rows counted from the micro-batch's first": Fault(
        edited(STEP, "DropoutKey(sites, first)", "DropoutKey(sites, 0)"),
        "dropout row", "dense", "update", "accumulation",
    ),
    "updates counted from 1": Fault(
        edited(STEP, "site_keys(self.config.seed, step, self.config.model.n_layers)",
               "site_keys(self.config.seed, step + 1, self.config.model.n_layers)"),
        "dropout step", "dense", "update", "accumulation",
    ),
    "an arithmetic shift": Fault(
        edited(f"{HASH}:_shift", "(x >> by) & ((1 << (32 - by)) - 1)", "x >> by"),
        "dropout hash", "dense", "update", "dropout",
    ),
    "hashes compared as signed numbers": Fault(
        edited(f"{HASH}:keep_mask", "hashed ^ flip", "hashed"), "dropout hash", "dense", "update", "dropout",
    ),
    "the index not mixed": Fault(
        edited(f"{HASH}:keep_mask", "_mix(_mix(index.to(torch.int32)) ^ key)", "_mix(index.to(torch.int32) ^ key)"),
        "dropout hash", "dense", "update", "dropout",
    ),
    # Clipping.
    "an epsilon beside the norm": Fault(
        edited("slm_torch.trainer:clip_factor", "limit / norm", "limit / (norm + 1e-6)"),
        "optim.clip_norm", "dense", "update", "clipping",
    ),
    "small gradients scaled up": Fault(
        edited("slm_torch.trainer:clip_factor", "limit and norm > limit", "limit"),
        "clipping", "sgd", "update", "clipping",
    ),
    "each parameter clipped by itself": Fault(
        edited(UPDATE, "torch._foreach_mul_(grads, factor)",
               "[g.mul_(clip_factor(float(g.norm()) / scale, self.config.optim.clip_norm) / scale) for g in grads]"),
        "clipping", "dense", "update", "clipping",
    ),
    "the largest of the norms": Fault(
        edited(UPDATE, "torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))",
               "torch.stack(torch._foreach_norm(grads)).max()"),
        "clipping", "dense", "update", "clipping",
    ),
    "the balance bias in the norm": Fault(
        edited(UPDATE, "grads = [p.grad for p in self.trained.values() if p.grad is not None]",
               "grads = [p.grad for p in self.params.values() if p.grad is not None]"),
        "clipping", "catalogue", "update", "clipping",
    ),
    # The balance bias.
    "experts that are busy chosen more": Fault(
        edited("slm_torch.trainer:balance", "steps[name]", "-steps[name]"),
        "balance update", "catalogue", "update", "balance",
    ),
    "a step as large as the load": Fault(
        edited("slm_torch.trainer:balance", "p.grad.sign()",
               "p.grad"), "balance update", "catalogue", "update", "balance",
    ),
    # The loss scale.
    "gradients not divided by the scale": Fault(
        edited(UPDATE, "clip_factor(norm, self.config.optim.clip_norm) / scale",
               "clip_factor(norm, self.config.optim.clip_norm)"),
        "loss scale", "half", "loss_curve", "clipping",
    ),
    "the norm of scaled gradients": Fault(
        edited(UPDATE, "float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))) / scale",
               "float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads))))"),
        "loss scale", "half", "loss_curve", "clipping",
    ),
    "an update that is not finite": Fault(
        edited(UPDATE, "math.isfinite(norm)", "True"), "skipped update", "half", "loss_curve", "optimizer",
    ),
    "the first scale doubled": Fault(
        edited(STEP, "scale = self.scaler.scale", "scale = self.scaler.scale * (2 if step == 0 else 1)"),
        "precision.loss_scale_init", "capped", "loss_curve", "scaler",
    ),
    "a doubling one update early": Fault(
        changed("scaler.interval", lambda original: original - 1),
        "precision.loss_scale_growth_interval", "capped", "loss_curve", "scaler",
    ),
    "finite updates counted through a skip": Fault(
        edited(SCALER, "max(float(np.float32(self.scale * self.backoff)), 1.0), 0",
               "max(float(np.float32(self.scale * self.backoff)), 1.0), 1"),
        "precision.loss_scale_growth_interval", "half", "loss_curve", "scaler",
    ),
    "the scale halved": Fault(
        changed("scaler.backoff", lambda original: 0.5), "precision.loss_scale_backoff", "half", "loss_curve", "scaler",
    ),
    "a scale below 1": Fault(
        edited(SCALER, "max(float(np.float32(self.scale * self.backoff)), 1.0)",
               "max(float(np.float32(self.scale * self.backoff)), 0.0)"),
        "loss scale", "half", "loss_curve", "scaler",
    ),
    "a scale without a bound": Fault(
        changed("scaler.limit", lambda original: 2.0**24), "precision.loss_scale_max", "capped", "loss_curve", "scaler",
    ),
    # The learning rate.
    "a rate rounded to float32": Fault(
        rate(lambda lr, step: float(np.float32(lr))), "optim.lr", "dense", "update", "optimizer",
    ),
    "warm-up forgotten": Fault(
        rate(lambda lr, step: max(lr, 3e-3)), "optim.warmup_steps", "dense", "loss_curve", "optimizer",
    ),
    "a cosine one update late": Fault(changed(STEP, one_update_late), "cosine", "dense", "loss_curve", "optimizer"),
    "a floor of 0": Fault(
        after_warmup(lambda lr: (lr - 3e-4) * 3e-3 / (3e-3 - 3e-4)),
        "optim.min_lr_ratio", "adafactor", "loss_curve", "optimizer",
    ),
    "a line one update late": Fault(changed(STEP, one_update_late), "linear", "sgd", "loss_curve", "optimizer"),
    "never decaying": Fault(after_warmup(lambda lr: 3e-3), "wsd", "adamw", "loss_curve", "optimizer"),
    "decaying sooner": Fault(
        after_warmup(lambda lr: 0.9 * lr), "optim.decay_fraction", "adamw", "loss_curve", "optimizer",
    ),
    "decaying all the same": Fault(
        after_warmup(lambda lr: 0.9 * lr), "constant", "schedule_free", "loss_curve", "optimizer",
    ),
    # The state.
    "a count that an import forgets": Fault(
        changed("import_state", lambda original: lambda state: original(
            {**state, "optim/count": state["optim/count"] * 0})),
        "state", "dense", "update", "optimizer",
    ),
    "finite updates in a row forgotten by an import": Fault(
        changed("import_state", lambda original: lambda state: original({**state, "scaler/good_steps": np.int32(0)})),
        "state", "capped", "resume", "scaler",
    ),
    "moments lost on the way out": Fault(
        changed("export_state", lambda original: lambda: {
            name: value * 0 if name.startswith("optim/v/") else value for name, value in original().items()}),
        "state", "adamw", "update", "optimizer",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
