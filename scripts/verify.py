"""Verifies every byte of a run, a checkpoint, a prepared dataset or an exported folder, or of all in models/ or data/.
Prints a table; the exit code is 0 if everything is whole, 1 if something is damaged, 2 if PATH is none of these."""

import sys
from pathlib import Path

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

FLAGS = (Flag("path", str, "", "folder to verify: models/NAME, data/NAME, models/NAME/checkpoints/step-N, models"),)


def run(invocation: Invocation) -> None:
    from slm_core.runs.verification import verify

    if not invocation.flags["path"]:
        raise UserError("--path is missing: give the folder to verify, such as models/NAME")
    findings = verify(Path(invocation.flags["path"]))
    width = max(len(finding.part) for finding in findings)
    for finding in findings:
        print(f"{finding.part:{width}}  {'; '.join(finding.wrong) or 'whole'}")
    damaged = sum(bool(finding.wrong) for finding in findings)
    print(f"{damaged} of {len(findings)} parts damaged" if damaged else f"all {len(findings)} parts are whole")
    if damaged:
        raise SystemExit(1)


def with_path(words: list[str]) -> list[str]:
    """Turns PATH, given without a flag, into --path=PATH."""
    return [f"--path={words[0]}", *words[1:]] if words and not words[0].startswith("-") else words


if __name__ == "__main__":
    main(run, __doc__, FLAGS, takes_config=False, argv=with_path(sys.argv[1:]))
