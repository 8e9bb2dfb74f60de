"""Lists the tolerances of the checks: how far apart the twins may be.

float64 proves that the functions are the same. float32 has a tolerance, because rounding is chaotic. The half
precisions must skip the same updates and keep close losses.
"""

TOLERANCES: dict[str, dict[str, float]] = {
    "float64": {
        "initial_weights": 0.0, "logits": 1e-12, "gradients": 1e-12, "update": 1e-12, "loss_curve": 1e-10,
        "decoding": 1e-12, "resume": 1e-10,
    },
    "float32": {
        "initial_weights": 0.0, "logits": 1e-5, "gradients": 1e-5, "update": 1e-5, "loss_curve": 1e-4,
        "decoding": 1e-5, "resume": 1e-4,
    },
    "float16": {"initial_weights": 0.0, "logits": 2e-2, "gradients": 2e-2, "loss_curve": 2e-2, "resume": 2e-2},
    "bfloat16": {"initial_weights": 0.0, "logits": 1e-1, "gradients": 1e-1, "loss_curve": 2e-2, "resume": 2e-2},
}  # fmt: skip
"""{precision: {check: tolerance}}. A check without a tolerance does not run in that precision.

The half precisions lack two. An update is computed in float32 whatever made its gradients, and at the loss scale of the
float16 cases the gradients of the update check overflow. In decoding, rounding picks either of two likely tokens.
"""

GRADIENT_FLOOR = 1e-2
"""A gradient is measured against its own norm, or against this share of the norm of all gradients if that is larger.

Some gradients are zero but for rounding: the bias of a key moves every score of a row alike. Rounding has no digits to
agree on.
"""
