"""Names the first tensor, in execution order, in which two models differ, and the module that is at fault."""

from parity.cases import config_case
from parity.tolerances import TOLERANCES
from parity.workers import pin_environment
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

DESCRIPTION = """Names the first tensor in which two models differ, in execution order, and the module that is at fault;
exits with 1 if they differ. Compares both twins of --config, at full size on short sequences, or two folders: --run
with --against. All is computed on the CPU."""

FLAGS = [
    Flag("run", str, "", "a run, models/NAME/checkpoints/step-NUMBER or a Hugging Face checkpoint"),
    Flag(
        "against",
        str,
        "",
        "the model that it should agree with; alone, a Hugging Face checkpoint is compared with our twin",
    ),
    Flag("framework", str, "", "twin that computes both; empty: that of --run", choices=("", "torch", "flax")),
    Flag(
        "precision",
        str,
        "",
        "of parameters and computation; empty: float64, and float32 beside a Hugging Face checkpoint",
        choices=("", *TOLERANCES),
    ),
]


def run(invocation: Invocation) -> None:
    flags, given = invocation.flags, invocation.config_given or bool(invocation.overrides)
    if flags["run"] and not flags["against"]:
        raise UserError(f"--run={flags['run']} needs --against=FOLDER: the model that it should agree with")
    if flags["against"] and given:
        raise UserError("--config does not go with --against: folders have configs of their own; leave it out")
    pin_environment()
    from parity.bisect.command import bisect_case, bisect_folders

    if flags["against"]:
        agree = bisect_folders(flags["run"], flags["against"], flags["framework"], flags["precision"])
    else:
        agree = bisect_case(config_case(invocation.preset, invocation.config), flags["precision"] or "float64")
    if not agree:
        raise SystemExit(1)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS)
