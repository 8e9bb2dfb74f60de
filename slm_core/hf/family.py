"""What a family of Hugging Face models is: how its config and its tensors correspond to ours, both ways."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from slm_core.config import Config, Data, Model
from slm_core.config.fields import with_values
from slm_core.config.pattern import pattern_of
from slm_core.hf.fields import Fields
from slm_core.hf.rules import Rule


@dataclass(frozen=True)
class Family:
    """One model_type.

    Args:
      model_type, architecture: as config.json names them.
      read: the model that a config.json stands for. Raises UserError for what the schema lacks.
      write: the config.json of a config. It may leave out what the family cannot express: `exporting` reads it back
        and compares.
      rules: how the tensors of a config correspond.
      prefix: what the names of tensors begin with, and older checkpoints leave out.
      ignored: ends of the names of tensors that hold no weights.
      unused: of a config, beginnings of the names of tensors that its logits do not depend on.
    """

    model_type: str
    architecture: str
    read: Callable[[Fields], Config]
    write: Callable[[Config], dict[str, Any]]
    rules: Callable[[Config], Iterator[Rule]]
    prefix: str = "model."
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)
    unused: Callable[[Config], tuple[str, ...]] = lambda config: ()


def imported(model: Model, layers: list[dict[str, Any]], context: int) -> Config:
    """Returns the config of a model whose layers set these fields, dotted names inside `model.`."""
    shared = {name: value for name, value in layers[0].items() if all(layer.get(name) == value for layer in layers)}
    own = [{name: value for name, value in layer.items() if name not in shared} for layer in layers]
    model = with_values(model, shared | {"n_layers": len(layers), "pattern": pattern_of(own)})
    return Config(model=model, data=Data(seq_len=context))
