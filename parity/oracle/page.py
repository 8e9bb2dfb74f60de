"""Writes the results of the outside oracle as a page."""

from collections.abc import Iterable, Mapping

from parity.oracle.measure import LENGTH, ROWS, TOLERANCES, Measured
from parity.report import machine, number
from slm_core.runs.provenance import versions
from slm_core.studies.tables import markdown_table

INTRODUCTION = """# The outside oracle

Written by `{command}`, not by hand. Twins can be equal and both wrong. So every family of models that
`scripts/convert.py` imports is compared with its class in Hugging Face transformers: a tiny model of it, with random
weights in every parameter, is saved, imported into each twin, run on {rows} sequences of {length} tokens, exported and
loaded again.

- **logits**: the largest difference from their logits, which are of order 1.
- **gradient**: relative L2 of the gradient of the loss in each parameter, the worst.
- **export**: the largest difference of a twin's logits from those of the class that `AutoModelForCausalLM` loads from
  the exported folder.

The tolerance of each is {float32:.0e} in float32 and {float64:.0e} in float64. A model has a row in float64 if its
class computes in it throughout: most compute rotations and RMSNorm in float32, whatever their weights are.

{summary}

{versions}. {machine}; on the CPU.
"""

FEATURES = """

## What these cases notice
The largest change of the PyTorch twin's logits if it lacks one feature of the case, as a mistake would change them.

"""


def page(results: list[Measured], moved: Mapping[str, Mapping[str, float]], command: str) -> str:
    """Returns the page.

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
    head = ["model", "twin", "dtype", "logits", "gradient", "export"]
    rows = [[r.case, r.twin, r.precision, *(_entry(e, r) for e in r.errors)] for r in results]
    text += "\n" + markdown_table(head, rows)
    features = list(dict.fromkeys(feature for found in moved.values() for feature in found))
    rows = [[case, *(f"{found[f]:.1g}" if f in found else "" for f in features)] for case, found in moved.items()]
    return text + FEATURES + markdown_table(["model", *features], rows) + "\n"


def _entry(error: float, result: Measured) -> str:
    text = number(error)
    return text if error <= TOLERANCES[result.precision] else f"**{text}**"


def _summary(results: Iterable[Measured]) -> str:
    results = list(results)
    failed = [r for r in results if not r.passed]
    count = f"{len({r.case.partition(',')[0] for r in results})} families, {len({r.case for r in results})} models, "
    return count + (f"**{len(failed)} above their tolerance**." if failed else "all within their tolerances.")


def _transformers() -> str:
    import transformers

    return transformers.__version__
