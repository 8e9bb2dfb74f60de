"""Makes mutants of one file of `slm_core`, and lists those that none of its tests catch.

`python -m tests.core.mutants model.positions` prints {"made": number, "left": [name, ...]} as JSON. What both twins
share, no comparison of twins can check. The mutants are made by the rules of `tests/parity/faults/generated.py`.
"""

import json
import sys
from importlib import import_module

from tests.generated_mutants import Reasons, tests_pass

TESTS = {
    "model.positions": ("core/model/test_positions.py", "outside/test_formulas.py"),
    "model.dropout": ("outside/test_random_numbers.py",),
    "model.initialization": (
        "core/model/test_initialization.py", "outside/test_random_numbers.py", "outside/test_formulas.py",
    ),
    "model.mup": ("core/model/test_mup.py", "outside/test_formulas.py"),
    "model.parameter_groups": ("core/model/test_parameter_groups.py",),
    "training.schedules": ("core/training/test_schedules.py", "outside/test_formulas.py"),
    "inference.sampling": ("core/inference/test_sampling.py", "outside/test_formulas.py"),
    "inference.evaluation": ("core/inference/test_evaluation.py",),
    "quantization.blockwise": ("core/quantization/test_blockwise.py", "outside/test_formulas.py"),
    "quantization.formats": ("core/quantization/test_formats.py", "outside/test_formulas.py"),
    "quantization.lora": ("core/quantization/test_lora.py",),
    "data.pipeline": ("core/data/test_pipeline.py",),
    "data.split": ("core/data/test_split.py",),
}  # fmt: skip
"""{file of `slm_core`: its tests, in `tests/`}."""

EQUIVALENT: dict[str, Reasons] = {
    "model.positions": {
        "a head of one pair turns by theta^0, whatever theta is": (
            "model.positions _ntk: width > 2 -> width >= 2",
            "model.positions _ntk: 1.0 -> 2.0",
            "model.positions _ntk: 2 -> 3",
        ),
        "more slopes, or fewer, of those that are cut off": (
            "model.positions alibi_slopes: 2 * power + 1 -> 2 * power - 1",
            "model.positions alibi_slopes: 1 -> 2",
            "model.positions alibi_slopes: 2 -> 3",
        ),
        "distances that have a bucket of their own do not read the coarse one; at the border both are equal": (
            "model.positions t5_buckets: 1 -> 2",
            "model.positions t5_buckets: distance < exact -> distance <= exact",
        ),
    },
    "training.schedules": {
        "no update comes after the last one": ("training.schedules _fall: 1.0 -> 2.0",),
        "the cosine of pi + x is that of pi - x": (
            "training.schedules _cosine: 1.0 - _fall(since, last) -> 1.0 + _fall(since, last)",
        ),
        "a length of one does the same for a single update": ("training.schedules learning_rates: 0 -> 1",),
        "at the last update of warm-up plus one, both are the peak": (
            "training.schedules learning_rates: k < rising -> k <= rising",
        ),
    },
    "inference.sampling": {
        "with top_p = 1 every token is kept": (
            "inference.sampling probabilities: top_p < 1 -> top_p <= 1",
            "inference.sampling probabilities: 1 -> 2",
        ),
        "a total of 1, but for rounding": (
            "inference.sampling sample: uniform * cumulative[-1] -> uniform / cumulative[-1]",
        ),
        "the last token returns before the loop ends": ("inference.sampling _continue: 1 -> 2",),
    },
    "data.pipeline": {"windows are of one length": ("data.pipeline _draw: 0 -> 1",)},
    "data.split": {
        "the document's size either way": ("data.split block_start: offset >= size -> offset > size",),
        "after a newline comes a character": (
            "data.split block_start: 0 -> 1",
            "data.split block_start: newline >= 0 -> newline > 0",
        ),
        "a character has three bytes after its first": ("data.split block_start: 5 -> 6",),
        "sizes below the smallest block": ("data.split _power_of_two: 0 -> 1",),
    },
    "quantization.blockwise": {
        "any negative length stands for the rest": (
            *("quantization.blockwise quantise: 1 -> 2",) * 3,
            "quantization.blockwise dequantise: 1 -> 2",
        ),
        "the same axis, counted from the other end": ("quantization.blockwise quantise: -1 -> +1",),
    },
    "quantization.formats": {
        "any negative length stands for the rest": (
            *("quantization.formats nf4_parts: 1 -> 2",) * 4,
            *("quantization.formats nf4_matrix: 1 -> 2",) * 4,
        ),
        "a copy has the same numbers": ("quantization.formats stored: False -> True",),
    },
    "quantization.lora": {
        "a depth of the other sign": ("quantization.lora alternatives: char == '(' -> char != '('",),
    },
}
"""{file: reasons}."""


APART = "not of_the_twins"
"""Leaves out the tests that need a twin."""


def survivors(name: str) -> dict:
    """Runs the tests of a file for each of its mutants; returns how many were made, and the names of those left."""
    from faults import generated

    tests, made = [f"tests/{test}" for test in TESTS[name]], generated.mutants_of(import_module(f"slm_core.{name}"))
    assert tests_pass(tests, APART), f"the tests of {name} must pass before anything is broken"
    left = []
    for mutant in made:
        with mutant.alive():
            if tests_pass(tests, APART):
                left.append(mutant.name)
    return {"made": len(made), "left": left}


if __name__ == "__main__":
    print(json.dumps(survivors(sys.argv[1])))
