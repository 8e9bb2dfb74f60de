"""Sweeps variants of config.json through imports, in both twins, and writes docs/imports.md."""

import contextlib
import logging
import os
import warnings
from pathlib import Path

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError, nearest
from slm_core.hf import FAMILIES

DESCRIPTION = """Changes one field or two of the config.json of a tiny random checkpoint, imports it, and compares the
logits of a prompt and of decoding with a cache with those of the class of Hugging Face transformers. An import must
equal the class, or end in one line. Exits with 1 if one is wrong or crashes."""

FLAGS = [
    Flag("variants", int, 200, "number of variants, of all families together"),
    Flag("family", str, "", "only this model_type, such as llama; empty: all"),
    Flag("twins", str, "torch,flax", "twins that are compared", choices=("torch", "flax", "torch,flax")),
    Flag("flax_variants", int, 0, "the first variants, which are compared in Flax; 0: all. They take longer"),
    Flag("journal", str, "", "file that keeps the verdicts, so that the sweep can be continued; empty: none"),
    Flag("markdown", str, "", "file for the counts as a page (docs/imports.md); empty: none"),
]


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    if flags["family"] and flags["family"] not in FAMILIES:
        raise UserError(
            f"--family={flags['family']} is none of {', '.join(FAMILIES)}{nearest(flags['family'], FAMILIES)}"
        )
    if flags["variants"] < 1 or flags["flax_variants"] < 0:
        raise UserError(f"--variants={flags['variants']} must be at least 1, and --flax_variants at least 0")
    os.environ |= {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical"}
    import torch

    from parity.oracle.imports import variants
    from parity.oracle.imports_class import quiet
    from parity.oracle.imports_flax import flax_process
    from parity.oracle.imports_judge import BAD, Twin, Verdicts, judge, torch_logits
    from parity.oracle.imports_page import page, table

    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)  # notes about odd configs would hide the verdicts
    warnings.simplefilter("ignore")
    quiet()
    chosen, journal = variants(flags["variants"], flags["family"]), Verdicts(flags["journal"])
    names = flags["twins"].split(",")
    with contextlib.ExitStack() as stack:
        twins: dict[str, Twin] = {"torch": torch_logits} if "torch" in names else {}
        if "flax" in names:
            twins["flax"] = stack.enter_context(flax_process())
        for i, variant in enumerate(chosen):
            late = 0 < flags["flax_variants"] <= i
            left = {
                name: twin
                for name, twin in twins.items()
                if not journal.has(variant, name) and not (name == "flax" and late)
            }
            for verdict in judge(variant, left) if left else ():
                journal.add(verdict)
                if verdict.outcome in BAD:
                    print(f"{verdict.outcome}: {verdict.twin}, {verdict.name}: {verdict.detail}", flush=True)
            if (i + 1) % 50 == 0 or i + 1 == len(chosen):
                print(f"{i + 1} of {len(chosen)} variants", flush=True)
    judged = {variant.name for variant in chosen}
    verdicts = [verdict for verdict in journal.verdicts if verdict.name in judged]
    print(table(verdicts))
    if flags["markdown"]:
        fewer = f" --flax_variants {flags['flax_variants']}" if flags["flax_variants"] else ""
        command = (
            f"uv run scripts/check_imports.py --variants {flags['variants']}{fewer} --markdown {flags['markdown']}"
        )
        Path(flags["markdown"]).write_text(page(verdicts, command))
        print(f"written: {flags['markdown']}")
    if any(verdict.outcome in BAD for verdict in verdicts):
        raise SystemExit(1)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
