"""Copies the tokenizer of a checkpoint into a run, and writes any tokenizer of a run into a checkpoint."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_core.data.tokenizers import (
    END_OF_TEXT,
    Char,
    Library,
    Tokenizer,
    Words,
    load_tokenizer,
    open_tokenizer,
    save_tokenizer,
)
from slm_core.files import machine_errors

if TYPE_CHECKING:
    import tokenizers

COMPANIONS = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "tokenizer.model", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
"""Files that transformers reads beside tokenizer.json, and the settings of its `generate`."""

UNKNOWN = "<unknown>"
"""A token that no vocabulary of characters has, so that an unknown character is an error, as it is here."""


def import_tokenizer(source: Path, target: Path) -> str:
    """Writes the tokenizer of a checkpoint into the tokenizer folder of a run.

    Returns:
      A note for the user if there is none that can be read; else "".

    Raises:
      UserError: tokenizer.json is broken.
    """
    tokenizer = _read(source)
    target.mkdir(parents=True, exist_ok=True)
    for name in COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if tokenizer is not None:
        save_tokenizer(tokenizer, target)
        return ""
    given = "only a SentencePiece tokenizer.model" if (source / "tokenizer.model").is_file() else "no tokenizer"
    return f"the checkpoint has {given}: the run can be exported, but generating and evaluating need a tokenizer.json"


def _read(source: Path) -> Tokenizer | None:
    if (source / "tokenizer.json").is_file():
        return open_tokenizer(str(source / "tokenizer.json"))
    if (source / "vocab.json").is_file() and (source / "merges.txt").is_file():
        return _byte_level(str(source / "vocab.json"), str(source / "merges.txt"))
    return None


def _byte_level(vocabulary: str, merges: str) -> Library:
    """Makes GPT-2's tokenizer from the two files that came before tokenizer.json."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    inner = tokenizers.Tokenizer(models.BPE.from_file(vocabulary, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.decoder = decoders.ByteLevel()
    if inner.token_to_id(END_OF_TEXT) is not None:
        inner.add_special_tokens([END_OF_TEXT])
    return Library(inner, "file")


def export_tokenizer(source: Path, target: Path, context: int) -> None:
    """Writes the tokenizer of a run, of any kind, as files that AutoTokenizer reads.

    Args:
      source: the tokenizer folder of a run.
      target: the folder of the checkpoint.
      context: tokens that the model is made for.
    """
    for name in COMPANIONS:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if not (source / "kind.json").is_file():
        return
    tokenizer = load_tokenizer(source)
    inner = _as_library(tokenizer)
    with machine_errors(target / "tokenizer.json"):
        inner.save(str(target / "tokenizer.json"), pretty=False)
    if not (target / "tokenizer_config.json").is_file():
        settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context}
        if tokenizer.end is not None:
            settings["eos_token"] = inner.id_to_token(tokenizer.end)
        settings["clean_up_tokenization_spaces"] = False
        (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _as_library(tokenizer: Tokenizer) -> "tokenizers.Tokenizer":
    if isinstance(tokenizer, Library):
        return tokenizer.inner
    if isinstance(tokenizer, Words):
        return _from_words(tokenizer)
    return _from_characters(tokenizer) if isinstance(tokenizer, Char) else _from_bytes()


def _from_bytes() -> "tokenizers.Tokenizer":
    """Makes a tokenizer with one token per byte: a byte-level BPE without merges, whose ids are the bytes."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # The alphabet writes printable bytes as themselves and the others, in order, from U+0100 on.
    printable = {b for b in range(256) if chr(b) in level.alphabet()}
    others = iter(range(256, 512))
    characters = {chr(b) if b in printable else chr(next(others)): b for b in range(256)}
    inner = tokenizers.Tokenizer(models.BPE(vocab=characters, merges=[]))
    inner.pre_tokenizer, inner.decoder = level, decoders.ByteLevel()
    return inner


def _from_characters(tokenizer: Char) -> "tokenizers.Tokenizer":
    """Makes a tokenizer with one token per character."""
    import tokenizers
    from tokenizers import Regex, decoders, models, pre_tokenizers

    vocabulary = {character: i for i, character in enumerate(tokenizer.characters)}
    inner = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"), decoders.Fuse()
    return inner


def _from_words(tokenizer: Words) -> "tokenizers.Tokenizer":
    """Makes a tokenizer with one token per word; the library puts spaces between them."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    inner = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(tokenizer.words)}, unk_token=UNKNOWN)
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return inner
