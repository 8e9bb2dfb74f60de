"""Answers the requests of lm-evaluation-harness with a model of either twin.

The harness asks for three things: the log-likelihood of a text after another, that of a whole text, and a text that
continues another. Nothing here needs the harness: `harness_tasks` joins the two.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from slm_core.data.tokenizers import Tokenizer
from slm_core.errors import UserError
from slm_core.inference.evaluator import TOKENS_AT_ONCE
from slm_core.inference.sampling import generate
from slm_core.inference.special import ends, prefix_token
from slm_core.protocols import IGNORE, Scorer

MAX_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names that task files have for the largest number of new tokens."""

NEW_TOKENS = 256
"""The largest number of new tokens if a task names none, as in the harness's own Hugging Face model."""


class Request(Protocol):
    """A request of the harness.

    Attributes:
      args: (context, continuation) for `loglikelihood`, (text,) for `loglikelihood_rolling`, (context, settings) for
        `generate_until`.
    """

    args: tuple


class Row(NamedTuple):
    """Tokens that go through the model together; the last `targets` of them are predicted."""

    tokens: list[int]
    targets: int


class Generation(NamedTuple):
    """How to continue a text: until one of `stops` appears, and at most `max_tokens`. See `sampling.generate`."""

    stops: list[str]
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float


