"""Takes a pair of twins through the stages of training and decoding, in order."""

from collections.abc import Callable, Iterator

from parity.bisect.decoding import decode
from parity.bisect.divergence import Agreement, Divergence
from parity.bisect.models import FlaxTwin, TorchTwin, detailed
from parity.bisect.passes import backward, forward, init, training
from parity.bisect.twins import Twins, twins_of
from parity.bisect.updates import state, steps, update
from parity.pair import Pair
from parity.state_transfer import snapshot

STAGES: dict[str, tuple[Callable[[Twins], Agreement], str]] = {
    "init": (init, ""),
    "forward": (forward, ""),
    "backward": (backward, ""),
    "training": (training, "update"),
    "update": (update, "update"),
    "steps": (steps, "loss_curve"),
    "state": (state, "loss_curve"),
    "decode": (decode, "decoding"),
}
"""{stage: (its function, the check that a case must have for it, "" for none)}.

Each stage takes for granted what the stages before it prove.
"""


def stages(pair: Pair) -> Iterator[tuple[str, Agreement]]:
    """Yields each stage of a pair and its agreement, up to the first divergence.

    Afterwards the twins are in the state in which they were before.
    """
    twins = twins_of(pair)
    states = {engine: snapshot(engine) for engine in (twins.torch, twins.flax)}
    sides = TorchTwin(pair.torch), FlaxTwin(pair.flax)
    try:
        for name, (stage, check) in STAGES.items():
            if check in ("", *pair.case.checks):
                agreement = stage(twins)
                if agreement.divergence and name != "init":  # parameters are then as both should have them
                    for engine in (twins.torch, twins.flax):
                        engine.import_state(twins.perturbed)
                agreement = detailed(agreement, *sides)
                yield name, agreement
                if agreement.divergence:
                    return
    finally:
        for engine, before in states.items():
            engine.import_state(before)


def bisect_pair(pair: Pair) -> Divergence | None:
    """Returns the first tensor in which a pair's twins differ, or None. Leaves the twins as they were."""
    return next((agreement.divergence for _, agreement in list(stages(pair)) if agreement.divergence), None)
