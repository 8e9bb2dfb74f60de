"""Judges the import of a variant: equal to the class, refused in one line, wrong, a crash, or the class cannot run."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parity.distances import of_order_one
from parity.oracle import imports_class
from parity.oracle.imports import Variant, base_values
from parity.oracle.imports_class import Reference
from parity.oracle.journal import Journal
from parity.oracle.stepping import LENGTH, stepped
from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.hf.importing import open_folder
from slm_core.model.weights import Weights
from slm_torch.evaluator import Evaluator

EQUAL, REFUSED, WRONG, CRASH, UNJUDGED = OUTCOMES = ("equal", "refused", "wrong", "crash", "unjudged")
BAD = (WRONG, CRASH)
TOLERANCE = 2e-4
"""Of the largest difference of logits, over their root mean square if that is above 1."""
CPU = {"precision.params": "float32", "precision.compute": "float32", "run.device": "cpu"}

Twin = Callable[[Config, int, Weights, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Computes logits and cached logits, as in `Reference`, of a config, a vocabulary and weights on tokens."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a variant in a twin. `detail` is the error, or the largest difference."""

    family: str
    name: str
    twin: str
    outcome: str
    detail: str


def torch_logits(
    config: Config, vocab_size: int, weights: Weights, tokens: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Runs the PyTorch twin."""
    evaluator = Evaluator(config, vocab_size, weights)
    with torch.no_grad():
        logits = evaluator.model.logits(evaluator.model(torch.from_numpy(tokens).long())[0]).numpy()
    return logits, stepped(evaluator.decoder(), tokens[0])


def judge(variant: Variant, twins: dict[str, Twin]) -> Iterator[Verdict]:
    """Yields the verdict of a variant in each twin."""
    values = variant.values()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, reason = _class(variant, values, folder)
        try:
            imported, items = open_folder(folder)
            weights = dict(items)
        except UserError as error:
            one = "\n" not in str(error) and str(error)
            for twin in twins:
                yield Verdict(variant.family, variant.name, twin, REFUSED if one else CRASH, str(error))
            return
        except Exception as error:
            for twin in twins:
                yield Verdict(variant.family, variant.name, twin, CRASH, f"{type(error).__name__}: {error}")
            return
        length = min(LENGTH, imported.config.data.seq_len)
        reference = None
        if model is not None:
            try:
                reference = imports_class.run(model, imported.vocab_size, length)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
        for twin, compute in twins.items():
            outcome, detail = _compared(compute, imported.config, imported.vocab_size, weights, reference, reason)
            yield Verdict(variant.family, variant.name, twin, outcome, detail)


def _class(variant: Variant, values: dict[str, Any], folder: Path) -> tuple[Any, str]:
    """Makes the model of a variant and its folder. If the class refuses, the folder has the tensors of the base."""
    reason = ""
    if not variant.misfit:
        try:
            return imports_class.make(folder, values), ""
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    base = base_folder(variant.base)
    shutil.copyfile(base / "model.safetensors", folder / "model.safetensors")
    imports_class.write_config(folder, values)
    if not variant.misfit:
        return None, reason
    try:
        return imports_class.load(folder), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


_bases: dict[str, tempfile.TemporaryDirectory] = {}


def base_folder(name: str) -> Path:
    """Returns the folder of the model of a base."""
    if name not in _bases:
        _bases[name] = tempfile.TemporaryDirectory()
        imports_class.make(Path(_bases[name].name), base_values(name))
    return Path(_bases[name].name)


def _compared(
    compute: Twin, config: Config, vocab_size: int, weights: Weights, reference: Reference | None, reason: str
) -> tuple[str, str]:
    if reference is None:
        return UNJUDGED, reason
    if not (np.isfinite(reference.logits).all() and np.isfinite(reference.cached).all()):
        return UNJUDGED, "the class's logits are not finite"
    try:
        logits, cached = compute(with_values(config, CPU), vocab_size, weights, reference.tokens)
    except UserError as error:
        return REFUSED, str(error)
    except Exception as error:
        return CRASH, f"{type(error).__name__}: {error}"
    errors = of_order_one(logits, reference.logits), of_order_one(cached, reference.cached)
    return (EQUAL if max(errors) <= TOLERANCE else WRONG), f"prompt {errors[0]:.0e}, cache {errors[1]:.0e}"


class Verdicts:
    """The verdicts of a sweep.

    Args:
      path: of their journal; "": none.
    """

    def __init__(self, path: str = ""):
        self._journal = Journal(path)
        self.verdicts = [Verdict(**entry) for entry in self._journal.entries]

    def has(self, variant: Variant, twin: str) -> bool:
        """Returns whether a variant was judged in a twin."""
        return any((each.name, each.twin) == (variant.name, twin) for each in self.verdicts)

    def add(self, verdict: Verdict) -> None:
        """Keeps a verdict."""
        self.verdicts.append(verdict)
        self._journal.write(asdict(verdict))


def counts(verdicts: Sequence[Verdict]) -> Counter[str]:
    """Counts the verdicts by outcome."""
    return Counter(verdict.outcome for verdict in verdicts)
