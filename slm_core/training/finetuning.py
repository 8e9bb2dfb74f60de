"""Finds the run whose weights a training starts from, and checks that config and data fit it."""

from collections.abc import Callable
from pathlib import Path

from slm_core.config import Config
from slm_core.config.fields import flatten, with_values
from slm_core.data import Dataset, load_tokenizer
from slm_core.data.tokenizers import Char, Library, Tokenizer, Words
from slm_core.errors import UserError
from slm_core.logging import say
from slm_core.model.compare import Difference, differences
from slm_core.model.weights import Weights, read_weights
from slm_core.runs.saved import SavedRun, load_run
from slm_core.runs.whole import check_whole


def open_base(config: Config) -> SavedRun | None:
    """Opens the run whose weights training starts from. None: it starts from initial weights.

    Raises:
      UserError: there is no such run, or its model is another function than the config's.
    """
    if not config.finetune.base:
        return None
    try:
        base = load_run(config.finetune.base)
    except UserError as error:
        raise UserError(f"finetune.base: {error}") from None
    _check_model(config, base)
    return base


def base_weights(config: Config, base: SavedRun, weights_of: Callable[[SavedRun], Weights]) -> Weights:
    """Opens the weights that training starts from: those that a base is evaluated with.

    A base that was imported with its adapters keeps them apart if the config asks for just such adapters: they go on.

    Args:
      weights_of: opens the weights that a run is evaluated with.

    Raises:
      UserError: the base's checkpoint is damaged.
    """
    if base.imported is None or base.config.finetune.kind != "lora":
        return weights_of(base)
    apart = [name for name in ("kind", "targets", "rank", "alpha") if _lora(config, name) != _lora(base.config, name)]
    if apart:
        say(f"adapters of {base.folder}: merged into its matrices, because finetune.{apart[0]} differs")
        return weights_of(base)
    say(f"adapters of {base.folder}: these go on")
    check_whole(base.checkpoint, base.identity)
    return read_weights(base.checkpoint / "weights")


def _lora(config: Config, name: str) -> object:
    return getattr(config.finetune, name)


def check_tokens(config: Config, base: SavedRun, dataset: Dataset) -> None:
    """Raises UserError unless the data are in the tokens that the base's model knows."""
    tokenizer = _tokenizer(base)
    if tokenizer is not None and not _same(tokenizer, dataset.tokenizer):
        raise UserError(
            f"data.tokenizer={config.data.tokenizer}: {base.folder} knows other tokens; {_remedy(tokenizer, base)}"
        )
    if dataset.vocab_size > base.vocab_size:
        raise UserError(
            f"data.tokenizer={config.data.tokenizer}: it has {dataset.vocab_size} tokens and the model of {base.folder}"
            f" knows {base.vocab_size}; give the tokenizer that it was trained with"
        )


def tokenizer_field(base: SavedRun) -> str | None:
    """Returns the value of data.tokenizer that means a run's own tokenizer. None: it has none that can be read."""
    tokenizer = _tokenizer(base)
    if isinstance(tokenizer, Library):
        return f"file:{base.folder / 'tokenizer' / 'tokenizer.json'}"
    return None if tokenizer is None else tokenizer.kind


def _check_model(config: Config, base: SavedRun) -> None:
    learned = config.model.position.kind == base.config.model.position.kind == "learned"
    longer = learned and config.data.seq_len != base.config.data.seq_len
    if not (longer or _apart(config, base.config)):
        return
    name = _parting_field(config, base.config)
    value, base_value = (_text(flatten(each)[name]) for each in (config, base.config))
    raise UserError(
        f"{name}={value}: the model of finetune.base={base.folder} has {base_value}; use that, or "
        f"--config=configs/finetune.py:{base.folder}, which takes the whole model from there"
    )


def _apart(config: Config, other: Config) -> list[Difference]:
    return [*differences(config, other), *differences(other, config)]


def _parting_field(config: Config, other: Config) -> str:
    """Finds a field by which two models are different functions; it may be the context alone."""
    values, other_values, apart = flatten(config), flatten(other), _apart(config, other)
    changed = [name for name in values if name.startswith("model.") and values[name] != other_values[name]]
    for difference in apart:
        if difference.field in changed:
            return difference.field
    # The difference follows from another field: frequencies from theta, a layer's value from the pattern.
    for name in changed if apart else ():
        if _apart(with_values(config, {name: other_values[name]}), other) != apart:
            return name
    return "data.seq_len"


def _text(value: object) -> str:
    return "none" if value is None else str(value)


def _tokenizer(base: SavedRun) -> Tokenizer | None:
    folder: Path = base.folder / "tokenizer"
    return load_tokenizer(folder) if (folder / "kind.json").is_file() else None


def _same(tokenizer: Tokenizer, other: Tokenizer) -> bool:
    if isinstance(tokenizer, Library) and isinstance(other, Library):
        return tokenizer.inner.to_str() == other.inner.to_str()  # a trained one is later read from its file
    if isinstance(tokenizer, Char) and isinstance(other, Char):
        return tokenizer.characters == other.characters
    if isinstance(tokenizer, Words) and isinstance(other, Words):
        return tokenizer.words == other.words
    return tokenizer.kind == other.kind


def _remedy(tokenizer: Tokenizer, base: SavedRun) -> str:
    if isinstance(tokenizer, Char):
        return "they are the characters of its own text: give data.tokenizer=char and a text of the same characters"
    if isinstance(tokenizer, Words):
        return f"they are the words of its task: give --config.data.source=task and data.task={base.config.data.task}"
    return f"give --config.data.tokenizer={tokenizer_field(base)}"
