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
    return changed("train_step", lambda own: lambda tokens, lr, step: own(tokens, change(lr, step), step))


def after_warmup(change: Callable[[float], float]) -> Apply:
    """Returns a fault of the learning rate that begins when the schedule does."""
    return rate(lambda lr, step: lr if step < WARMUP else change(lr))


def one_update_late(own: Callable) -> Callable:
    """Updates with the rate of the update before."""
    rates: list[float] = []

    def broken(tokens, lr, step):
        rates.append(lr)
        return own(tokens, rates[-1 if step < WARMUP else -2], step)

    return broken


FAULTS = {
    # Accumulation.
    "an average of averages": Fault(
        edited(STEP, "scale / count)",
               "scale / (tokens[first : first + micro, 1:] != IGNORE).sum() * micro / len(tokens))"),
        "loss sum", "dense", 3, "accumulation",
    ),
    "divided by all tokens": Fault(
        edited(STEP, "int((tokens[:, 1:] != IGNORE).sum())", "tokens[:, 1:].size"),
        "loss sum", "dense", 3, "accumulation",
    ),
    "the last micro-batch's gradient": Fault(
        edited(STEP, "(sums.objective *", "self.model.zero_grad(); (sums.objective *"),
        "accumulation", "dense", 3, "accumulation",
    ),
    "what is minimised reported": Fault(
        edited(STEP, "sums.tokens.detach()", "sums.objective.detach()"),
        "loss sum", "dense", 3, "accumulation",
    ),
    # Dropout.
    "site off by one": Fault(
        changed(f"{DROPOUT}.site", lambda own: own - 1), "dropout site", "dense", 3, "layers.1.mlp_dropout",
    ),
    "not scaled up": Fault(
        edited(f"{DROPOUT}.forward", "x * (1 / (1 - self.rate))", "x"), "dropout", "dense", 3, "layers.1.mlp_dropout",
    ),
    "rows counted from the micro-batch's first": Fault(
        edited(STEP, "DropoutKey(sites, first)", "DropoutKey(sites, 0)"), "dropout row", "dense", 3, "accumulation",
    ),
    "updates counted from 1": Fault(
        edited(STEP, "self.config.seed, step,", "self.config.seed, step + 1,"),
        "dropout step", "dense", 3, "accumulation",
    ),
    "an arithmetic shift": Fault(
        edited(f"{HASH}:_shift", "(x >> by) & ((1 << (32 - by)) - 1)", "x >> by"),
        "dropout hash", "dense", 3, "dropout",
    ),
    "hashes compared as signed numbers": Fault(
        edited(f"{HASH}:keep_mask", "hashed ^ flip", "hashed"), "dropout hash", "dense", 3, "dropout",
    ),
    "the index not mixed": Fault(
        edited(f"{HASH}:keep_mask", "_mix(_mix(index.to(torch.int32)) ^ key)", "_mix(index.to(torch.int32) ^ key)"),
        "dropout hash", "dense", 3, "dropout",
    ),
    # Clipping.
    "an epsilon beside the norm": Fault(
        edited("slm_torch.trainer:clip_factor", "limit / norm if", "limit / (norm + 1e-6) if"),
        "optim.clip_norm", "dense", 3, "clipping",
    ),
    "small gradients scaled up": Fault(
        edited("slm_torch.trainer:clip_factor", "limit and norm > limit", "limit"), "clipping", "sgd", 3, "clipping",
    ),
    "each parameter clipped by itself": Fault(
        edited(UPDATE, "torch._foreach_mul_(grads, factor)",
               "[g.mul_(clip_factor(float(g.norm()) / scale, self.config.optim.clip_norm) / scale) for g in grads]"),
        "clipping", "dense", 3, "clipping",
    ),
    "the largest of the norms": Fault(
        edited(UPDATE, "torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))",
               "torch.stack(torch._foreach_norm(grads)).max()"),
        "clipping", "dense", 3, "clipping",
    ),
    "the balance bias in the norm": Fault(
        edited(UPDATE, "for p in self.trained.values()", "for p in self.params.values()"),
        "clipping", "catalogue", 3, "clipping",
    ),
    # The balance bias.
    "experts that are busy chosen more": Fault(
        edited("slm_torch.trainer:balance", "alpha=steps[name]", "alpha=-steps[name]"),
        "balance update", "catalogue", 3, "balance",
    ),
    "a step as large as the load": Fault(
        edited("slm_torch.trainer:balance", ".sign()", ""), "balance update", "catalogue", 3, "balance",
    ),
    # The loss scale.
    "gradients not divided by the scale": Fault(
        edited(UPDATE, "self.config.optim.clip_norm) / scale", "self.config.optim.clip_norm)"),
        "loss scale", "half", 4, "clipping",
    ),
    "the norm of scaled gradients": Fault(
        edited(UPDATE, "torch._foreach_norm(grads)))) / scale", "torch._foreach_norm(grads))))"),
        "loss scale", "half", 4, "clipping",
    ),
    "an update that is not finite": Fault(
        edited(UPDATE, "if math.isfinite(norm):", "if True:"), "skipped update", "half", 4, "optimizer",
    ),
    "the first scale doubled": Fault(
        edited(STEP, "scale = self.scaler.scale", "scale = self.scaler.scale * (2 if step == 0 else 1)"),
        "precision.loss_scale_init", "capped", 4, "scaler",
    ),
    "a doubling one update early": Fault(
        changed("scaler.interval", lambda own: own - 1),
        "precision.loss_scale_growth_interval", "capped", 4, "scaler",
    ),
    "finite updates counted through a skip": Fault(
        edited(SCALER, "1.0), 0", "1.0), 1"),
        "precision.loss_scale_growth_interval", "half", 4, "scaler",
    ),
    "the scale halved": Fault(
        changed("scaler.backoff", lambda own: 0.5), "precision.loss_scale_backoff", "half", 4, "scaler",
    ),
    "a scale below 1": Fault(
        edited(SCALER, "1.0), 0", "0.0), 0"),
        "loss scale", "half", 4, "scaler",
    ),
    "a scale without a bound": Fault(
        changed("scaler.limit", lambda own: 2.0**24), "precision.loss_scale_max", "capped", 4, "scaler",
    ),
    # The learning rate.
    "a rate rounded to float32": Fault(
        rate(lambda lr, step: float(np.float32(lr))), "optim.lr", "dense", 3, "optimizer",
    ),
    "warm-up forgotten": Fault(rate(lambda lr, step: max(lr, 3e-3)), "optim.warmup_steps", "dense", 4, "optimizer"),
    "a cosine one update late": Fault(changed(STEP, one_update_late), "cosine", "dense", 4, "optimizer"),
    "a floor of 0": Fault(
        after_warmup(lambda lr: (lr - 3e-4) * 3e-3 / (3e-3 - 3e-4)), "optim.min_lr_ratio", "adafactor", 4, "optimizer",
    ),
    "a line one update late": Fault(changed(STEP, one_update_late), "linear", "sgd", 4, "optimizer"),
    "never decaying": Fault(after_warmup(lambda lr: 3e-3), "wsd", "adamw", 4, "optimizer"),
    "decaying sooner": Fault(after_warmup(lambda lr: 0.9 * lr), "optim.decay_fraction", "adamw", 4, "optimizer"),
    "decaying all the same": Fault(after_warmup(lambda lr: 0.9 * lr), "constant", "schedule_free", 4, "optimizer"),
    # The state.
    "a count that an import forgets": Fault(
        changed("import_state", lambda own: lambda state: own({**state, "optim/count": state["optim/count"] * 0})),
        "state", "dense", 3, "optimizer",
    ),
    "finite updates in a row forgotten by an import": Fault(
        changed("import_state", lambda own: lambda state: own({**state, "scaler/good_steps": np.int32(0)})),
        "state", "capped", 6, "scaler",
    ),
    "moments lost on the way out": Fault(
        changed("export_state", lambda own: lambda: {
            name: value * 0 if name.startswith("optim/v/") else value for name, value in own().items()}),
        "state", "adamw", 3, "optimizer",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
