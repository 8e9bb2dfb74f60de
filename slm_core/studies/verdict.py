"""Says in words what a comparison with the baseline has shown."""

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass

from slm_core.studies.statistics import ALPHA, MOST_SEEDS, Paired, interval_factor, seeds_needed

MOST_NAMED_SEEDS = 100
"""Beyond this, the number of seeds that a decision needs is not named."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison has shown.

    Args:
      kind: "better", "worse", "same", "undecided", "below the rounding floor", "frameworks disagree" or "diverged".
      text: one sentence without a full stop.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Evidence:
    """What a verdict is made of. Differences are losses of the variant minus losses of the baseline, in nats per token.

    Args:
      variant: the variant's name.
      baseline: the baseline's name.
      frameworks: {framework: its differences}. Their p values are not corrected.
      pooled: the differences per seed, each the mean of the frameworks' differences.
      p_holm: the pooled p value of the t test, corrected by Holm's method; NaN with fewer than two seeds.
      floor: the rounding floor of the pooled mean; None if only one framework ran.
      margin: "same" means that the interval lies within plus or minus this.
      comparisons: number of comparisons that p_holm is corrected for.
      seeds: number of seeds that the study asks for.
      diverged: {variant: number of its runs that finished with a loss that is not finite}, if there are any.
    """

    variant: str
    baseline: str
    frameworks: Mapping[str, Paired]
    pooled: Paired
    p_holm: float
    floor: float | None
    margin: float
    comparisons: int
    seeds: int
    diverged: Mapping[str, int]


def verdict(evidence: Evidence) -> Verdict:
    """Says in words what a comparison has shown.

    A variant wins in a framework if that framework alone finds a lower loss with p <= 0.05, not corrected. It loses if
    that framework finds a higher loss. The first rule that applies decides:

    1. "diverged": a finished run of either variant has no finite loss. The other seeds are a selection, and prove
       nothing.
    2. "undecided": fewer than two seeds count.
    3. "frameworks disagree": the variant wins in one framework and loses in another.
    4. "below the rounding floor": the corrected p value is at most 0.05, but the mean is no larger than the floor.
    5. "frameworks disagree": the corrected p value is at most 0.05, but a framework does not find the same alone.
       A framework with fewer than two seeds has no say. Then the text says so.
    6. "better" or "worse", as the sign of the mean says: the corrected p value is at most 0.05.
    7. "same": the pooled interval lies within plus or minus the margin. The text names the larger end of the interval.
    8. "undecided": all else. The text says how many more seeds would decide: see `more_seeds`.

    If fewer seeds count than the study asks for, the text says so.
    """
    kind, text = _decide(evidence)
    n = evidence.pooled.n
    if 0 < n < evidence.seeds:
        text += f"; {n} of {evidence.seeds} seeds count{'s' if n == 1 else ''}"
    return Verdict(kind, text)


def more_seeds(evidence: Evidence) -> int | None:
    """Estimates how many more seeds would decide: the fewest that do one of two things.

    - They find the present mean difference with a power of 80%, at the level 0.05 / comparisons.
    - They shrink the interval around the present mean so far that it lies within the margin.

    Both take the present standard deviation and mean for the true ones.

    Returns:
      At least 1; None if 10,000 seeds are too few, or fewer than two seeds count.
    """
    pooled = evidence.pooled
    if pooled.n < 2:
        return None
    answers = (seeds_needed(pooled.sd, pooled.mean, ALPHA / evidence.comparisons), _seeds_for_same(evidence))
    needed = [n for n in answers if n is not None]
    return max(min(needed) - pooled.n, 1) if needed else None


def _seeds_for_same(evidence: Evidence) -> int | None:
    sd, room = evidence.pooled.sd, evidence.margin - abs(evidence.pooled.mean)
    numbers = range(2, MOST_SEEDS + 1)
    place = bisect.bisect_left(numbers, True, key=lambda n: interval_factor(n - 1) * sd / math.sqrt(n) <= room)
    return numbers[place] if place < len(numbers) else None


def _decide(evidence: Evidence) -> tuple[str, str]:
    pooled, floor = evidence.pooled, evidence.floor
    if evidence.diverged:
        return "diverged", _diverged(evidence)
    if pooled.n < 2:
        return "undecided", _too_few(evidence)
    signs = {name: _sign(part, part.p_t) for name, part in evidence.frameworks.items() if part.n >= 2}
    if {-1, 1} <= set(signs.values()):
        return "frameworks disagree", _disagreement(evidence)
    sign = _sign(pooled, evidence.p_holm)
    if sign == 0:
        return _no_winner(evidence)
    if floor is not None and abs(pooled.mean) <= floor:
        made = f"rounding alone can make {_number(floor, floor)}"
        return "below the rounding floor", f"below the rounding floor: {_signed(pooled)} nats, but {made}"
    if any(other != sign for other in signs.values()):
        return "frameworks disagree", _disagreement(evidence)
    kind = "better" if sign < 0 else "worse"
    size = f"{_number(abs(pooled.mean), pooled.half_width)} ± {_number(pooled.half_width, pooled.half_width)} nats"
    return kind, f"{evidence.variant} is {kind} by {size} ({_p(evidence.p_holm)}){_unconfirmed(evidence)}"


def _sign(part: Paired, p: float) -> int:
    """Returns -1 if the variant wins, 1 if it loses, 0 if neither is sure."""
    return int(math.copysign(1, part.mean)) if p <= ALPHA else 0


def _no_winner(evidence: Evidence) -> tuple[str, str]:
    pooled = evidence.pooled
    largest = max(abs(pooled.low), abs(pooled.high))
    if largest == 0:
        return "same", f"no difference: {evidence.variant} and {evidence.baseline} have the same loss on every seed"
    if largest <= evidence.margin:
        return "same", f"no difference larger than {_rounded_up(largest)} nats can be seen"
    return "undecided", f"undecided: {_seeds(more_seeds(evidence))} ({_signed(pooled)} nats, {_p(evidence.p_holm)})"


def _seeds(more: int | None) -> str:
    if more is None or more > MOST_NAMED_SEEDS:
        return f"more than {MOST_NAMED_SEEDS} more seeds would be needed"
    return f"about {more} more seed{'' if more == 1 else 's'} would decide it"


def _too_few(evidence: Evidence) -> str:
    if evidence.pooled.n == 0:
        return f"undecided: no seed has finished in both {evidence.variant} and {evidence.baseline}"
    return "undecided: one seed gives no interval, at least 1 more is needed"


def _diverged(evidence: Evidence) -> str:
    runs = [f"{name} diverged in {n} run{'' if n == 1 else 's'}" for name, n in evidence.diverged.items()]
    return f"{' and '.join(runs)}: the other seeds prove nothing"


def _disagreement(evidence: Evidence) -> str:
    tested = {name: part for name, part in evidence.frameworks.items() if part.n >= 2}
    parts = [f"{_signed(part)} nats in {name} ({_p(part.p_t)})" for name, part in tested.items()]
    return f"the frameworks disagree on {evidence.variant}: {', '.join(parts)}"


def _unconfirmed(evidence: Evidence) -> str:
    names = [name for name, part in evidence.frameworks.items() if part.n < 2]
    return f"; too few seeds in {', '.join(names)} to confirm it" if names else ""


def _signed(part: Paired) -> str:
    sign = "-" if part.mean < 0 else "+"
    return f"{sign}{_number(abs(part.mean), part.half_width)} ± {_number(part.half_width, part.half_width)}"


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _number(value: float, uncertainty: float) -> str:
    """Writes a value with the decimals of its uncertainty: one digit that counts, or two if the first is a 1."""
    if not 0 < uncertainty < math.inf:
        return f"{value:.4f}"
    first, _, exponent = f"{uncertainty:.0e}".partition("e")
    return f"{value:.{min(max(-int(exponent) + (first == '1'), 1), 6)}f}"


def _rounded_up(value: float) -> str:
    """Writes a positive value with two digits that count, never less than it is."""
    decimals = max(1 - math.floor(math.log10(value)), 1)
    text = f"{math.ceil(round(value * 10**decimals, 6)) / 10**decimals:.{decimals}f}"
    return text.rstrip("0") if "." in text else text
