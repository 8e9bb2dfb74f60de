"""Turns text into batches of tokens: sources, tokenizers, preparation, and the one pipeline that both twins read.

    dataset = prepare(config.data)                        # finds or builds data/<name>-<fingerprint>/
    dataset.tokenizer.encode("def "), dataset.vocab_size  # text <-> tokens
    prepare_text(config.data).tokens("train")             # memory-mapped tokens
    batches = Batches(dataset, "train", seq_len, batch_size, seed)
    next(batches)                                         # int32 [batch_size, seq_len + 1], endless
    batches.state(), batches.restore(state)               # the position, one small JSON object
    validation_batches(dataset, seq_len, batch_size, max_batches, seed)
    save_tokenizer(tokenizer, folder), load_tokenizer(folder)

Heavy libraries (grain, tokenizers, pyarrow, datasets, rich) are imported where they are used.
"""

from slm_core.data.dataset import Dataset
from slm_core.data.pipeline import Batches, validation_batches
from slm_core.data.prepare import prepare, prepare_text
from slm_core.data.tokenizers import load_tokenizer, save_tokenizer

__all__ = ["Batches", "Dataset", "load_tokenizer", "prepare", "prepare_text", "save_tokenizer", "validation_batches"]
