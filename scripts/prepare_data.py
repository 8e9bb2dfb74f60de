"""Prepares a run's dataset ahead of time: uv run scripts/prepare_data.py --config configs/llama.py:60m ..."""

from slm_core.cli.command_line import Invocation, main


def run(invocation: Invocation) -> None:
    from slm_core.data import prepare

    dataset = prepare(invocation.config.data)
    print(f"ready: {dataset}, vocabulary {dataset.vocab_size:,}")


if __name__ == "__main__":
    main(run, "Prepares the dataset of a run ahead of time; the trainers find it.")
