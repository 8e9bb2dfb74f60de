"""Every formula that is compared with an outside source, and those that have none."""

from tests.outside import attention, layers, mixers, optimizers, other, positions, schedules
from tests.outside.formula import Formula

FORMULAS: list[Formula] = [
    *attention.FORMULAS,
    *positions.FORMULAS,
    *mixers.FORMULAS,
    *layers.FORMULAS,
    *optimizers.FORMULAS,
    *schedules.FORMULAS,
    *other.FORMULAS,
]

WITHOUT = {
    "attention.gate=head": "no library has it; the authors' text, in tests/reference",
    "attention.value_residual": "no library has it; the paper's formula, in tests/reference",
    "norm.kind=dyt": "no library here has it; the paper's formula, in tests/reference",
    "mlp.balance_bias": "the DeepSeek-V3 paper's text: an expert above the mean load becomes less likely",
    "optim.kind=adamw8bit": "its table is compared; no library here has the whole update",
    "finetune.frozen=nf4": "its values are compared; double quantisation is ours (numerics.md, section 10)",
}
"""{setting: why it has no outside source}. Their check is a formula that is written a third time, in NumPy."""

NOTHING = {"finetune.kind=full": "every parameter is trained", "finetune.frozen=float": "matrices as they are"}
"""{kind that computes nothing of its own: what it means}."""
