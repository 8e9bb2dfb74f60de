"""Trains a language model with the PyTorch twin."""

from slm_core.cli.command_line import Invocation, main


def run(invocation: Invocation) -> None:
    from slm_core.hardware.devices import spare_gpu

    spare_gpu("torch")
    from slm_core.training.loop import train
    from slm_torch.trainer import build

    train(invocation.config, build, "torch", invocation.preset, invocation.overrides)


if __name__ == "__main__":
    main(run, "Trains a small language model in PyTorch; the same config trains its twin with scripts/train_flax.py.")
