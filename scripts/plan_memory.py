"""Says how much memory a config takes in either twin, before anything is allocated, and which settings fit."""

from typing import Any

import scripts._path  # noqa: F401
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import PICTURES, output_file

DESCRIPTION = """Predicts the peak memory of training a config in each twin, split into weights, gradients, optimizer,
activations, logits and workspace, as a table and bars, beside memory.limit_gb. Then the largest micro-batch and the
settings that fit at the least cost in time. Exits with 1 if a twin does not fit.
Planned is for a GPU, or with --config.run.device=cpu for a CPU. Needs no GPU and no data."""

FLAGS = [
    Flag("framework", str, "both", "the twin", choices=("both", "torch", "flax")),
    Flag("measure", bool, False, "also what PyTorch's MemTracker (on fake tensors) and XLA's compiler say; minutes"),
    Flag("figure", str, "", "file for the bars as a picture, .png or .svg; empty: none"),
]


def run(invocation: Invocation) -> None:
    from slm_core.planner import predict
    from slm_core.planner.report import advice, bars, picture, summary, table
    from slm_core.planner.search import cheapest, smallest
    from slm_core.runs.vocabulary import expected_vocabulary

    flags, config = invocation.flags, invocation.config
    figure = output_file("figure", flags["figure"], PICTURES) if flags["figure"] else None
    twins = ["torch", "flax"] if flags["framework"] == "both" else [flags["framework"]]
    vocab_size = expected_vocabulary(config)
    limit = config.memory.limit_gb * 1e9 or float("inf")
    configs = {twin: cheapest(config, vocab_size, twin, limit) or smallest(config, vocab_size, twin) for twin in twins}
    predictions = {twin: predict(config, vocab_size, twin) for twin, config in configs.items()}
    print(invocation.preset)
    for twin, line in _summaries(configs, vocab_size, summary).items():
        print(f"{twin}: {line}")
    print(*["", *table(predictions, limit), "", *bars(predictions, limit), ""], sep="\n")
    print(*advice(config, vocab_size, twins, limit), sep="\n", flush=True)
    if figure:
        picture(figure, {invocation.preset: predictions}, limit)
        print(f"written: {figure}")
    if flags["measure"]:
        _measure(configs, predictions, vocab_size)
    if any(prediction.total > limit for prediction in predictions.values()):
        raise SystemExit(1)


def _summaries(configs: dict[str, Any], vocab_size: int, summary: Any) -> dict[str, str]:
    """Returns {twins: line}, one entry where both have the same settings."""
    from slm_core.planner.report import TWINS

    lines: dict[str, str] = {}
    for twin, config in configs.items():
        line = summary(config, vocab_size)
        lines[line] = f"{lines[line]}, {TWINS[twin]}" if line in lines else TWINS[twin]
    return {names: line for line, names in lines.items()}


def _measure(configs: dict[str, Any], predictions: dict[str, Any], vocab_size: int) -> None:
    from parity.memory import measured
    from slm_core.planner.report import TWINS, gigabytes

    for twin, config in configs.items():
        found = measured(config, vocab_size, twin)
        ratio = predictions[twin].total / found
        print(f"{TWINS[twin]}: measured {gigabytes(found)}; predicted {ratio:.3f} of it", flush=True)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, needs_data=False)
