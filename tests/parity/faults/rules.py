"""Lists the rules that must have a fault though no field sets them, and the fields that need none."""

RULES = {
    "1 parameters": (
        "init by name", "init in float64", "init of norms", "init of scalars", "init of rates", "linear map",
        "muP init", "muP logits", "muP scores", "muP rates", "muP decay", "roles",
    ),
    "3 learning rate": ("optim.lr",),
    "4 precision": (
        "wide norms", "wide softmax", "wide rotation", "wide router", "wide logits", "wide loss",
    ),
    "5 layers": (
        "default scale", "mask", "position after QK-norm", "KV cache", "rolling cache", "cache of the latent",
        "recurrent state", "tail of the convolution", "embedding", "final norm", "order of experts", "auxiliary losses",
        "documents", "positions in documents",
    ),
    "6 dropout": ("dropout", "dropout hash", "dropout site", "dropout row", "dropout step"),
    "7 loss": ("loss sum", "targets", "IGNORE", "unscored", "first token of a document", "accumulation"),
    "8 clipping": ("clipping",),
    "9 loss scale": ("loss scale", "skipped update"),
    "10 optimizers": ("decoupled decay", "balance update", "averaged weights", "state"),
    "11 sampling": ("decoder",),
}  # fmt: skip
"""{section of docs/numerics.md: its rules that no field switches}.

Left out is what both twins take from slm_core, the batches of section 2 and the draws of section 11, and what changes
no number that the suite sees: equal scores, rows that see nothing, and where half precisions are rounded.
"""

SIZES = {
    "d_model", "n_layers", "attention.n_heads", "attention.n_kv_heads", "attention.head_dim", "attention.q_rank",
    "attention.kv_rank", "attention.rope_dim", "attention.v_dim", "mixer.n_heads", "mixer.key_dim", "mixer.value_dim",
    "mixer.decay_rank", "mlp.hidden", "mlp.experts",
}  # fmt: skip
"""Fields that only say how large a parameter is: a wrong one is another shape."""

SPLIT = {"mup_base_width"}
"""Fields that are rules by their parts."""

OFF = ("none", "auto")
"""Choices of a field that turn it off, or that stand for another choice."""
