"""A made-up study, for the tests of the report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from slm_core.studies.comparison import Comparison, compare_all
from slm_core.studies.results import CellResult, Point, StudyResult, Trial, VariantFacts

ODD_NAME = 'grouped & <i>multi</i> | "query"'
"""A name that must be escaped in HTML, in SVG and in Markdown."""
NAMES = ("multi-head", ODD_NAME, "latent", "no positions")
GAINS = (0.0, -0.0123, -0.0006, 0.0452)
"""The true differences to the first variant, nats."""


@dataclass(frozen=True)
class Study:
    """A study's result with its comparisons."""

    result: StudyResult
    comparisons: list[Comparison] = field(default_factory=list)


def study(
    names: Sequence[str] = NAMES,
    gains: Sequence[float] = GAINS,
    frameworks: Sequence[str] = ("torch", "flax"),
    seeds: int = 5,
    finished: bool = True,
    failed: bool = True,
    trials: bool = True,
    points: int = 12,
) -> Study:
    """Makes a study whose numbers are drawn from a fixed seed.

    Args:
      failed: the last variant's last run fails.
      finished: False: no run has finished.
    """
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.02, seeds)
    cells = []
    for place, (name, gain) in enumerate(zip(names, gains, strict=True)):
        own = random.normal(0, 0.002, seeds)
        for framework in frameworks:
            for seed in range(seeds):
                last = failed and place == len(names) - 1 and framework == frameworks[-1] and seed == seeds - 1
                final = 1.4163 + gain + noise[seed] + own[seed] + random.normal(0, 0.0004)
                cells.append(cell(name, framework, seed, final, points, finished and not last, last))
    result = StudyResult(
        name="attention",
        question="Which attention trains best at 1M parameters?",
        command="uv run scripts/compare.py --config configs/default.py --vary model.attention.kind=mha,mla --seeds 5",
        preset="configs/default.py",
        fields={"model.attention.n_kv_heads": 4, "optim.lr": 0.001, "model.width": 128},
        match="parameters",
        variants=tuple(facts(name, place) for place, name in enumerate(names)),
        frameworks=tuple(frameworks),
        seeds=tuple(range(seeds)),
        cells=tuple(cells),
        trials=tuple(made_up_trials(names, gains)) if trials else (),
        versions={"python": "3.12.8", "torch": "2.10.0", "jax": "0.10.2", "flax": "0.12.1"},
        machine="Intel Xeon, 2 cores, 8 GB",
    )
    return Study(result, compare_all(result) if finished else [])


def cell(name: str, framework: str, seed: int, final: float, points: int, finished: bool, failed: bool) -> CellResult:
    steps = np.linspace(600 / points, 600, points).round().astype(int)
    losses = final + 3.2 * np.exp(-5 * steps / 600) - 3.2 * math.exp(-5)
    evaluations = tuple(Point(int(s), int(s) * 2048, float(x)) for s, x in zip(steps, losses, strict=True))
    return CellResult(
        variant=name,
        framework=framework,
        seed=seed,
        folder=f"models/attention/{seed}-{framework}",
        evaluations=evaluations if finished else evaluations[:3],
        finished=finished,
        tokens_per_second=24_310.0 if framework == "torch" else 18_820.0,
        peak_memory_bytes=612_000_000 if framework == "torch" else 1_480_000_000,
        error="RuntimeError: out of memory while the state <params> was allocated" if failed else "",
    )


def facts(name: str, place: int) -> VariantFacts:
    adjusted = {"model.width": 128 + 4 * place, "optim.lr": 0.001 * place} if place else {}
    notes = (f"width {128 + 4 * place} instead of 128: 1.04M parameters", "the best of 6 trials") if place else ()
    return VariantFacts(
        name,
        {"model.attention.n_kv_heads": 4 - place % 4},
        adjusted,
        notes,
        1_038_400 + 3_000 * place,
        3.2e9,
        600,
        2048,
    )


def made_up_trials(names: Sequence[str], gains: Sequence[float]) -> list[Trial]:
    trials = []
    for name, gain in zip(names, gains, strict=True):
        for i, lr in enumerate(np.geomspace(1e-4, 1e-2, 6)):
            loss = 1.42 + gain + 0.08 * (math.log10(lr) + 2.8 + gain) ** 2
            trials.append(Trial(name, {"optim.lr": float(f"{lr:.2g}")}, None if i == 5 and gain > 0.04 else loss))
    return trials


def many(number: int, **others) -> Study:
    """Makes a study of many variants."""
    gains = [0.0, *np.random.default_rng(1).normal(0, 0.02, number - 1)]
    return study([f"model.position.kind=kind{i}, n_kv_heads={i}" for i in range(number)], gains, **others)
