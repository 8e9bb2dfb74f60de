"""Writes docs/statistics.md: how far the statistics of a comparison can be trusted, by finished studies."""

import shlex
import sys
from pathlib import Path

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import output_file

DESCRIPTION = """Reads finished studies, and writes the page and its pictures. It shows how often a variant wins against
itself, how often a planted difference is found, what pairing leaves of the noise, and which difference is resolved.
It trains nothing: the studies are made by scripts/compare.py --study configs/studies/NAME.py. Takes minutes."""

FLAGS = [
    Flag("itself", str, "models/itself", "folder of a study of one variant with many seeds"),
    Flag(
        "study",
        str,
        ("models/pairing", "models/small_difference"),
        "folder of a study whose variants are paired with its baseline",
        repeated=True,
    ),
    Flag("small-difference", str, "models/small_difference", "folder of a study of two variants that differ little"),
    Flag("markdown", str, "docs/statistics.md", "page to write; the pictures are beside it"),
]


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    target = output_file("markdown", flags["markdown"], [".md"])
    from slm_core.studies.calibration.page import figures, write_page
    from slm_core.studies.collect import collect_finished

    pool, small = (collect_finished(Path(flags[name])) for name in ("itself", "small_difference"))
    paired = [collect_finished(Path(folder)) for folder in flags["study"]]
    made = figures(pool, paired, small)
    written = write_page(made, target, shlex.join(["uv", "run", "scripts/pages/calibration.py", *sys.argv[1:]]))
    print(f"written: {', '.join(map(str, written))}")


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
