"""Continues a prompt with a run of either twin."""

import sys

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

FLAGS = (
    Flag("run", str, "", "run folder: models/NAME", required=True),
    Flag("prompt", str, "", "text to continue", required=True),
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
    from slm_core.runs.saved import load_run
    from slm_core.training.display.plain import printable

    flags = invocation.flags
    saved = load_run(flags["run"])
    tokenizer = load_tokenizer(saved.folder / "tokenizer")
    # A model from elsewhere expects the tokens that its tokenizer puts before a document; one trained here does not.
    prompt = (tokenizer.encode if saved.imported is None else tokenizer.prompt)(flags["prompt"])
    if not prompt:
        raise UserError("--prompt is empty: give at least one character to continue")

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


if __name__ == "__main__":
    main(run, __doc__, FLAGS, takes_config=False)
