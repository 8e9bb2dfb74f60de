"""Chooses the prompt that a page looks at, and writes its tokens so that each can be seen."""

from dataclasses import dataclass

from slm_core.data import load_tokenizer, prepare
from slm_core.data.tokenizers import Tokenizer
from slm_core.errors import UserError
from slm_core.protocols import unscored
from slm_core.runs.saved import SavedRun
from slm_core.studies.inspection.induction import repeated_tokens

MOST = 64
"""Largest number of tokens of a prompt: more could not be read on a map."""
LEAST = 32
"""Tokens that a line of the validation text needs to be worth looking at."""
SENTENCE = "The cat sat on the mat. The dog sat on the rug. The cat sat on the"
"""The prompt of an imported run, which has no validation text."""
_SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍", "\0": "␀"}
_LONGEST = 12


@dataclass(frozen=True)
class Prompt:
    """What the model reads.

    Args:
      tokens: ids, 2 at least.
      words: how each is written on the page.
      scored: for each token after the first, whether the model should know it. Of a task these are the answers.
      origin: where they come from, for the reader.
    """

    tokens: tuple[int, ...]
    words: tuple[str, ...]
    scored: tuple[bool, ...]
    origin: str


def open_prompt(saved: SavedRun, text: str | None) -> tuple[Prompt, Tokenizer | None]:
    """Chooses the prompt of a run: a text, or a line of what the run is evaluated on.

    Args:
      text: from the user; None: a line of the validation text, of a task its first validation sequence, of an imported
        run a sentence, or random tokens if the run has no tokenizer.

    Returns:
      The prompt, and the run's tokenizer, if it has one.

    Raises:
      UserError: the text has fewer than 2 tokens, there is no tokenizer for it, or the validation text is not there.
    """
    tokenizer = _tokenizer(saved, text)
    most = min(MOST, saved.config.data.seq_len)
    if most < 2:
        raise UserError(f"{saved.folder}: data.seq_len={most}: a model that reads one token looks at nothing")
    marked, origin = _given(saved, tokenizer, text) if text is not None else _default(saved, tokenizer, most)
    if len(marked) < 2:
        raise UserError(f"--prompt={text!r} has {len(marked)} tokens; give at least 2, so that there is one to predict")
    cut = f"; the first {most} of {len(marked)} tokens" if len(marked) > most else ""
    tokens = tuple(unscored(token) if token < 0 else token for token in marked[:most])
    words, scored = tuple(word(tokenizer, token) for token in tokens), tuple(token >= 0 for token in marked[1:most])
    return Prompt(tokens, words, scored, origin + cut), tokenizer


def _tokenizer(saved: SavedRun, text: str | None) -> Tokenizer | None:
    """Opens the run's tokenizer. An imported run may have none, and then reads no text."""
    folder = saved.folder / "tokenizer"
    if saved.imported is None or (folder / "kind.json").is_file():
        return load_tokenizer(folder)
    if text is not None:
        raise UserError(f"--prompt: {saved.folder} was imported without a tokenizer; leave the flag out")
    return None


def _given(saved: SavedRun, tokenizer: Tokenizer | None, text: str) -> tuple[list[int], str]:
    assert tokenizer is not None, "a text without a tokenizer is refused before"
    # A model from elsewhere expects the tokens that its tokenizer puts before a document; one trained here does not.
    encode = tokenizer.encode if saved.imported is None else tokenizer.prompt
    return encode(text), "given with --prompt"


def _default(saved: SavedRun, tokenizer: Tokenizer | None, most: int) -> tuple[list[int], str]:
    """Returns the tokens of a prompt, some of them `unscored`, and where they come from."""
    if saved.imported is not None:
        if tokenizer is None:
            tokens = repeated_tokens(saved.vocab_size, most)[0].tolist()
            return tokens, "random tokens, twice, because the run has no tokenizer"
        return tokenizer.prompt(SENTENCE), "a sentence, because the run was imported; --prompt gives another"
    try:
        dataset = prepare(saved.config.data)
    except UserError as error:
        raise UserError(f"{error}; or give --prompt=TEXT") from error
    if saved.config.data.source == "task":
        sequence = dataset.windows("validation", saved.config.data.seq_len)[0].tolist()
        return sequence[:most], "the first validation sequence of the task"
    opening = dataset.opening(16 * most)
    lines = (dataset.tokenizer.encode(line.strip()) for line in dataset.tokenizer.decode(opening).splitlines())
    line = next((line for line in lines if LEAST <= len(line) <= most), None)
    return (line, "a line of the validation text") if line else (opening[:most], "the start of the validation text")


def word(tokenizer: Tokenizer | None, token: int) -> str:
    """Writes a token so that it can be seen: spaces and line ends as signs, bytes that are no text as numbers."""
    text = "" if tokenizer is None else tokenizer.decode([token])
    if not text or "\ufffd" in text:
        return f"#{token}"
    shown = "".join(_SHOWN.get(c, c if c.isprintable() else f"\\x{ord(c):02x}") for c in text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
