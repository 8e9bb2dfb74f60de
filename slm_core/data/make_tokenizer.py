"""Makes the tokenizer of a dataset, or loads the one that an interrupted preparation left."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from slm_core.config import Data
from slm_core.data.chunks import Chunk
from slm_core.data.progress import Progress
from slm_core.data.sample import SAMPLE, Sample
from slm_core.data.scan import Scan
from slm_core.data.split import Rule
from slm_core.data.tokenizers import Byte, Char, Tokenizer, load_tokenizer, open_tokenizer, save_tokenizer, train_bpe
from slm_core.errors import UserError
from slm_core.json_files import read_json

_NOTE: Any = int | None


def make_tokenizer(
    work: Path, data: Data, chunks: list[Chunk], scanned: Scan, rule: Rule, progress: Progress
) -> tuple[Tokenizer, int | None]:
    """Makes the tokenizer in `work`/tokenizer, or loads it if it is there.

    Returns:
      The tokenizer, and the bytes of text that a BPE was trained on (None for the other kinds).
    """
    folder, note = work / "tokenizer", work / "tokenizer.json"
    if folder.exists():
        with contextlib.suppress(UserError):  # damaged: it is made anew
            return load_tokenizer(folder), read_json(note, _NOTE, "")
        shutil.rmtree(folder)
    tokenizer, sample_bytes = _make(data, chunks, scanned, rule, progress)
    note.write_text(json.dumps(sample_bytes))
    temporary = work / "tokenizer.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    save_tokenizer(tokenizer, temporary)
    os.replace(temporary, folder)
    return tokenizer, sample_bytes


def _make(
    data: Data, chunks: list[Chunk], scanned: Scan, rule: Rule, progress: Progress
) -> tuple[Tokenizer, int | None]:
    if data.tokenizer == "byte":
        return Byte(), None
    if data.tokenizer == "char":
        return Char("\0" * (scanned.documents > 1) + scanned.characters), None
    if data.tokenizer == "bpe":
        return _train_bpe(data, chunks, scanned, rule, progress)
    return open_tokenizer(data.tokenizer.removeprefix("file:")), None


def _train_bpe(data: Data, chunks: list[Chunk], scanned: Scan, rule: Rule, progress: Progress) -> tuple[Tokenizer, int]:
    sample = Sample(chunks, scanned, rule)
    with progress.phase("learning", min(scanned.total, SAMPLE)) as advance:
        tokenizer = train_bpe(sample.texts(advance), data.vocab_size)
    if not sample.complete:
        progress.say(f"trained the tokenizer on a sample of {sample.size / 1e6:,.0f} of {scanned.total / 1e6:,.0f} MB")
    if tokenizer.vocab_size < data.vocab_size:
        progress.say(
            f"note: the text gives a vocabulary of {tokenizer.vocab_size}, not data.vocab_size={data.vocab_size}"
        )
    return tokenizer, sample.size
