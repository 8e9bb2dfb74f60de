"""Reads the config.json of a Hugging Face checkpoint by a table of the fields of its class.

Each field is in the table and read, or is known to change nothing, or the import is refused.
"""

import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from slm_core.errors import UserError, nearest

NEUTRAL = frozenset({
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "_num_labels", "architectures",
    "attention_dropout", "attn_implementation", "auto_map", "bos_token_id", "cache_implementation",
    "chunk_size_feed_forward", "classifier_dropout", "cross_attention_hidden_size", "decoder_start_token_id",
    "dtype", "eos_token_id", "finetuning_task", "gradient_checkpointing", "id2label", "initializer_range",
    "is_decoder", "label2id", "model_type", "name_or_path", "num_labels", "output_attentions",
    "output_hidden_states", "pad_token_id", "prefix", "pretraining_tp", "problem_type", "return_dict",
    "sep_token_id", "task_specific_params", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class",
    "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "unk_token_id", "unsloth_fixed",
    "unsloth_version", "use_bfloat16", "use_cache",
    # Settings of text generation, which the class takes out of config.json.
    "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "epsilon_cutoff", "eta_cutoff", "exponential_decay_length_penalty",
    "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "remove_invalid_values",
    "repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
})  # fmt: skip
"""Fields that do not change the function of any family: token ids, training, generation and bookkeeping."""

HARMLESS = {
    "add_cross_attention": False, "is_causal": True, "is_encoder_decoder": False, "per_layer_config": None,
    "pruned_heads": {}, "quantization_config": None,
}  # fmt: skip
"""{field that a class, or code beneath it, may read: the value that changes nothing}. Any other value is refused."""


class Field(NamedTuple):
    """A field of a config class.

    Args:
      kind: a key of KINDS.
      default: the class's own value, for a config.json without the field.
      null: whether null is a value.
      low: the smallest number.
    """

    kind: str
    default: Any
    null: bool = False
    low: float = -math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


KINDS: dict[str, Callable[[Any], bool]] = {
    "a whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "a number": _is_number,
    "true or false": lambda value: isinstance(value, bool),
    "a text": lambda value: isinstance(value, str),
    "a list": lambda value: isinstance(value, list),
    "an object": lambda value: isinstance(value, dict),
}
"""{kind: whether a value is of it}"""


def whole(default: int | None, low: int = 1, null: bool = False) -> Field:
    """Describes a whole number that is at least `low`. A default of None makes null a value, too."""
    return Field("a whole number", default, null or default is None, low)


def number(default: float | None, low: float = -math.inf, null: bool = False) -> Field:
    """Describes a finite number that is at least `low`. A default of None makes null a value, too."""
    return Field("a number", default, null or default is None, low)


def flag(default: bool | None, null: bool = False) -> Field:
    """Describes true or false. A default of None makes null a value, too."""
    return Field("true or false", default, null or default is None)


def word(default: str) -> Field:
    """Describes a text."""
    return Field("a text", default)


def listed() -> Field:
    """Describes a list, or null."""
    return Field("a list", None, True)


def nested() -> Field:
    """Describes an object, or null."""
    return Field("an object", None, True)


def checked(name: str, value: Any, field: Field, family: str) -> Any:
    """Returns a value. Raises UserError unless it is of the field's kind."""
    if value is None and field.null:
        return value
    if not KINDS[field.kind](value):
        kind = f"{field.kind} or null" if field.null else field.kind
        raise UserError(f"config.json: {name}={text(value)} of a {family} model is not {kind}: restore the file")
    if field.low > -math.inf and value < field.low:
        raise UserError(f"config.json: {name}={text(value)} of a {family} model is less than {field.low}: restore it")
    return value


def text(value: Any) -> str:
    """Returns a value as config.json has it, on one line."""
    short = json.dumps(value)
    return short if len(short) <= 60 else f"{short[:57]}..."


class Fields:
    """A config.json, read by the table of its class.

    Args:
      values: the object in config.json.
      family: model_type, for errors.
      table: {name: field} of all fields that are read.
      aliases: {another name that the class takes: name}.
      neutral: further fields that change nothing.

    Raises:
      UserError: a field is unknown, or two names of one field have different values.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        family: str,
        table: Mapping[str, Field],
        aliases: Mapping[str, str] | None = None,
        neutral: Collection[str] = (),
    ):
        self.family, self._table = family, table
        self._values = self._renamed(values, aliases or {})
        for name, value in self._values.items():
            if name not in table and name not in NEUTRAL and name not in neutral:
                self._refuse_unknown(name, value)

    def _renamed(self, values: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
        renamed = {name: value for name, value in values.items() if name not in aliases}
        for alias, name in aliases.items():
            value = values.get(alias)
            if value is not None and renamed.get(name, value) not in (value, None):
                raise UserError(
                    f"config.json: {alias}={text(value)} and {name}={text(renamed[name])} are one field of a"
                    f" {self.family} model: delete the wrong one"
                )
            if value is not None or (alias in values and name not in renamed):
                renamed[name] = value
        return renamed

    def _refuse_unknown(self, name: str, value: Any) -> None:
        if name in HARMLESS:
            if text(value) != text(HARMLESS[name]):
                remedy = "import an unquantised checkpoint" if name == "quantization_config" else "import another model"
                raise UserError(f"config.json: {name} is set to {text(value)}, which cannot be expressed: {remedy}")
            return
        raise UserError(
            f"config.json: {name}={text(value)} is not known of a {self.family} model{nearest(name, self._table)}:"
            " if it changes nothing, delete it from the file"
        )

    def get(self, name: str) -> Any:
        """Returns a field's value; the class's own if it is absent. Raises UserError if it is of another kind."""
        field = self._table[name]
        return checked(name, self._values[name], field, self.family) if name in self._values else field.default

    def given(self, name: str) -> bool:
        """Returns whether config.json has a field, be it null."""
        return name in self._values

    def only(self, name: str, *supported: Any) -> Any:
        """Returns a field's value. Raises UserError unless it is one that the schema can express."""
        value = self.get(name)
        if value not in supported:
            words = " or ".join(map(repr, supported))
            raise UserError(f"config.json: {name}={value!r} of a {self.family} model cannot be expressed: only {words}")
        return value

    def divides(self, part: str, whole: str) -> None:
        """Raises UserError unless one field divides another, as the class demands."""
        if self.get(whole) % self.get(part):
            raise UserError(
                f"config.json: {part}={self.get(part)} does not divide {whole}={self.get(whole)}, as a {self.family}"
                " model needs"
            )

    def section(self, name: str, table: Mapping[str, Field], neutral: Collection[str] = ()) -> "Fields":
        """Returns a nested object as fields of its own."""
        return Fields(self.get(name) or {}, f"{self.family} {name}", table, neutral=neutral)
