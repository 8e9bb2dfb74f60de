"""Tokenizers turn text into token ids and back; their streams never break a character.

In `byte` and `char` a document ends with NUL, which clean text never has.
"""

import codecs
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from slm_core.config.bounds import TOKENS
from slm_core.errors import UserError
from slm_core.files import machine_errors
from slm_core.json_files import Schema, read_json

if TYPE_CHECKING:
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
_ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<end_of_text>", "[EOS]", "[SEP]")


class Stream(Protocol):
    """Turns one token after the other into text; keeps a character back until it is whole."""

    def push(self, token: int) -> str:
        """Takes one token and returns the text that is certain now."""

    def flush(self) -> str:
        """Returns the rest of the text, with U+FFFD for a character that is not whole."""


class Tokenizer(Protocol):
    """Turns text into token ids and back.

    Attributes:
      kind: "byte", "char", "bpe", "file" or "words".
      vocab_size: number of token ids.
      end: the id that ends a document; None: there is none.
    """

    kind: str
    vocab_size: int
    end: int | None

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of `text`."""

    def prompt(self, text: str) -> list[int]:
        """Returns the token ids of a text that opens a document, after those that the tokenizer puts before one.

        The name of a special token in the text is that token.
        """

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the text of token ids, with U+FFFD for what is not valid text."""

    def array(self, text: bytes) -> np.ndarray:
        """Returns the token ids of UTF-8 text as an unsigned integer array."""

    def stream(self) -> Stream:
        """Returns a new incremental decoder."""

    def save(self, folder: Path) -> None:
        """Writes the files that `load_tokenizer` reads."""


class Byte:
    """One token per UTF-8 byte."""

    kind: str = "byte"
    vocab_size: int = 256
    end: int | None = 0

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogateescape"))

    def prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def decode(self, tokens: Iterable[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")

    def array(self, text: bytes) -> np.ndarray:
        return np.frombuffer(text, np.uint8)

    def stream(self) -> Stream:
        return _ByteStream()

    def save(self, folder: Path) -> None:
        _write(folder, {"kind": self.kind})


class _ByteStream:
    def __init__(self):
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(bytes((token,)))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class Char:
    """One token per character of the corpus, sorted. With more than one document, NUL is one of them."""

    kind: str = "char"

    def __init__(self, characters: str):
        self.characters = characters
        self.vocab_size = len(characters)
        self._ids = {character: i for i, character in enumerate(characters)}
        self.end = self._ids.get("\0")
        codes = np.array([ord(c) for c in characters], np.int64)
        self._table = np.zeros(codes.max() + 1, np.uint32)
        self._table[codes] = np.arange(len(codes))

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise UserError(
                f"data.tokenizer='char': the character {error.args[0]!r} is not among the {self.vocab_size} characters "
                "of the corpus; leave it out"
            ) from None

    def prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self.characters[token] for token in tokens)

    def array(self, text: bytes) -> np.ndarray:
        return self._table[np.frombuffer(text.decode("utf-8").encode("utf-32-le"), np.uint32)]

    def stream(self) -> Stream:
        return _CharStream(self.characters)

    def save(self, folder: Path) -> None:
        _write(folder, {"kind": self.kind, "characters": self.characters})


class _CharStream:
    def __init__(self, characters: str):
        self._characters = characters

    def push(self, token: int) -> str:
        return self._characters[token]

    def flush(self) -> str:
        return ""


class Words:
    """One token per word of a synthetic task; text has spaces between words."""

    kind: str = "words"
    end: int | None = None

    def __init__(self, words: list[str]):
        self.words = words
        self.vocab_size = len(words)
        self._ids = {word: i for i, word in enumerate(words)}

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[word] for word in text.split()]
        except KeyError as error:
            raise UserError(
                f"{error.args[0]!r} is not among the {self.vocab_size} words of the task, such as "
                f"{' '.join(self.words[:5])}; words have spaces between them"
            ) from None

    def prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def decode(self, tokens: Iterable[int]) -> str:
        return " ".join(self.words[token] for token in tokens)

    def array(self, text: bytes) -> np.ndarray:
        return np.array(self.encode(text.decode("utf-8")), np.uint32)

    def stream(self) -> Stream:
        return _WordStream(self.words)

    def save(self, folder: Path) -> None:
        _write(folder, {"kind": self.kind, "words": self.words})


class _WordStream:
    def __init__(self, words: list[str]):
        self._words = words
        self._space = ""

    def push(self, token: int) -> str:
        text, self._space = self._space + self._words[token], " "
        return text

    def flush(self) -> str:
        return ""


