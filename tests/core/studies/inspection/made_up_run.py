"""Makes what a page shows of a run, without a model."""

import numpy as np

from slm_core.protocols import LOGITS, Module
from slm_core.studies.inspection.induction import HeadScores
from slm_core.studies.inspection.lens import LayerLens
from slm_core.studies.inspection.measure import Inside
from slm_core.studies.inspection.prompt import Prompt

WORDS = ("a", "<i>&", "␣", "a", '"x"')


def modules(layers: int) -> list[Module]:
    """Returns the modules of a model whose layers are alike, but for the last one, whose output is wider."""
    made = [
        Module("", "Transformer", {}, 100 * layers + 50, (1, 5, 4), 80),
        Module("embed", "Embedding", {"weight": (7, 4)}, 0, (1, 5, 4), 80),
        Module("dropout", "Dropout", {}, 0, (1, 5, 4), 80),
    ]
    for i in range(layers):
        wide = 8 if i == layers - 1 else 4
        made += [
            Module(f"layers.{i}", "Block", {}, 100, (1, 5, 4), 80),
            Module(f"layers.{i}.mlp", "GeluMLP", {}, 100, (1, 5, 4), 80),
            Module(f"layers.{i}.mlp.up_proj", "Linear", {"weight": (4, 4), "bias": (4,)}, 100, (1, 5, wide), 20 * wide),
        ]
    return [*made, Module(LOGITS, "", {}, 50, (1, 5, 7), 140)]


def inside(layers: int = 3, heads: int = 2, steps: int = 3, details: bool = True, attention: bool = True) -> Inside:
    """Returns a run of a model with so many layers and heads, and as many checkpoints as steps."""
    rng, time = np.random.default_rng(0), len(WORDS)
    paths = [f"layers.{i}.attention.attend" for i in range(layers)] if attention else []
    names = [f"layers.{i}" for i in range(layers)]

    def scores(step: int) -> HeadScores:
        induction = np.linspace(0.1, 0.2 * step, heads)
        return HeadScores(induction, 1 - induction, np.full(heads, 0.05))

    lines = [
        {"step": step}
        | {f"activation_rms/{name}{half}": 1.5 * step for name in names for half in ("", ".attention", ".mlp")}
        | {f"{kind}/{name}.{p}": 3.0 + (p == "b") for name in names for p in "ab" for kind in NORMS}
        for step in (1, 20, 40)
    ]
    return Inside(
        run="models/made-up", step=steps, facts={"framework": "PyTorch <2>", "memory": "9 GB"},
        modules=modules(layers), length=5, weight_bytes=4,
        prompt=Prompt((1, 2, 3, 1, 4), WORDS, (False, True, True, True), "from <nowhere>"),
        maps={path: lower(rng.random((heads, time, time))) for path in paths},
        lens=[LayerLens(n, np.array([2, 3, 1, 4, 6]), np.linspace(0, 1, time), 3.0 - i) for i, n in enumerate(names)],
        words={1: "a", 2: "<i>&", 3: "␣", 4: '"x"', 6: "#6"}, rms=dict.fromkeys(names, 0.5),
        heads={step: {path: scores(step) for path in paths} for step in range(1, steps + 1)},
        details=lines if details else [],
    )  # fmt: skip


NORMS = ("weight_norm", "gradient_norm")


def lower(weights: np.ndarray) -> np.ndarray:
    """Returns weights that are causal, and sum to 1 in each row."""
    seen = np.tril(weights)
    return seen / seen.sum(-1, keepdims=True)
