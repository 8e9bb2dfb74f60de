"""One formula of ours beside an outside source of it: somebody else's code, or the numbers of the paper."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Formula:
    """A formula and its outside source.

    Args:
      about: the settings that it computes, such as "position.scaling=yarn", or a word for what no setting chooses.
      source: whose code or numbers it is compared with.
      ours: computes it in a twin, from `tests/conformance/twins`; in `slm_core`, if `shared`.
      theirs: computes it by the source.
      shared: whether `slm_core` computes it, once for both twins.
      tolerance: of the largest difference, beside the largest number of the source.
      why: the reason of a tolerance above 1e-11.
    """

    about: str
    source: str
    ours: Callable[[Any], Any]
    theirs: Callable[[], Any]
    shared: bool = False
    tolerance: float = 1e-11
    why: str = ""

    def difference(self, twin: ModuleType | None) -> float:
        """Returns the largest difference, as a part of the largest number of the source."""
        ours, theirs = np.asarray(self.ours(twin), np.float64), np.asarray(self.theirs(), np.float64)
        assert ours.shape == theirs.shape and theirs.any()
        return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
