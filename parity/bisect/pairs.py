"""The stages of a pair of twins, in order."""

from collections.abc import Callable, Iterator

from parity.bisect.decoding import decode
from parity.bisect.divergence import Agreement, Divergence
from parity.bisect.models import FlaxTwin, TorchTwin, detailed
from parity.bisect.passes import backward, forward, init, training
from parity.bisect.twins import Twins, twins_of
from parity.bisect.updates import state, steps, update
from parity.pair import Pair
from parity.port import snapshot

STAGES: dict[str, tuple[Callable[[Twins], Agreement], int]] = {
    "init": (init, 0),
    "forward": (forward, 0),
    "backward": (backward, 0),
    "training": (training, 3),
    "update": (update, 3),
    "steps": (steps, 4),
    "state": (state, 4),
    "decode": (decode, 5),
}
"""{stage: (what compares, the rung that a cell must climb for it)}; each stage takes for granted what comes before."""


def stages(pair: Pair) -> Iterator[tuple[str, Agreement]]:
    """Yields each stage of a pair and what it found, up to the first divergence.

    The twins end in the state in which they are.
    """
    twins = twins_of(pair)
    states = {engine: snapshot(engine) for engine in (twins.torch, twins.flax)}
    sides = TorchTwin(pair.torch), FlaxTwin(pair.flax)
    try:
        for name, (stage, rung) in STAGES.items():
            if rung in (0, *pair.cell.rungs):
                found = stage(twins)
                if found.divergence and name != "init":  # parameters are then as both should have them
                    for engine in (twins.torch, twins.flax):
                        engine.import_state(twins.perturbed)
                found = detailed(found, *sides)
                yield name, found
                if found.divergence:
                    return
    finally:
        for engine, own in states.items():
            engine.import_state(own)


def bisect_pair(pair: Pair) -> Divergence | None:
    """Returns the first tensor in which a pair's twins differ, or None. Leaves the twins as they are."""
    return next((found.divergence for _, found in list(stages(pair)) if found.divergence), None)
