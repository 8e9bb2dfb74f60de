"""Writes the results of the outside oracle as a page."""

from collections.abc import Iterable, Mapping

from parity.oracle.measure import LENGTH, ROWS, TOLERANCES, Measured
from parity.report import machine, number
from slm_core.runs.provenance import versions
from slm_core.studies.tables import markdown_table

INTRODUCTION = """# The outside oracle

Written by `{command}`, not by hand. Two twins can be equal and both wrong. So this page compares them with
Hugging Face transformers: each model family that `scripts/convert.py` imports, with its class there. A case is a tiny
model with random weights in every parameter. It is saved, imported into each twin, run on {rows} sequences of
{length} tokens, exported and loaded again.

- **logits**: the largest difference between the twin's logits and those of the class. Logits are of order 1.
- **gradient**: the relative L2 error of the gradient of the loss, for the parameter with the largest error.
- **export**: the largest difference between the twin's logits and those of the exported model. `AutoModelForCausalLM`
  loads that model.

What no family has, and single formulas, are compared in [formulas.md](formulas.md).

The tolerance of each is {float32:.0e} in float32 and {float64:.0e} in float64. A case has a row in float64 if its
class computes in float64 throughout. Most classes compute rotations and RMSNorm in float32, whatever their weights are.

{summary}

{versions}. {machine}; on the CPU.
"""

FEATURES = """

## What these cases notice
Each entry is the largest change of the PyTorch twin's logits when one feature of the case is turned off. A mistake in
that feature would change them in the same way.

"""


def page(results: list[Measured], moved: Mapping[str, Mapping[str, float]], command: str) -> str:
    """Writes the text of the page.

    Args:
      results: of all cases, twins and precisions.
      moved: {case: {feature: change of logits without it}}.
      command: the command that gave the results.
    """
    shown = {name: version for name, version in versions().items() if name in ("torch", "jax", "flax")}
    shown["transformers"] = _transformers()
    text = INTRODUCTION.format(
        command=command, rows=ROWS, length=LENGTH, summary=_summary(results), machine=machine(),
        versions=", ".join(f"{name} {version}" for name, version in shown.items()), **TOLERANCES,
    )  # fmt: skip
    head = ["case", "twin", "dtype", "logits", "gradient", "export"]
    rows = [[r.case, r.twin, r.precision, *(_entry(e, r) for e in r.errors)] for r in results]
    text += "\n" + markdown_table(head, rows)
    features = list(dict.fromkeys(feature for changes in moved.values() for feature in changes))
    rows = [[case, *(f"{changes[f]:.1g}" if f in changes else "" for f in features)] for case, changes in moved.items()]
    return text + FEATURES + markdown_table(["case", *features], rows) + "\n"


def _entry(error: float, result: Measured) -> str:
    text = number(error)
    return text if error <= TOLERANCES[result.precision] else f"**{text}**"


def _summary(results: Iterable[Measured]) -> str:
    results = list(results)
    failed = [r for r in results if not r.passed]
    count = f"{len({r.case for r in results})} cases of {len({r.case.partition(',')[0] for r in results})} families, "
    return count + (f"**{len(failed)} above their tolerance**." if failed else "all within their tolerances.")


def _transformers() -> str:
    import transformers

    return transformers.__version__
