"""Compares calls with a KV cache with the pass over the whole text: the stage of decoding."""

import numpy as np
from torch import nn

from parity.bisect.divergence import TENSOR_TOLERANCES, Agreement, Comparison, blamed, shown, walk
from parity.bisect.events import LOGITS, LOSS, MODEL, Event, Recorder
from parity.bisect.states import module_of
from parity.bisect.trace_torch import Taps, array, finished, is_tensor, recorded
from parity.bisect.twins import Twins, pieces_of
from slm_core.protocols import count_targets
from slm_torch.layers.attend import Attend

DECODER = "decoder"
TOKENS = ("forward", MODEL, "input", 0)
KEYS, VALUES, KEYS_START = "input.1", "input.2", "input.4"
"""Inputs of `Attend`, which have more positions than the call if there is a cache."""


def decode(twins: Twins) -> Agreement:
    """Compares the weights that decode, then each call of the model with its cache, then the logits of both caches."""
    for engine in (twins.torch, twins.flax):
        engine.import_state(twins.perturbed)
    full, row = twins.evaluated, twins.tokens[-1, :-1].tolist()
    model = twins.torch.evaluated()
    comparisons = _weight_comparisons(twins) + _evaluation_comparisons(twins, full)
    decoder, events = twins.torch.decoder(), {event.key: event for event in full if event.stage == "forward"}
    logits = []
    for start, piece in pieces_of(row):
        recorder = Recorder(is_tensor, Taps(), DECODER)
        with recorded(recorder, model):
            logits.append(decoder.step(piece[0]) if start else decoder.prefill(piece))
        trace = finished(recorder, Taps(), {})
        comparisons += _call_comparisons(model, trace, events, start, len(piece), len(row))
    first = pieces_of(row)[0][1]
    comparisons.append(Comparison(DECODER, "logits of a second prompt", decoder.prefill(first), logits[0]))
    expected = _by_row(events["forward", LOGITS, "output", 0].value, len(row))[-1]
    for name, caches in (("PyTorch", logits), ("Flax", twins.decoded)):
        for (start, piece), value in zip(pieces_of(row), caches, strict=True):
            end = start + len(piece)
            comparisons.append(
                Comparison(DECODER, f"logits of the {name} cache at {end - 1}", value, expected[end - 1])
            )
    return walk("decode", comparisons, TENSOR_TOLERANCES[twins.precision])


def _weight_comparisons(twins: Twins) -> list[Comparison]:
    """Compares the weights that decode: the trained ones, or the optimizer's averages of them."""
    values, averages = twins.flax.evaluated(), twins.torch.averages
    return [
        Comparison("optimizer" if averages else module_of(f"params/{name}"), f"evaluated {name}", array(p), value)
        for name, p in twins.torch.evaluated().named_parameters()
        for value in [np.asarray(values[name])]
    ]


def _evaluation_comparisons(twins: Twins, full: list[Event]) -> list[Comparison]:
    """Compares the loss that an evaluation reports for a batch."""
    expected = next(event.value for event in full if event.key == ("forward", LOSS, "output.tokens", 0))
    count = count_targets(twins.tokens)
    measured, told = (engine.eval_step(twins.tokens) for engine in (twins.torch, twins.flax))
    return [
        Comparison("evaluation", "sum of an evaluation's token losses", np.array(measured.nats), expected),
        Comparison("evaluation", "tokens of an evaluation", np.array(measured.tokens), np.array(count)),
        Comparison("evaluation", "correct tokens of an evaluation", np.array(measured.correct), np.array(told.correct)),
    ]


def _call_comparisons(
    model: nn.Module, trace: list[Event], full: dict[tuple, Event], start: int, time: int, length: int
) -> list[Comparison]:
    """Returns the comparisons of one call, at positions start, start + 1, ..., with the pass over the whole text.

    Tensors without an axis of positions, such as the rows of a mixture, are left out.
    """
    end, values = start + time, {event.key: event.value for event in trace}
    comparisons, modules = [], dict(model.named_modules())
    for event in trace:
        value, sound = event.value, full.get(event.key)
        expected: np.ndarray | None = None
        attends = isinstance(modules.get(event.path), Attend)
        if attends and sound and event.tensor in (KEYS, VALUES):
            kept = min(value.shape[1], end)
            value, expected = value[:, -kept:], sound.value[-1:, end - kept : end]
        elif attends and event.tensor == KEYS_START:
            expected = np.array(end - values["forward", event.path, KEYS, event.call].shape[1])
        elif np.ndim(value) == 0 and np.issubdtype(value.dtype, np.integer):
            expected = np.array(start)
        elif sound is None:  # a call uses again the values that its cache keeps
            continue
        elif event.path in (LOGITS, "head") and event.tensor != "input.1":
            expected = _by_row(sound.value, length)[-1, end - 1]
        elif (value.shape[:2] == (1, time) or event.key == TOKENS) and sound.value.shape[1:2] == (length,):
            expected = sound.value[-1:, start:end]
        if expected is not None:
            name = f"{shown(event)}, position {start}" + (f" to {end - 1}" if time > 1 else "")
            comparisons.append(Comparison(blamed(event), name, value, expected))
    return comparisons


def _by_row(value: np.ndarray, length: int) -> np.ndarray:
    """Reshapes [rows * length, ...] to [rows, length, ...]."""
    return value.reshape(-1, length, *value.shape[1:])
