"""The parameters of a model, as a twin declares them. The planner itself imports no twin."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from slm_core.config import Config, Data, Finetune
from slm_core.config.layers import layer_specs
from slm_core.quantization.formats import Declared

Declare = Callable[[Config, int], Declared]
"""(config, rows of the embedding) -> {canonical name: (shape, spec)}; see `slm_torch.model.declared`."""


class MixerMemory(NamedTuple):
    """Bytes that a recurrent mixer takes in one micro-batch.

    Args:
      kept: what its forward pass keeps for the backward pass, beside its input and output.
      forward, backward: what each pass needs only while it works.
    """

    kept: int
    forward: int = 0
    backward: int = 0


MeasureMixer = Callable[[Config], MixerMemory]
"""(config with one layer) -> what its mixer takes in one micro-batch; see `slm_torch.mixer_memory`."""


@dataclass(frozen=True)
class Twin:
    """The twin to plan for.

    Args:
      framework: "torch" or "flax". Each has its own arithmetic.
      declare: returns the parameters that a config's model has. Both twins declare the same ones.
      measure_mixer: measures a mixer that is not attention. No arithmetic counts those.
    """

    framework: str
    declare: Declare
    measure_mixer: MeasureMixer


class Parameter(NamedTuple):
    """One parameter.

    Args:
      shape: as both twins store it.
      role: see `slm_core.model.initialization.Spec`.
      dtype: of the stored values; "": precision.params.
    """

    shape: tuple[int, ...]
    role: str
    dtype: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def parameters(config: Config, vocab_size: int, declare: Declare) -> Mapping[str, Parameter]:
    """Returns {canonical name: parameter} of the model of a config.

    Models are remembered, because a search asks for the same one many times: only these fields change what is declared.
    """
    shaping = Config(model=config.model, data=Data(seq_len=config.data.seq_len), finetune=config.finetune)
    return _parameters(shaping, vocab_size, declare)


@functools.lru_cache(maxsize=64)
def _parameters(config: Config, vocab_size: int, declare: Declare) -> Mapping[str, Parameter]:
    declared = declare(config, vocab_size)
    return {name: Parameter(shape, spec.role, spec.dtype) for name, (shape, spec) in declared.items()}


def without_adapters(config: Config, vocab_size: int, declare: Declare) -> Mapping[str, Parameter]:
    """Returns the parameters that the model has before its matrices are quantised and get adapters."""
    return parameters(replace(config, finetune=Finetune()), vocab_size, declare)


def layer_index(name: str) -> int | None:
    """Returns the index of the layer that a parameter belongs to; None: it belongs to no layer."""
    return int(name.split(".")[1]) if name.startswith("layers.") else None


def matrix_weights_per_token(config: Config, vocab_size: int, declare: Declare) -> int:
    """Returns how many weights of the layers' matrices one token is multiplied with: of routed experts its top_k."""
    layers, total = layer_specs(config.model), 0.0
    for name, parameter in without_adapters(config, vocab_size, declare).items():
        index = layer_index(name)
        if index is None or parameter.role != "matrix":
            continue
        mlp = layers[index].mlp
        visited = mlp.top_k / mlp.experts if len(parameter.shape) == 3 else 1
        total += parameter.size * visited
    return round(total)