class Library:
    """A tokenizer of the `tokenizers` library, trained here ("bpe") or given ("file")."""

    def __init__(self, inner: "tokenizers.Tokenizer", kind: str):
        self.kind = kind
        self.inner = inner
        inner.no_truncation()
        inner.no_padding()
        # The name of a special token in the text is text, never the token itself.
        inner.encode_special_tokens = True
        self.vocab_size = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        special = {t.content: i for i, t in inner.get_added_tokens_decoder().items() if t.special}
        self.end = next((special[end] for end in _ENDS if end in special), None)

    def encode(self, text: str) -> list[int]:
        return self._ids(text)

    def _ids(self, text: str, framed: bool = False, special: bool = False) -> list[int]:
        """Returns the ids of a text.

        Args:
          framed: with the special tokens that the tokenizer puts around a document.
          special: the name of a special token in the text is that token.
        """
        self.inner.encode_special_tokens = not special
        try:
            return self.inner.encode_batch_fast([text], add_special_tokens=framed)[0].ids
        except Exception as error:  # the library raises bare Exception
            raise UserError(
                f"data.tokenizer: it cannot read {text[:20]!r} ({_reason(error)}); give one with an unknown token, or "
                "one that knows every character"
            ) from None
        finally:
            self.inner.encode_special_tokens = True

    def prompt(self, text: str) -> list[int]:
        tokens = self.written(text)
        framed = self._ids(text, framed=True, special=True)
        before = next((i for i in range(len(framed)) if framed[i : i + len(tokens)] == tokens), 0)
        return framed[:before] + tokens

    def written(self, text: str) -> list[int]:
        """Returns the token ids of a text in which the name of a special token is that token."""
        return self._ids(text, special=True)

    def decode(self, tokens: Iterable[int]) -> str:
        return self.inner.decode(list(tokens), skip_special_tokens=False)

    def array(self, text: bytes) -> np.ndarray:
        return np.array(self.encode(text.decode("utf-8")), np.uint32)

    def stream(self) -> Stream:
        return _LibraryStream(self.decode)

    def save(self, folder: Path) -> None:
        _write(folder, {"kind": self.kind})
        with machine_errors(folder / "tokenizer.json"):
            self.inner.save(str(folder / "tokenizer.json"), pretty=False)


class _LibraryStream:
    """Decodes each token together with those just before it, because its text may depend on them."""

    def __init__(self, decode: Callable[[list[int]], str]):
        self._decode = decode
        self._tokens: list[int] = []
        self._shown = 0  # leading tokens whose text was returned

    def push(self, token: int) -> str:
        self._tokens.append(token)
        text = self._decode(self._tokens)
        return "" if text.endswith("\ufffd") else self._emit(text)

    def flush(self) -> str:
        return self._emit(self._decode(self._tokens))

    def _emit(self, text: str) -> str:
        new = text[len(self._decode(self._tokens[: self._shown])) :]
        self._tokens = self._tokens[self._shown :]
        self._shown = len(self._tokens)
        return new


def open_tokenizer(path: str) -> Library:
    """Reads a tokenizer.json of the `tokenizers` library. Raises UserError if it is missing or broken."""
    import tokenizers

    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"data.tokenizer='file:{path}': there is no such file; give the path of a tokenizer.json")
    try:
        inner = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise UserError(
            f"data.tokenizer='file:{path}': not a tokenizer.json ({_reason(error)}); save it again"
        ) from None
    largest = max(inner.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= largest < TOKENS:
        problem = "it has no tokens" if largest < 0 else f"its largest token id is {largest}, and {TOKENS - 1} may be"
        raise UserError(f"data.tokenizer='file:{path}': {problem}; train it again")
    return Library(inner, "file")


def train_bpe(texts: Iterable[str], vocab_size: int) -> Library:
    """Trains a byte-level BPE (Sennrich 2016). Its vocabulary is 256 bytes, merges and one end-of-text token."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return Library(inner, "bpe")


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a tokenizer into `folder`, which is made if it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)


class _Stored(Schema):
    """The fields of kind.json."""

    kind: Literal["byte", "char", "words", "bpe", "file"]
    characters: str = ""
    words: list[str] = []


def load_tokenizer(folder: Path) -> Tokenizer:
    """Reads what `save_tokenizer` wrote. Raises UserError if the folder has no tokenizer."""
    folder = Path(folder)
    try:
        stored = read_json(folder / "kind.json", _Stored, "restore it")
        if stored.kind == "byte":
            return Byte()
        if stored.kind == "char":
            return Char(stored.characters)
        if stored.kind == "words":
            return Words(stored.words)
        import tokenizers

        return Library(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), stored.kind)
    except Exception as error:  # missing, not JSON, or refused by the library
        raise UserError(f"tokenizer folder {str(folder)!r}: cannot be read ({_reason(error)}); restore it") from None


def _reason(error: Exception) -> str:
    """Returns what the library says, as one line of no great length."""
    return " ".join(str(error).split())[:120]


def _write(folder: Path, stored: dict[str, Any]) -> None:
    (folder / "kind.json").write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")
