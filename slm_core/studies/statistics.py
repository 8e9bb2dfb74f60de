"""Tests differences per seed: the paired t test, the sign-flip permutation test, Holm's correction and power."""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
"""The level of every interval."""
ALPHA = 0.05
"""A p value of at most this is significant."""
POWER = 0.8
"""The rate at which a planned study should find a true difference."""
EXACT_SEEDS = 16
"""With more seeds than this, the permutation test draws 2^16 of the 2^n flips of signs."""
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Paired:
    """The mean of differences per seed, and how sure it is.

    Args:
      mean: mean difference; NaN without seeds.
      low: lower end of the 95% interval of the mean; -infinity with fewer than two seeds.
      high: upper end; infinity with fewer than two seeds.
      sd: standard deviation of the differences, with n - 1 in the denominator; NaN with fewer than two seeds.
      n: number of seeds.
      p_t: p value of the two-sided paired t test; NaN with fewer than two seeds.
      p_permutation: p value of the two-sided sign-flip permutation test; NaN without seeds.
    """

    mean: float
    low: float
    high: float
    sd: float
    n: int
    p_t: float
    p_permutation: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval: the number after "±"."""
        return (self.high - self.low) / 2


def paired(differences: Mapping[int, float]) -> Paired:
    """Tests whether the mean of differences per seed is zero.

    The t test (Student, 1908) decides. The permutation test (Fisher, The Design of Experiments, 1935, section 21)
    assumes no normal distribution. Its p value is never below 2 / 2^n, so with 5 seeds it cannot be significant.

    Special cases:
      no seed: everything is NaN, the interval is infinite.
      one seed: the mean is known; the interval is infinite, p_t is NaN, and p_permutation is 1.
      equal differences: the interval is the mean alone. p_t is 0, or 1 if the mean is 0.

    Args:
      differences: {seed: difference}. Values that are not finite are left out.
    """
    values = np.array([value for value in differences.values() if math.isfinite(value)])
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n < 2:
        return Paired(mean, -math.inf, math.inf, math.nan, n, math.nan, 1.0 if n else math.nan)
    if np.ptp(values) == 0:
        mean = float(values[0])
        return Paired(mean, mean, mean, 0.0, n, float(mean == 0), _sign_flip_p(values))
    from scipy import special

    sd = float(values.std(ddof=1))
    error = sd / math.sqrt(n)
    half_width = interval_factor(n - 1) * error
    p_t = 2 * float(special.stdtr(n - 1, -abs(mean) / error))
    return Paired(mean, mean - half_width, mean + half_width, sd, n, p_t, _sign_flip_p(values))


def interval_factor(degrees_of_freedom: float, confidence: float = CONFIDENCE) -> float:
    """Returns the half-width of an interval in standard errors: of 95%, the 97.5% quantile of Student's t."""
    from scipy import special

    return float(special.stdtrit(degrees_of_freedom, (1 + confidence) / 2))


def _sign_flip_p(values: np.ndarray) -> float:
    from scipy import stats

    # Of one sample, "samples" flips the signs; all 2^n flips, if they are no more than n_resamples.
    test = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=2**EXACT_SEEDS, rng=0
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p values for their number (Holm, A simple sequentially rejective multiple test procedure, 1979).

    The i-th smallest of m values, from 0, is multiplied by m - i. No corrected value is above 1, or below that of a
    smaller p value. With a probability of at least 1 - alpha, no true null hypothesis has a corrected value of alpha or
    less.

    Args:
      p_values: in any order. NaN stays NaN, and does not count.

    Returns:
      The corrected values, in the given order.
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def detection_rate(sd: float, difference: float, n: int, alpha: float = ALPHA) -> float:
    """Computes the power of the two-sided paired t test: how often it finds a true difference.

    The test statistic has a noncentral t distribution with n - 1 degrees of freedom. Its noncentrality is
    difference * sqrt(n) / sd (Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988).

    Args:
      sd: standard deviation of the differences per seed.
      difference: the true mean difference.
      n: number of seeds, at least 2.
      alpha: level of the test.
    """
    from scipy import special, stats

    if sd == 0:
        return float(difference != 0)
    noncentrality = abs(difference) * math.sqrt(n) / sd
    critical = special.stdtrit(n - 1, 1 - alpha / 2)
    upper = stats.nct.sf(critical, n - 1, noncentrality)
    if noncentrality > 5:  # the lower tail is below the normal distribution's 3e-7, and scipy's is NaN if it is tiny
        return float(upper)
    return float(upper + stats.nct.cdf(-critical, n - 1, noncentrality))


def seeds_needed(sd: float, difference: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Computes the fewest seeds, at least 2, with which a true difference is found at the rate `power`.

    Returns:
      The number of seeds; None if 10,000 are too few.
    """
    numbers = range(2, MOST_SEEDS + 1)
    place = bisect.bisect_left(numbers, power, key=lambda n: detection_rate(sd, difference, n, alpha))
    return numbers[place] if place < len(numbers) else None


def smallest_visible(sd: float, n: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """Computes the smallest true difference that `n` seeds find at the rate `power`; infinity with fewer than two."""
    from scipy import optimize

    if n < 2:
        return math.inf
    if sd == 0:
        return 0.0
    most = 1.0
    while detection_rate(1, most, n, alpha) < power:
        most *= 2
    solution = optimize.root_scalar(lambda effect: detection_rate(1, effect, n, alpha) - power, bracket=(0, most))
    return sd * float(solution.root)
