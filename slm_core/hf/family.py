"""Defines a family of Hugging Face models: how its config and its tensors correspond to ours, in both directions."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from slm_core.config import Config, Data, Model
from slm_core.config.fields import with_values
from slm_core.config.pattern import pattern_of
from slm_core.hf.fields import Field, Fields
from slm_core.hf.rules import Rule


@dataclass(frozen=True)
class Family:
    """The models of one model_type.

    Args:
      model_type, architecture: as config.json names them.
      fields: every field that `read` reads, with the class's own value.
      read: makes our config of a config.json. Raises UserError for what the schema cannot express.
      write: makes a config.json of our config. It may leave out what the family cannot express: `exporting` reads it
        back and compares.
      rules: yields the rules of the tensors of a config.
      prefix: beginning of the names of tensors, which older checkpoints leave out.
      ignored: ends of the names of tensors that are not weights.
      unused: returns, for a config, beginnings of the names of tensors that its logits do not depend on.
      inputs_first: ends of the names of matrices that are stored as [in, out], and not as [out, in].
      aliases: {another name that the class takes for a field: the field}.
      neutral: fields, beside `fields.NEUTRAL`, that do not change the function of these models.
      examples: {options that are on: arguments of the config class} of tiny models. The oracle compares each with the
        class, and the sweep of imports starts from the first and the last.
      float64: whether the class computes in float64 throughout, if its weights are float64.
    """

    model_type: str
    architecture: str
    fields: Mapping[str, Field]
    read: Callable[[Fields], Config]
    write: Callable[[Config], dict[str, Any]]
    rules: Callable[[Config], Iterator[Rule]]
    prefix: str = "model."
    ignored: tuple[str, ...] = (".rotary_emb.inv_freq",)
    unused: Callable[[Config], tuple[str, ...]] = lambda config: ()
    inputs_first: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    neutral: Collection[str] = ()
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    float64: bool = False

    def opened(self, values: Mapping[str, Any]) -> Fields:
        """Returns the fields of a config.json. Raises UserError for one that is not known of these models."""
        return Fields(values, self.model_type, self.fields, self.aliases, self.neutral)

    def config(self, values: Mapping[str, Any]) -> Config:
        """Makes our config of a config.json. Raises UserError for what the schema cannot express."""
        return self.read(self.opened(values))


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
