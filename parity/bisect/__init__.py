"""Finds the first tensor, in execution order, in which two models that should agree differ.

`bisect_pair` takes the twins of a case through every stage of training and decoding; `bisect_models` any two models
that can be traced, forward and backward.
"""

from parity.bisect.divergence import Divergence
from parity.bisect.models import Traceable, bisect_models
from parity.bisect.pairs import bisect_pair

__all__ = ["Divergence", "Traceable", "bisect_models", "bisect_pair"]
