"""Reads the planner's constants of XLA again, from the plans of the XLA that is installed."""

import os

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

DESCRIPTION = """Reads the constants of slm_core/planner/xla_constants.py again, from plans that the installed XLA makes
of small models, for a CPU or for the card. Prints each constant as recorded and as read, then predicted over planned
memory for a few models. Run it after an upgrade of jax. Takes minutes and needs no GPU."""

FLAGS = [
    Flag("device", str, "cpu", "compiler to ask", choices=("cpu", "gpu")),
    Flag("constants", str, "", "the constants to read, separated by commas, by their names or first words; empty: all"),
    Flag("models", bool, True, "also compare predictions and plans of a few models"),
]
MODELS = (
    "base",
    "no accumulation",
    "remat=attention",
    "remat=block",
    "dot_product",
    "GPT-2's block",
    "moe",
    "lora, nf4",
)
"""Of `parity.memory.cases`: constants that were fitted over whole plans show here how good they are together."""


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    os.environ["JAX_PLATFORMS"] = "cpu"
    from parity.xla_constants import FITTED, PROBES, readings, sums
    from slm_core.planner.xla_constants import MEASURED_WITH
    from slm_core.runs.provenance import versions

    words = [word for word in flags["constants"].split(",") if word]
    constants = [name for name in PROBES if not words or name in words or name.partition(".")[0] in words]
    if words and not constants:
        raise UserError(f"--constants={flags['constants']}: choose from {', '.join(PROBES)}")
    print(f"recorded with {MEASURED_WITH}; read with jax {versions()['jax']}, for a {flags['device'].upper()}")
    print(f"{'constant':20}{'recorded':>12}{'read':>12}  from")
    for reading in readings(flags["device"], constants):
        value = "unused" if reading.value is None else f"{reading.value:.2f}"
        source = "two plans" if reading.from_difference else "one plan, with the errors of all other constants"
        source += "; recorded by a fit over many plans" if reading.constant in FITTED else ""
        print(f"{reading.constant:20}{reading.recorded:12.2f}{value:>12}  {source}", flush=True)
    if flags["device"] == "cpu" and not words:
        print("sums_apart_from: planned over predicted memory if sums are computed apart from their terms, and if not")
        for each in sums():
            print(f"{each.tokens:6} tokens{each.apart:12.3f}{each.together:12.3f}", flush=True)
    if flags["models"]:
        _compare(flags["device"])


def _compare(device: str) -> None:
    from parity.memory import cases, measured, planned
    from slm_core.config.fields import with_values
    from slm_core.planner import predict

    print("\npredicted over planned memory of an update")
    for name in MODELS:
        config, vocab_size = cases()[name]
        config = with_values(config, {"run.device": "cpu" if device == "cpu" else "auto"})
        ratio = predict(config, vocab_size, planned("flax")).update / measured(config, vocab_size, "flax")
        print(f"{name:20}{ratio:12.3f}", flush=True)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
