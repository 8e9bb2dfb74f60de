"""Continues a prompt with a run of either twin."""

import sys
from typing import TYPE_CHECKING

from slm_core.cli.command_line import STEP, Flag, Invocation, main
from slm_core.errors import UserError

if TYPE_CHECKING:
    from slm_core.data.tokenizers import Tokenizer
    from slm_core.runs.saved import SavedRun

FLAGS = (
    Flag("run", str, "", "run folder: models/NAME", required=True),
    STEP,
    Flag(
        "prompt", str, "", "text to continue; of an imported run, special tokens in it are read as such", required=True
    ),
    Flag("chat", bool, False, "the prompt is a user's message: write it by the chat template of the run's tokenizer"),
    Flag("framework", str, "", "twin that computes; empty: the run's own", choices=("", "torch", "flax")),
    Flag("max_tokens", int, 300, "tokens to generate"),
    Flag("temperature", float, 0.8, "divisor of the logits; 0: always the likeliest token"),
    Flag("top_k", int, 0, "number of the likeliest tokens to sample from; 0: all"),
    Flag("top_p", float, 0.95, "total probability of the likeliest tokens to sample from; 1: all"),
    Flag("seed", int, 0, "seed of the random numbers, from 0 on"),
    Flag("device", str, "auto", "where to compute", choices=("auto", "cpu", "cuda")),
)


def run(invocation: Invocation) -> None:
    from slm_core.data import load_tokenizer
    from slm_core.inference.evaluator import open_evaluator
    from slm_core.inference.sampling import generate
    from slm_core.inference.special import end_tokens
    from slm_core.runs.chosen import at_step
    from slm_core.runs.saved import load_run
    from slm_core.training.display.plain import printable

    flags = invocation.flags
    saved = at_step(load_run(flags["run"]), flags["step"])
    tokenizer = load_tokenizer(saved.folder / "tokenizer")
    prompt = _tokens(saved, tokenizer, flags["prompt"], flags["chat"])
    if not prompt:
        raise UserError("--prompt is empty: give at least one character to continue")
    if max(prompt) >= saved.vocab_size:
        raise UserError(
            f"--prompt has a token of id {max(prompt)}, and the model has {saved.vocab_size}: leave that token out"
        )
    if len(prompt) > saved.config.data.seq_len:
        last = f"the model reads the last {saved.config.data.seq_len}"
        print(f"note: the prompt has {len(prompt)} tokens; {last}", file=sys.stderr)

    evaluator = open_evaluator(saved, flags["framework"], flags["device"])
    options = {name: flags[name] for name in ("max_tokens", "temperature", "top_k", "top_p", "seed")}
    tokens, stream = generate(evaluator.decoder(), prompt, **options), tokenizer.stream()
    for token in prompt:
        stream.push(token)  # the text of a token may depend on the one before
    ends = end_tokens(saved.tokens or {})
    shown = printable if sys.stdout.isatty() else str
    print(shown(flags["prompt"]), end="", flush=True)
    try:
        for token in tokens:
            if token in ends:
                break
            print(shown(stream.push(token)), end="", flush=True)
    except FloatingPointError as error:
        print()
        raise UserError(f"--run={flags['run']}: {error}; its weights are damaged or diverged") from None
    print(shown(stream.flush()))


def _tokens(saved: "SavedRun", tokenizer: "Tokenizer", text: str, chat: bool) -> list[int]:
    """Returns the tokens of a prompt. A chat's template writes all special tokens itself."""
    from slm_core.data.tokenizers import Library
    from slm_core.inference.chat import chat_text

    if chat:
        if not isinstance(tokenizer, Library):
            raise UserError(f"--chat: the tokenizer of {saved.folder} has no chat template: leave --chat out")
        return tokenizer.written(chat_text(saved.folder / "tokenizer", text))
    # A model from elsewhere expects the tokens that its tokenizer puts before a document; one trained here does not.
    return (tokenizer.encode if saved.imported is None else tokenizer.prompt)(text)


if __name__ == "__main__":
    main(run, __doc__, FLAGS, takes_config=False)
