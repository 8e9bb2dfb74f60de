"""Tells the size of a config's vocabulary before its data is prepared."""

from slm_core.config import Config

CHARACTERS = 65
"""Tokens that tokenizer=char is assumed to have: the characters of the Shakespeare corpus."""


def expected_vocabulary(config: Config) -> int:
    """Returns the number of rows of the embedding.

    The true size with bpe and char depends on the text. For bpe it is taken from the config, for char it is CHARACTERS.

    Raises:
      UserError: the tokenizer's file or the base run cannot be read.
    """
    if config.finetune.base:
        from slm_core.runs.saved import load_run

        return load_run(config.finetune.base).vocab_size
    if config.data.source == "task":
        from slm_core.data.task_data import task_vocabulary

        return task_vocabulary(config.data)
    kind, _, path = config.data.tokenizer.partition(":")
    if kind == "file":
        from slm_core.data.tokenizers import open_tokenizer

        return open_tokenizer(path).vocab_size
    return {"byte": 256, "char": CHARACTERS, "bpe": config.data.vocab_size}[kind]
