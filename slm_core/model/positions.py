"""Computes the numbers of positions on the host, in float64: rotation angles, ALiBi's slopes, T5's buckets.

So both twins turn by the same amounts, and late positions lose no precision.
"""

import math

import numpy as np

from slm_core.config import Position
from slm_core.config.layers import LayerSpec
from slm_core.config.widths import rotated


def rotation(layer: LayerSpec, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Computes the cosines and sines of rotary positions (RoPE; Su et al. 2021, https://arxiv.org/abs/2104.09864).

    Pair i of features turns by t frequency[i] at position t. YaRN multiplies both tables by its attention factor.

    Returns:
      float64 tables, each [context, rotated / 2].
    """
    angle = np.outer(np.arange(context), frequencies(layer, context))
    factor = attention_factor(layer.position)
    return factor * np.cos(angle), factor * np.sin(angle)


def plain_rotation(width: int, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Computes cosines and sines of RoPE with theta 10,000 over all features of a head, each [context, width / 2]."""
    angle = np.outer(np.arange(context), _frequency(1e4, width))
    return np.cos(angle), np.sin(angle)


def frequencies(layer: LayerSpec, context: int) -> np.ndarray:
    """Computes how far each pair of features turns from one position to the next, radians, [rotated / 2].

    Without scaling that is theta^(-2i / rotated); position.scaling names how it changes.
    """
    return _SCALING[layer.position.scaling](layer.position, rotated(layer), context)


def _frequency(theta: float, width: int) -> np.ndarray:
    return theta ** (-np.arange(0, width, 2) / width)


def _unscaled(position: Position, width: int, context: int) -> np.ndarray:
    return _frequency(position.theta, width)


def _linear(position: Position, width: int, context: int) -> np.ndarray:
    """Divides positions by the factor s: frequency / s (Chen et al. 2023, https://arxiv.org/abs/2306.15595)."""
    return _frequency(position.theta, width) / position.scaling_factor


def _ntk(position: Position, width: int, context: int) -> np.ndarray:
    """Raises theta to theta s^(d / (d - 2)): the lowest frequency is divided by s, the highest does not change.

    See bloc97 2023, and Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.1.
    """
    exponent = width / (width - 2) if width > 2 else 1.0
    return _frequency(position.theta * position.scaling_factor**exponent, width)


def _yarn(position: Position, width: int, context: int) -> np.ndarray:
    """Divides low frequencies by s and keeps high ones (YaRN; Peng et al. 2023, https://arxiv.org/abs/2309.00071).

    A ramp connects the two, from the pair that turns beta_fast times in the original context to the pair that turns
    beta_slow times there (section 3.2).
    """
    original = original_context(position, context)

    def pair_turning(times: float) -> float:
        return width * math.log(original / (times * 2 * math.pi)) / (2 * math.log(position.theta))

    low, high = pair_turning(position.beta_fast), pair_turning(position.beta_slow)
    if position.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = np.clip((np.arange(width // 2) - low) / max(high - low, 1e-3), 0, 1)
    unscaled = _frequency(position.theta, width)
    return unscaled * (1 - ramp) + unscaled / position.scaling_factor * ramp


def _llama3(position: Position, width: int, context: int) -> np.ndarray:
    """Stretches long wavelengths by s and keeps short ones, as in Llama 3.1.

    Long are those over original / low_freq_factor, short are those under original / high_freq_factor. Between the two,
    frequencies are mixed (Dubey et al. 2024, https://arxiv.org/abs/2407.21783).
    """
    unscaled = _frequency(position.theta, width)
    low, high = position.low_freq_factor, position.high_freq_factor
    turns = original_context(position, context) * unscaled / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return unscaled * kept + unscaled / position.scaling_factor * (1 - kept)


_SCALING = {"none": _unscaled, "linear": _linear, "ntk": _ntk, "yarn": _yarn, "llama3": _llama3}


def original_context(position: Position, context: int) -> float:
    """Computes the context, in tokens, that YaRN and Llama 3 scaling start from: by default context / s."""
    return position.original_context or context / position.scaling_factor


def attention_factor(position: Position) -> float:
    """Computes the factor of rotated queries and keys: 0.1 ln s + 1 for YaRN unless set, otherwise 1."""
    if position.scaling != "yarn":
        return 1.0
    return position.attention_factor or 0.1 * math.log(max(position.scaling_factor, 1.0)) + 1


def log_retention(heads: int) -> np.ndarray:
    """Computes the log decay of each head of RetNet: log(1 - 2^(-5-h)), h = 0, 1, ... (heads,).

    See Sun et al. 2023, https://arxiv.org/abs/2307.08621, equation 8.
    """
    return np.log1p(-(2.0 ** (-5 - np.arange(heads))))


def alibi_slopes(heads: int) -> np.ndarray:
    """Computes the slope of each head, [heads] (ALiBi; Press et al. 2022, https://arxiv.org/abs/2108.12409).

    They are 2^(-8 h / heads) for h = 1, 2, ..., if `heads` is a power of two. Otherwise they are the slopes of the next
    lower power of two, then every other slope of the next higher one, as in the authors' code.
    """
    power = 2 ** int(math.log2(heads))
    slopes = 2.0 ** (-8 * np.arange(1, power + 1) / power)
    finer = 2.0 ** (-4 * np.arange(1, 2 * power + 1, 2) / power)
    return np.concatenate([slopes, finer[: heads - power]])


def t5_buckets(buckets: int, max_distance: int, context: int) -> np.ndarray:
    """Computes the bucket of each distance 0, 1, ..., context - 1, int [context].

    The buckets of the first half hold one distance each. The others grow geometrically up to `max_distance` (T5;
    Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1, for causal attention).
    """
    distance, exact = np.arange(context), buckets // 2
    growth = np.log(np.maximum(distance, 1) / exact) / math.log(max_distance / exact)
    coarse = np.minimum(exact + np.floor(growth * (buckets - exact)).astype(int), buckets - 1)
    return np.where(distance < exact, distance, coarse)
