"""Continues a prompt with a trained run of either twin."""

import importlib
import os
from dataclasses import replace

from slm_core.cli import Flag, Invocation, main
from slm_core.errors import UserError

FLAGS = (
    Flag("run", str, "", "run folder: models/NAME", required=True),
    Flag("prompt", str, "", "text to continue", required=True),
    Flag(
        "framework", str, "", "twin that computes; empty: the one that trained the run", choices=("", "torch", "flax")
    ),
    Flag("max_tokens", int, 300, "tokens to generate"),
    Flag("temperature", float, 0.8, "divides the logits; 0: always the likeliest token"),
    Flag("top_k", int, 0, "samples from the k likeliest tokens; 0: from all"),
    Flag("top_p", float, 0.95, "samples from the likeliest tokens that together have this probability; 1: from all"),
    Flag("seed", int, 0, "seed of the random numbers"),
    Flag("device", str, "auto", "where to compute", choices=("auto", "cpu", "cuda")),
)


def run(invocation: Invocation) -> None:
    from slm_core.data import load_tokenizer
    from slm_core.platform import quiet_jax
    from slm_core.run_folder import load_run
    from slm_core.sampling import generate

    flags = invocation.flags
    saved = load_run(flags["run"])
    tokenizer = load_tokenizer(saved.folder / "tokenizer")
    prompt = tokenizer.encode(flags["prompt"])
    if not prompt:
        raise UserError("--prompt is empty: give at least one character to continue")

    quiet_jax()
    framework = flags["framework"] or saved.framework
    config = replace(saved.config, run=replace(saved.config.run, device=flags["device"]))
    if framework == "torch":
        # Reading a Flax run's checkpoint starts JAX as well, which must leave the GPU to PyTorch.
        os.environ["JAX_PLATFORMS"] = "cpu"
    engine = importlib.import_module(f"slm_{framework}.trainer").build(config, saved.vocab_size)
    native = importlib.import_module(f"slm_{saved.framework}.checkpoint")
    engine.import_state(native.restore(saved.checkpoint / "state"))

    options = {name: flags[name] for name in ("max_tokens", "temperature", "top_k", "top_p", "seed")}
    tokens, stream = generate(engine.decoder(), prompt, **options), tokenizer.stream()
    print(flags["prompt"], end="", flush=True)
    for token in tokens:
        print(stream.push(token), end="", flush=True)
    print(stream.flush())


if __name__ == "__main__":
    main(run, __doc__, FLAGS, takes_config=False)
