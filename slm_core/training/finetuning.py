"""Training that starts from the weights of another run: which that is, and whether config and data fit it."""

from pathlib import Path

from slm_core.config import Config
from slm_core.config.fields import flatten, with_values
from slm_core.data import Dataset, load_tokenizer
from slm_core.data.tokenizers import Char, Library, Tokenizer
from slm_core.errors import UserError
from slm_core.model.compare import Difference, differences
from slm_core.runs.folder import SavedRun, load_run


def open_base(config: Config) -> SavedRun | None:
    """Returns the run whose weights training starts from; None: it starts from the initial ones.

    Raises:
      UserError: there is no such run, or the config's model is another function than its.
    """
    if not config.finetune.base:
        return None
    try:
        base = load_run(config.finetune.base)
    except UserError as error:
        raise UserError(f"finetune.base: {error}") from None
    _check_model(config, base)
    return base


def check_tokens(config: Config, base: SavedRun, dataset: Dataset) -> None:
    """Raises UserError when the data are not in the tokens that the base's model knows."""
    own = _tokenizer(base)
    if own is not None and not _same(own, dataset.tokenizer):
        raise UserError(
            f"data.tokenizer={config.data.tokenizer}: {base.folder} knows other tokens; {_remedy(own, base)}"
        )
    if dataset.vocab_size > base.vocab_size:
        raise UserError(
            f"data.tokenizer={config.data.tokenizer}: it has {dataset.vocab_size} tokens and the model of {base.folder}"
            f" knows {base.vocab_size}; give the tokenizer that it was trained with"
        )


def tokenizer_field(base: SavedRun) -> str | None:
    """Returns the value of data.tokenizer that stands for a run's own; None: it has none that can be read."""
    own = _tokenizer(base)
    if isinstance(own, Library):
        return f"file:{base.folder / 'tokenizer' / 'tokenizer.json'}"
    return None if own is None else own.kind


def _check_model(config: Config, base: SavedRun) -> None:
    learned = config.model.position.kind == base.config.model.position.kind == "learned"
    longer = learned and config.data.seq_len != base.config.data.seq_len
    if not (longer or _apart(config, base.config)):
        return
    name = _parting_field(config, base.config)
    ours, theirs = (_text(flatten(each)[name]) for each in (config, base.config))
    raise UserError(
        f"{name}={ours}: the model of finetune.base={base.folder} has {theirs}; use that, or "
        f"--config=configs/finetune.py:{base.folder}, which takes the whole model from there"
    )


def _apart(config: Config, other: Config) -> list[Difference]:
    return [*differences(config, other), *differences(other, config)]


def _parting_field(config: Config, other: Config) -> str:
    """Returns a field that makes two models other functions, or the context, which may do so by itself."""
    ours, theirs, found = flatten(config), flatten(other), _apart(config, other)
    changed = [name for name in ours if name.startswith("model.") and ours[name] != theirs[name]]
    for difference in found:
        if difference.field in changed:
            return difference.field
    # What differs follows from another field: frequencies from theta, a layer's value from the pattern.
    for name in changed if found else ():
        if _apart(with_values(config, {name: theirs[name]}), other) != found:
            return name
    return "data.seq_len"


def _text(value: object) -> str:
    return "none" if value is None else str(value)


def _tokenizer(base: SavedRun) -> Tokenizer | None:
    folder: Path = base.folder / "tokenizer"
    return load_tokenizer(folder) if (folder / "kind.json").is_file() else None


def _same(own: Tokenizer, other: Tokenizer) -> bool:
    if isinstance(own, Library) and isinstance(other, Library):
        return own.inner.to_str() == other.inner.to_str()  # one that was trained here is later read from its file
    if isinstance(own, Char) and isinstance(other, Char):
        return own.characters == other.characters
    return own.kind == other.kind


def _remedy(own: Tokenizer, base: SavedRun) -> str:
    if isinstance(own, Char):
        return "they are the characters of its own text: give data.tokenizer=char and a text of the same characters"
    return f"give --config.data.tokenizer={tokenizer_field(base)}"
