"""Defines a family of Hugging Face models: how its config and its tensors correspond to ours, in both directions."""

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
    """The models of one model_type.

    Args:
      model_type, architecture: as config.json names them.
      read: makes our config of a config.json. Raises UserError for what the schema cannot express.
      write: makes a config.json of our config. It may leave out what the family cannot express: `exporting` reads it
        back and compares.
      rules: yields the rules of the tensors of a config.
      prefix: beginning of the names of tensors, which older checkpoints leave out.
      ignored: ends of the names of tensors that are not weights.
      unused: returns, for a config, beginnings of the names of tensors that its logits do not depend on.
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
    """Makes the config of a model.

    Args:
      layers: of each layer, the fields that it sets, by dotted names inside `model.`.
      context: tokens.
    """
    shared = {name: value for name, value in layers[0].items() if all(layer.get(name) == value for layer in layers)}
    differing = [{name: value for name, value in layer.items() if name not in shared} for layer in layers]
    model = with_values(model, shared | {"n_layers": len(layers), "pattern": pattern_of(differing)})
    return Config(model=model, data=Data(seq_len=context))