class Adapter:
    """Answers requests with a model of either twin and the tokenizer of its run.

    Args:
      scorer: the model.
      tokenizer: the run's own.
      context: largest number of tokens that the model reads.
      tokens: {"eos_token_id": ..., "bos_token_id": ...} of a model from elsewhere; else empty.
      imported: whether the model comes from elsewhere. It then gets the tokens that its tokenizer puts before a text.
      report: is called with (answers so far, all) of the requests of one kind.
    """

    def __init__(
        self,
        scorer: Scorer,
        tokenizer: Tokenizer,
        context: int,
        tokens: Mapping[str, Any] | None = None,
        imported: bool = False,
        report: Callable[[int, int], None] = lambda done, total: None,
    ):
        self.scorer, self.run_tokenizer, self.context, self.report = scorer, tokenizer, context, report
        self.encode = tokenizer.prompt if imported else tokenizer.encode
        self.prefix, self.ends = prefix_token(tokenizer, tokens or {}), ends(tokenizer, tokens or {})

    def loglikelihood(self, requests: Sequence[Request]) -> list[tuple[float, bool]]:
        """Returns log p(continuation | context) in nats, and whether greedy decoding would write the continuation."""
        return self._score([self._pair(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Request]) -> list[float]:
        """Returns log p(text) in nats. A text longer than the context is read in windows."""
        windows = [rolling_windows(self.encode(request.args[0]), self.prefix, self.context) for request in requests]
        scores = iter(self._score([window for text in windows for window in text]))
        return [sum(next(scores)[0] for _ in text) for text in windows]

    def generate_until(self, requests: Sequence[Request]) -> list[str]:
        """Returns the text that continues each context."""
        texts = []
        for i, request in enumerate(requests):
            context, settings = request.args
            texts.append(self._continue(context, generation(settings), seed=i))
            self.report(i + 1, len(requests))
        return texts

    def _pair(self, context: str, continuation: str) -> Row:
        """Encodes a context and its continuation. Space between them belongs to the continuation.

        They are encoded together, as their tokens may depend on each other; the context's own tokens are cut off.
        """
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        if not stripped:
            return self._checked(self._first(continuation), continuation)
        before = self.encode(stripped)
        after = self.encode(stripped + continuation)[len(before) :]
        return self._checked(Row(before + after, len(after)), continuation)

    def _first(self, text: str) -> Row:
        """Encodes a text that nothing stands before."""
        tokens = self.run_tokenizer.encode(text)
        before = [] if self.prefix is None or tokens[:1] == [self.prefix] else [self.prefix]
        return Row(before + tokens, len(before + tokens) - 1)

    def _checked(self, row: Row, continuation: str) -> Row:
        if not 0 < row.targets <= self.context:
            raise UserError(
                f"the task's continuation {continuation[:40]!r} adds {max(row.targets, 0)} tokens to its context; this "
                f"run can predict 1 to {self.context}"
            )
        return row

    def _score(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        scores: dict[int, tuple[float, bool]] = {i: (0.0, True) for i, row in enumerate(rows) if not row.targets}
        for batch in batches({i: row for i, row in enumerate(rows) if row.targets}, self.context):
            longest = max(len(row.tokens) for row in batch.values())
            tokens = np.full((len(batch), longest), IGNORE, np.int32)
            for line, row in zip(tokens, batch.values(), strict=True):
                line[: len(row.tokens)] = row.tokens
            for i, row, logs, greedy in zip(batch, batch.values(), *self.scorer.score(tokens), strict=True):
                targets = slice(len(row.tokens) - 1 - row.targets, len(row.tokens) - 1)
                scores[i] = float(logs[targets].sum(dtype=np.float64)), bool(greedy[targets].all())
            self.report(len(scores), len(rows))
        return [scores[i] for i in range(len(rows))]

    def _continue(self, context: str, settings: Generation, seed: int) -> str:
        prompt = self.encode(context) or [token for token in (self.prefix,) if token is not None]
        room = self.context - settings.max_tokens
        prompt = prompt[-(room if room > 0 else max(1, self.context // 2)) :]
        tokens = generate(self.scorer.decoder(), prompt, *settings[1:], seed=seed)
        stream, text = self.run_tokenizer.stream(), ""
        for token in prompt:
            stream.push(token)  # the text of a token may depend on the one before
        for token in tokens:
            if token in self.ends:
                break
            text += stream.push(token)
            if any(stop in text for stop in settings.stops):
                return min((text[: text.index(stop)] for stop in settings.stops if stop in text), key=len)
        return text + stream.flush()


def rolling_windows(tokens: list[int], prefix: int | None, context: int) -> list[Row]:
    """Splits a text into windows that predict each token once.

    Each window predicts `context` tokens. The last predicts what is left, after as much text as fits before it.

    Args:
      prefix: the token that stands before the first one; None: the first one is not predicted.
    """
    whole = tokens if prefix is None else [prefix, *tokens]
    windows = []
    for first in range(1, len(whole), context):
        end = min(first + context, len(whole))
        windows.append(Row(whole[max(0, end - context - 1) : end], end - first))
    return windows


def batches(rows: Mapping[int, Row], context: int) -> Iterator[dict[int, Row]]:
    """Groups rows of similar lengths, the longest first. What is longer than the context loses its first tokens."""
    fitting = {i: row._replace(tokens=row.tokens[-context - 1 :]) for i, row in rows.items()}
    left = sorted(fitting, key=lambda i: -len(fitting[i].tokens))
    while left:
        count = max(1, TOKENS_AT_ONCE // len(fitting[left[0]].tokens))
        yield {i: fitting[i] for i in left[:count]}
        left = left[count:]


def generation(settings: Mapping[str, Any]) -> Generation:
    """Reads the generation_kwargs of a task.

    Raises:
      UserError: one of them is not known here.
    """
    known = {"until", "do_sample", "temperature", "top_k", "top_p", *MAX_TOKENS}
    for name, value in settings.items():
        if name not in known:
            raise UserError(
                f"generation_kwargs.{name}={value!r} is not known here; known are {', '.join(sorted(known))}"
            )
    stops = settings.get("until") or []
    sampled = settings.get("do_sample")
    temperature = settings.get("temperature") or (1.0 if sampled else 0.0)
    return Generation(
        stops=[stop for stop in ([stops] if isinstance(stops, str) else stops) if stop],
        max_tokens=int(next((settings[name] for name in MAX_TOKENS if settings.get(name)), NEW_TOKENS)),
        temperature=0.0 if sampled is False else float(temperature),
        top_k=int(settings.get("top_k") or 0),
        top_p=float(settings.get("top_p") or 1.0),
    )
