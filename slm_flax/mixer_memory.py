"""Measures what a recurrent mixer takes, for the planner: XLA plans updates of one and three layers, and runs none."""

import functools
from dataclasses import replace

from slm_core.config import Config, Memory, Run, Train
from slm_core.config.fields import flatten
from slm_core.planner.declarations import MixerMemory
from slm_core.planner.kept import kept_on_disk
from slm_flax.card import has_card

VOCAB, CHUNK = 8, 64
ROWS = 4
"""Sequences from which on XLA keeps the same of each."""


def mixer_memory(config: Config) -> MixerMemory:
    """Measures a layer, with its MLP and its norms: each further layer adds what a layer keeps.

    Args:
      config: of a model with one layer. run.device "cpu" is this machine's CPU; all else is the card of
        `slm_flax.card`, if JAX has a compiler for it.
    """
    if config.run.device != "cpu" and not has_card():
        config = replace(config, run=Run(device="cpu"))
    micro = config.train.micro_batch_size
    rows = min(micro, ROWS)
    pieces = 2 if micro < config.train.batch_size else 1  # in a loop over micro-batches XLA keeps other arrays
    train, memory = Train(batch_size=pieces * rows, micro_batch_size=rows), Memory(remat="none", loss_chunk=CHUNK)
    return MixerMemory(*(size * micro // rows for size in _planned(replace(config, train=train, memory=memory))))


@functools.lru_cache(maxsize=64)
def _planned(config: Config) -> MixerMemory:
    return MixerMemory(*kept_on_disk("slm_flax", flatten(config), lambda: list(_compiled(config))))


def _compiled(config: Config) -> MixerMemory:
    from slm_flax.memory import planned  # it imports the trainer, which asks the planner

    one, three = (planned(replace(config, model=replace(config.model, n_layers=layers)), VOCAB) for layers in (1, 3))
    # Arguments are weights and two moments: a third of them is as large as the gradients.
    gradients = (three.argument_size_in_bytes - one.argument_size_in_bytes) // 6
    kept = max((three.temp_size_in_bytes - one.temp_size_in_bytes) // 2 - gradients, 0)
    return MixerMemory(kept, backward=max(one.temp_size_in_bytes - gradients - kept, 0))
