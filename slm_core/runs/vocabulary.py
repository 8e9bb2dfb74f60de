"""How many tokens a config's model will have, before its data is prepared."""

from slm_core.config import Config

CHARACTERS = 65
"""Assumed of tokenizer=char: those of the Shakespeare corpus."""


def expected_vocabulary(config: Config) -> int:
    """Returns the rows of the embedding; with bpe and char, which depend on the text, what is asked for or usual.

    Raises:
      UserError: the tokenizer's file or the base run cannot be read.
    """
    if config.finetune.base:
        from slm_core.runs.saved import load_run

        return load_run(config.finetune.base).vocab_size
    kind, _, path = config.data.tokenizer.partition(":")
    if kind == "file":
        from slm_core.data.tokenizers import open_tokenizer

        return open_tokenizer(path).vocab_size
    return {"byte": 256, "char": CHARACTERS, "bpe": config.data.vocab_size}[kind]
