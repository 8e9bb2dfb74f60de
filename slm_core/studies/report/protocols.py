"""What the report reads of the statistics of a study."""

from collections.abc import Mapping
from typing import Protocol


class Paired(Protocol):
    """A mean of differences: one per seed, variant minus baseline. Losses are nats per token."""

    @property
    def mean(self) -> float: ...

    @property
    def low(self) -> float:
        """Lower end of the 95% interval of the mean; NaN or None if there are too few seeds."""
        ...

    @property
    def high(self) -> float: ...

    @property
    def n(self) -> int: ...

    @property
    def p_t(self) -> float | None: ...

    @property
    def p_permutation(self) -> float | None: ...


class Verdict(Protocol):
    """A verdict: one of a few kinds, such as "better", and a sentence."""

    @property
    def kind(self) -> str: ...

    @property
    def text(self) -> str: ...


class Comparison(Protocol):
    """A variant, compared with the baseline."""

    @property
    def variant(self) -> str: ...

    @property
    def by_framework(self) -> Mapping[str, Paired]: ...

    @property
    def pooled(self) -> Paired:
        """The differences per seed, averaged over the twins."""
        ...

    @property
    def p_holm(self) -> float | None: ...

    @property
    def floor(self) -> float | None:
        """The rounding floor, nats; None without both twins."""
        ...

    @property
    def tokens_ratio(self) -> float | None:
        """Tokens to reach the baseline's final loss, per token of the baseline; None if the variant does not."""
        ...

    @property
    def verdict(self) -> Verdict: ...
