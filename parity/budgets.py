"""The ladder's rungs and how far apart the twins may be on each.

float64 shows that the functions are the same; float32 is a budget, because rounding is chaotic; the half precisions
must skip the same updates and keep close losses.
"""

RUNGS = {
    0: "init",
    1: "logits",
    2: "gradient",
    3: "update",
    4: "curve",
    5: "decode",
    6: "hand-off",
}

METRICS = {
    0: "largest difference of the state that the seed gives; 0 is bitwise, names, shapes and dtypes included",
    1: "largest difference of logits over their root mean square (or over 1, if that is larger)",
    2: "relative L2 of the gradient of each parameter and of the loss, the worst",
    3: "relative L2 of each parameter and optimizer state after one update, the worst",
    4: "largest difference of the losses of 100 updates; the same updates skipped at the same loss scales",
    5: "as 1, with the KV cache against the full forward of either twin; greedy and sampled tokens identical",
    6: "as 4, with N updates in one twin and N in the other against 2N in the first, both ways",
}

BUDGETS = {
    "float64": {0: 0.0, 1: 1e-12, 2: 1e-12, 3: 1e-12, 4: 1e-10, 5: 1e-12, 6: 1e-10},
    "float32": {0: 0.0, 1: 1e-5, 2: 1e-5, 3: 1e-5, 4: 1e-4, 5: 1e-5, 6: 1e-4},
    "float16": {0: 0.0, 1: 2e-2, 2: 2e-2, 4: 2e-2, 6: 2e-2},
    "bfloat16": {0: 0.0, 1: 1e-1, 2: 1e-1, 4: 2e-2, 6: 2e-2},
}
"""{precision: {rung: budget}}. A rung that a precision lacks is not climbed: an update is float32's whatever made its
gradients, and at the scale of the float16 cells rung 3's overflow; of two likely tokens rounding picks either (rung 5).
"""

GRADIENT_FLOOR = 1e-2
"""Rung 2 measures a gradient against its own norm, or against this share of the norm of them all: some gradients are
zero but for rounding (the key's bias moves every score of a row alike), and rounding has no digits to agree on."""
