"""Trains a language model with the Flax twin."""

from slm_core.cli.command_line import Invocation, main


def run(invocation: Invocation) -> None:
    from slm_core.hardware.devices import spare_gpu

    spare_gpu("flax")
    from slm_core.training.loop import train
    from slm_flax.trainer import build

    train(invocation.config, build, "flax", invocation.preset, invocation.overrides)


if __name__ == "__main__":
    main(run, "Trains a small language model in Flax; the same config trains its twin with scripts/train_torch.py.")
