"""What recurrent mixers take: no arithmetic counts it, so the twin measures a model of one layer."""

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from slm_core.config import Config, Data, Finetune, Run, Train
from slm_core.config.layers import LayerSpec, layer_specs
from slm_core.planner.declarations import MeasureMixer, MixerMemory, Parameter, Twin, parameters, without_adapters


class Measured(NamedTuple):
    """A layer's mixer.

    Args:
      products: values per token that products with its matrices make.
      memory: of a micro-batch.
    """

    products: int
    memory: MixerMemory


def measured_mixers(config: Config, vocab_size: int, twin: Twin, micro: int) -> Mapping[int, Measured]:
    """Measures the mixer of each layer that is not attention. Equal layers are measured once.

    Args:
      micro: sequences of a micro-batch.

    Returns:
      {index of the layer: its mixer}.
    """
    measured = {}
    for index, layer in enumerate(layer_specs(config.model)):
        if layer.mixer.kind != "attention":
            path = f"layers.{index}."
            alone = replace(_alone(config, layer, micro), finetune=_adapters(config, vocab_size, twin, path))
            products = _products(without_adapters(config, vocab_size, twin.declare), path)
            measured[index] = Measured(products, _measure(twin.measure_mixer, alone))
    return measured


def _products(declared: Mapping[str, Parameter], path: str) -> int:
    """Returns the width of what the mixer's matrices make, of the layer with this path."""
    own = (p for name, p in declared.items() if name.startswith(f"{path}mixer."))
    return sum(p.shape[-1] for p in own if p.role == "matrix")


def _alone(config: Config, layer: LayerSpec, micro: int) -> Config:
    """Returns a model of one layer, with the fields alone that change what it takes: a search measures it few times."""
    return Config(
        model=replace(layer, n_layers=1, pattern=""),
        data=Data(seq_len=config.data.seq_len, document_mask=config.data.document_mask),
        train=Train(batch_size=min(2 * micro, config.train.batch_size), micro_batch_size=micro),
        precision=config.precision,
        run=Run(device="cpu" if config.run.device == "cpu" else "auto"),
    )


def _adapters(config: Config, vocab_size: int, twin: Twin, path: str) -> Finetune:
    """Returns the adapters of a model whose layers are all like the one with this path."""
    if config.finetune.kind != "lora":
        return config.finetune
    names = parameters(config, vocab_size, twin.declare)
    matrices = {name.rpartition(".")[0] for name in names if name.startswith(path) and name.endswith(".lora_a")}
    if not matrices:  # an adapter is needed somewhere, to freeze the rest
        return replace(config.finetune, targets=_in_any_layer("mixer.o_proj"), rank=1)
    targets = (_in_any_layer(matrix.removeprefix(path)) for matrix in sorted(matrices))
    return replace(config.finetune, targets="|".join(targets))


def _in_any_layer(matrix: str) -> str:
    return rf"layers\.\d+\.{re.escape(matrix)}"


@functools.lru_cache(maxsize=256)
def _measure(measure: MeasureMixer, config: Config) -> MixerMemory:
    return measure(config)
