"""Samples tokens from logits, in NumPy float64, so that both twins choose the same tokens.

The uniform number of the i-th new token depends on the seed and i alone (Philox, a counter-based generator: Salmon
2011). The token is found by inverting the cumulative distribution in vocabulary order. So logits that differ by
rounding alone give the same text.
"""

from collections.abc import Iterator

import numpy as np

from slm_core.errors import UserError
from slm_core.protocols import Decoder

LARGEST_SEED = 2**128 - 1
"""Philox has a key of 128 bits."""


def _check(temperature: float, top_k: int, top_p: float, seed: int = 0) -> None:
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature={temperature}: must be 0 (greedy) or a positive number")
    if top_k < 0:
        raise UserError(f"top_k={top_k}: must be 0 (off) or the number of tokens to choose from")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p={top_p}: must be above 0 and at most 1 (off)")
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"seed={seed}: must be from 0 to 2**128 - 1")


def probabilities(logits: np.ndarray, temperature: float, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    """Computes the distribution that `sample` draws from, float64 [vocab], with a sum of 1.

    Temperature divides the logits. Then the `top_k` largest stay (0: all). Of those, the fewest stay, largest first,
    whose probabilities sum to `top_p` or more (nucleus sampling, Holtzman 2020). Of equal tokens the lower id stays.
    """
    logits = np.asarray(logits, np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the largest to -inf, as it should
        weights = np.exp((logits - logits.max()) / temperature)
    if 0 < top_k < weights.size or top_p < 1:
        order = np.argsort(-logits, kind="stable")
        kept = order[: top_k or None]
        if top_p < 1:
            mass = np.cumsum(weights[kept])
            kept = kept[: np.searchsorted(mass, top_p * mass[-1]) + 1]
        cut = np.zeros_like(weights)
        cut[kept] = weights[kept]
        weights = cut
    return weights / weights.sum()


def sample(logits: np.ndarray, uniform: float, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> int:
    """Draws one token id.

    Args:
      logits: float [vocab]; -inf excludes a token.
      uniform: in [0, 1); the same number and logits give the same token.
      temperature: 0 takes the largest logit; of equal ones, that of the lowest id.
      top_k, top_p: as in `probabilities`; 0 and 1 turn them off.

    Raises:
      UserError: an option is out of range. FloatingPointError: logits that are NaN, +inf or all -inf.
    """
    _check(temperature, top_k, top_p)
    logits = np.asarray(logits, np.float64)
    if not np.isfinite(logits.max()):  # max passes NaN on
        raise FloatingPointError(f"cannot sample: the largest logit is {logits.max()}")
    if temperature == 0:
        return int(np.argmax(logits))
    cumulative = np.cumsum(probabilities(logits, temperature, top_k, top_p))
    token = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    # uniform * total can round up to the total, which is first reached at the last token of any probability.
    return int(min(token, np.searchsorted(cumulative, cumulative[-1])))


def uniforms(seed: int) -> Iterator[float]:
    """Yields numbers in [0, 1), multiples of 2**-53, from the endless Philox stream of `seed`."""
    bits = np.random.Philox(key=seed)
    while True:
        yield int(bits.random_raw() >> 11) * 2.0**-53


def generate(
    decoder: Decoder,
    prompt: list[int],
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: int | None = None,
) -> Iterator[int]:
    """Yields up to `max_tokens` token ids that continue `prompt`, each as soon as it is known.

    Of a prompt longer than the decoder's context, the last `context` tokens are read. When the context is full, its
    last half is read anew. So the model always sees between half a context and a whole one.

    Args:
      stop: a token id that ends the text and is not yielded; None: there is none.

    Raises:
      UserError: at once, if the prompt is empty or an option is out of range.
    """
    _check(temperature, top_k, top_p, seed)
    if not prompt:
        raise UserError("prompt='': a model continues text; give at least one token")
    return _continue(decoder, list(prompt), max_tokens, (temperature, top_k, top_p), seed, stop)


def _continue(
    decoder: Decoder, prompt: list[int], max_tokens: int, options: tuple, seed: int, stop: int | None
) -> Iterator[int]:
    if max_tokens < 1:
        return
    window = prompt[-decoder.context :]
    logits = decoder.prefill(window)
    numbers = uniforms(seed)
    for count in range(1, max_tokens + 1):
        token = sample(logits, next(numbers), *options)
        if token == stop:
            return
        yield token
        if count == max_tokens:
            return
        if len(window) < decoder.context:
            window.append(token)
            logits = decoder.step(token)
        else:
            window = [*window, token][-max(1, decoder.context // 2) :]
            logits = decoder.prefill(window)
