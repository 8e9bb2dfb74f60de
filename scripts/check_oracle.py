"""Compares both twins with the classes of Hugging Face transformers, family by family, and writes docs/oracle.md."""

import logging
import os
from pathlib import Path

from parity.oracle.cases import CASES
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError, nearest

DESCRIPTION = """Builds tiny random models of every family of Hugging Face transformers, offline and on the CPU, imports
each into both twins, and compares logits and gradients; exports each and loads it with AutoModelForCausalLM. Exits with
1 if an error is above its tolerance."""

FLAGS = [
    Flag("family", str, "", "only this model_type, such as llama; empty: all"),
    Flag("journal", str, "", "file that keeps the results, so that the run can be continued; empty: none"),
    Flag("markdown", str, "", "file for the results as a page (docs/oracle.md); empty: none"),
]


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    families = list(dict.fromkeys(case.family for case in CASES))
    if flags["family"] and flags["family"] not in families:
        hint = nearest(flags["family"], families)
        raise UserError(f"--family={flags['family']} is none of {', '.join(families)}{hint}")
    _pin()
    from parity.oracle.measure import FEATURES_OFF, HEAD, Measured, line, measure, sensitivity
    from parity.oracle.page import page
    from parity.oracle.results import Results

    chosen, journal = [case for case in CASES if flags["family"] in ("", case.family)], Results(flags["journal"])
    results: list[Measured] = []
    print(HEAD, flush=True)
    for case in chosen:
        for precision in ("float32", "float64") if case.float64 else ("float32",):
            if not journal.has(case, precision):
                for measured in measure(case, precision):
                    journal.add(measured)
            for measured in journal.of(case, precision):
                results.append(measured)
                print(line(measured), flush=True)
        if case.name not in journal.moved:
            journal.add_moved(case, sensitivity(case))
        features = ", ".join(f"{name} {value:.1g}" for name, value in journal.moved[case.name].items())
        print(FEATURES_OFF.format(features), flush=True)
    moved = {case.name: journal.moved[case.name] for case in chosen}
    failed = [measured for measured in results if not measured.passed]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    if flags["markdown"]:
        command = f"uv run scripts/check_oracle.py --markdown {flags['markdown']}"
        Path(flags["markdown"]).write_text(page(results, moved, command))
        print(f"written: {flags['markdown']}")
    if failed:
        raise SystemExit(1)


def _pin() -> None:
    """Keeps both frameworks on the CPU and on one thread, offline and quiet. Before anything imports them."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    try:
        import transformers
    except ImportError:
        raise UserError("transformers is not installed: uv sync installs it with the development tools") from None
    from parity.pair import pin_threads

    transformers.logging.disable_progress_bar()
    logging.getLogger().setLevel(logging.ERROR)  # a note about a kernel's fallback would break the table
    pin_threads()


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
