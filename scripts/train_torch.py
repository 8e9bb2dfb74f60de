"""Trains a language model with the PyTorch twin."""

from slm_core.cli import Invocation, main


def run(invocation: Invocation) -> None:
    from slm_core.loop import train
    from slm_torch.trainer import build

    train(invocation.config, build, "torch", invocation.preset, invocation.overrides)


if __name__ == "__main__":
    main(run, "Trains a small language model in PyTorch; the same config trains its twin with scripts/train_flax.py.")
