"""Tells rounding from a fault: how far one twin moves from itself if each weight moves to its neighbour in float64."""

import numpy as np

from parity.checks import CHECKS, compare_states, compare_values, worst
from parity.pair import Pair
from parity.probe import probe
from parity.state_transfer import State, snapshot
from slm_core.protocols import Engine

SEEDS = 3
"""Times that the weights are moved, each up or down at random."""


def sensitivity(pair: Pair, check: str) -> float:
    """Returns the largest error of a check between a twin and itself with other last bits. 0: the check cannot tell.

    Two twins that compute the same function in another order differ by about as much.
    """
    pair.perturb()
    state = snapshot(pair.torch)
    errors = []
    for engine in pair.engines.values():
        for seed in range(SEEDS):
            errors.append(_distance(pair, check, engine, state, _moved(state, seed)))
    return max(errors)


def _moved(state: State, seed: int) -> State:
    rng = np.random.default_rng(seed)
    return {
        name: np.nextafter(value, np.where(rng.random(value.shape) < 0.5, -np.inf, np.inf))
        if name.startswith("params/") and value.dtype == np.float64
        else value
        for name, value in state.items()
    }


def _distance(pair: Pair, check: str, engine: Engine, *states: State) -> float:
    if check in ("logits", "gradients"):
        probes = []
        for state in states:
            engine.import_state(state)
            probes.append(probe(engine, pair.tokens))
        kept, vars(pair)["probes"] = pair.probes, tuple(probes)
        try:
            return CHECKS[check].measure(pair)[0]
        finally:
            vars(pair)["probes"] = kept
    if check == "update":
        updated, metrics = [], []
        for state in states:
            engine.import_state(state)
            metrics.append(engine.fetch(engine.train_step(pair.tokens, 0.1, 3)))
            updated.append(snapshot(engine))
        return worst([*compare_states(*updated), *compare_values(*metrics)])[0]
    return 0.0
