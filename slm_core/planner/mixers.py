"""What recurrent mixers take: no arithmetic counts it, so the twin measures a model of one layer."""

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from slm_core.config import Config, Data, Finetune, Run, Train
from slm_core.config.layers import layer_specs
from slm_core.planner.declarations import MeasureMixer, MixerMemory, Twin, parameters, without_adapters


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
    layers = {i: layer for i, layer in enumerate(layer_specs(config.model)) if layer.mixer.kind != "attention"}
    declared = without_adapters(config, vocab_size, twin.declare) if layers else {}
    measured = {}
    for index, layer in layers.items():
        names = [name for name in parameters(config, vocab_size, twin.declare) if name.startswith(f"layers.{index}.")]
        own = (p for name, p in declared.items() if name.startswith(f"layers.{index}.mixer."))
        products = sum(p.shape[-1] for p in own if p.role == "matrix")
        adapted = {
            name.removeprefix(f"layers.{index}.").rpartition(".")[0] for name in names if name.endswith(".lora_a")
        }
        alone = Config(  # only these fields change what a mixer takes, so a search measures it few times
            model=replace(layer, n_layers=1, pattern=""),
            data=Data(seq_len=config.data.seq_len, document_mask=config.data.document_mask),
            train=Train(batch_size=min(2 * micro, config.train.batch_size), micro_batch_size=micro),
            precision=config.precision,
            finetune=_on_layers(config.finetune, adapted),
            run=Run(device="cpu" if config.run.device == "cpu" else "auto"),
        )
        measured[index] = Measured(products, _measure(twin.measure_mixer, alone))
    return measured


def _on_layers(finetune: Finetune, adapted: Collection[str]) -> Finetune:
    """Returns the adapters of a model of equal layers; `adapted` are the matrices of a layer that get one."""
    if finetune.kind != "lora":
        return finetune
    if not adapted:  # an adapter is needed somewhere, to freeze the rest
        return replace(finetune, targets=_path("mixer.o_proj"), rank=1)
    return replace(finetune, targets="|".join(_path(path) for path in sorted(adapted)))


def _path(matrix: str) -> str:
    return rf"layers\.\d+\.{re.escape(matrix)}"


@functools.lru_cache(maxsize=256)
def _measure(measure: MeasureMixer, config: Config) -> MixerMemory:
    return measure(config)
