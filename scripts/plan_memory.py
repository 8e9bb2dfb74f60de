"""Predicts the memory that training a config takes in either twin, and says which settings fit."""

from collections.abc import Mapping

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import PICTURES, output_file
from slm_core.config import Config
from slm_core.planner import Prediction

DESCRIPTION = """Predicts the peak memory of training a config in each twin, before anything is allocated. Prints
weights, gradients, optimizer, activations, logits and workspace as a table and as bars, beside memory.limit_gb; of a
CPU also the snapshot, the copy that a checkpoint is written from while training goes on (run.async_saving). Then
names the largest micro-batch that fits, and the settings that fit and cost the least time. Exits with 1 if a twin does
not fit. Plans for a GPU, or with --config.run.device=cpu for a CPU. Needs no GPU and no data."""

FLAGS = [
    Flag("framework", str, "both", "twin to plan for", choices=("both", "torch", "flax")),
    Flag("measure", bool, False, "also measure it, by MemTracker on fake tensors and by XLA's compiler; minutes"),
    Flag("figure", str, "", "file for the bars as a picture, .png or .svg; empty: none"),
]


def run(invocation: Invocation) -> None:
    from parity.memory import planned
    from slm_core.planner import predict
    from slm_core.planner.report import TWINS, advice, bars, picture, summary, table
    from slm_core.planner.search import cheapest, smallest
    from slm_core.runs.vocabulary import expected_vocabulary

    flags, config = invocation.flags, invocation.config
    figure = output_file("figure", flags["figure"], PICTURES) if flags["figure"] else None
    names = list(TWINS) if flags["framework"] == "both" else [flags["framework"]]
    twins = {name: planned(name) for name in names}
    vocab_size = expected_vocabulary(config)
    limit = config.memory.limit_gb * 1e9 or float("inf")
    configs = {
        name: cheapest(config, vocab_size, twin, limit) or smallest(config, vocab_size, twin)
        for name, twin in twins.items()
    }
    predictions = {name: predict(configs[name], vocab_size, twin) for name, twin in twins.items()}
    print(invocation.preset)
    for line in _joined({TWINS[name]: summary(config, vocab_size) for name, config in configs.items()}):
        print(line)
    print(*["", *table(predictions, limit), "", *bars(predictions, limit), ""], sep="\n")
    print(*advice(config, vocab_size, list(twins.values()), limit), sep="\n", flush=True)
    if figure:
        picture(figure, {invocation.preset: predictions}, limit)
        print(f"written: {figure}")
    if flags["measure"]:
        _measure(configs, predictions, vocab_size)
    if any(prediction.total > limit for prediction in predictions.values()):
        raise SystemExit(1)


def _joined(lines: Mapping[str, str]) -> list[str]:
    """Returns "names: line" of {name: line}, one for all names that have the same line."""
    names: dict[str, list[str]] = {}
    for name, line in lines.items():
        names.setdefault(line, []).append(name)
    return [f"{', '.join(each)}: {line}" for line, each in names.items()]


def _measure(configs: Mapping[str, Config], predictions: Mapping[str, Prediction], vocab_size: int) -> None:
    from parity.memory import measured
    from slm_core.planner.report import TWINS, gigabytes

    for framework, config in configs.items():
        size = measured(config, vocab_size, framework)
        ratio = predictions[framework].update / size
        print(f"{TWINS[framework]}: measured {gigabytes(size)}; predicted is {ratio:.3f} of it", flush=True)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, needs_data=False)
