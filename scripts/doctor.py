"""Examines this machine and this installation: what computes here, how fast, and whether all of it works."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.cli.output_file import output_file

ROOT = Path(__file__).resolve().parents[1]
DESCRIPTION = """Examines this machine and this installation. Starts both twins, each in a process of its own, measures
their matrix products and their memory bandwidth, trains a tiny model in both, and compares the losses. Prints a page,
and exits with 1 if something is broken; then a line says the remedy. --json writes all of it for a report."""

FLAGS = [
    Flag("device", str, "auto", "where the twins compute", choices=("auto", "cpu", "cuda")),
    Flag("json", str, "", "file for everything that was found, to send with a report; empty: none"),
]

TWINS = ("torch", "flax")
TOLERANCE = 1e-4
"""Largest relative difference of the twins' losses, as in the loss curves of the parity suite in float32."""
ROOM = 2 * 10**9
"""Bytes of disk that runs need at the least: a checkpoint and the prepared text."""
PATIENCE = 600
"""Seconds after which a twin that has not ended counts as broken."""


class Finding(NamedTuple):
    """One thing that was examined.

    Args:
      subject: what.
      fine: whether it works.
      fact: what was found.
      remedy: what the user can do if it does not work.
    """

    subject: str
    fine: bool
    fact: str
    remedy: str = ""


def run(invocation: Invocation) -> None:
    flags = invocation.flags
    file = output_file("json", flags["json"], (".json",)) if flags["json"] else None
    from slm_core.logging import say

    twins = {}
    for twin in TWINS:
        say(f"examining {twin}: up to a minute")
        twins[twin] = _examine(twin, flags["device"])
    findings = [
        *machine(), packages(), gpu(twins, flags["device"]), *disk(),
        *(started(twin, examined) for twin, examined in twins.items()), agreement(twins),
    ]  # fmt: skip
    _print(findings, twins)
    if file:
        whole = {"findings": [finding._asdict() for finding in findings], "twins": twins}
        file.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        print(f"written: {file}")
    if not all(finding.fine for finding in findings):
        raise SystemExit(1)


def machine() -> Iterator[Finding]:
    """Yields what the machine is."""
    from slm_core.hardware.devices import cpu_memory, in_container
    from slm_core.planner.report import gigabytes
    from slm_core.studies.machine import processor

    container = ", in a container" if in_container() else ""
    yield Finding("system", True, f"{platform.platform()}, Python {platform.python_version()}{container}")
    yield Finding("processor", True, processor())
    total, free = cpu_memory()
    remedy = "end other programs; a run needs 1 GB for its libraries alone"
    yield Finding("memory", free > 10**9, f"{gigabytes(free)} of {gigabytes(total)} free", remedy)


def packages() -> Finding:
    """Finds the packages that are missing or not of the version that this project asks for."""
    from packaging.requirements import Requirement

    wrong, count = [], 0
    for line in importlib.metadata.requires("lm-workbench") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if version not in requirement.specifier:
            wrong.append(f"{requirement.name} is {version} and not {requirement.specifier}")
    fact = ", ".join(wrong) or f"all {count} have the versions that this project asks for"
    return Finding("packages", not wrong, fact, "uv sync --locked")


def gpu(twins: dict[str, dict[str, Any]], requested: str) -> Finding:
    """Finds whether a GPU is there, its driver works, and both twins compute on it."""
    from slm_core.hardware.devices import driver_facts, gpu_nodes, has_nvidia_driver, in_container

    start = "start the container with --gpus all" if in_container() else "install NVIDIA's driver"
    if not gpu_nodes():
        hint = "; if its host has a GPU: docker run --gpus all" if in_container() else ""
        return Finding("GPU", requested != "cuda", f"none is visible: runs compute on the CPU{hint}", start)
    if not has_nvidia_driver():
        return Finding("GPU", False, "a device is visible, but its library libcuda.so.1 does not load", start)
    facts = driver_facts() or "nvidia-smi does not answer"
    if requested == "cpu":
        return Finding("GPU", True, f"{facts}; not used, because of --device=cpu")
    without = [twin for twin in TWINS if twins[twin].get("platform") == "cpu"]
    fact = f"{facts}; {' and '.join(without)} cannot use it" if without else facts
    remedy = "uv sync --locked; if that changes nothing, the driver is too old for CUDA 12: install a newer one"
    return Finding("GPU", not without, fact, remedy)


def disk() -> Iterator[Finding]:
    """Yields whether the folders that runs write to can be written, and have room."""
    from slm_core.planner.report import gigabytes

    for name, field in {"models": "run.dir", "data": "data.dir"}.items():
        folder = Path(name) if Path(name).is_dir() else Path()
        free = shutil.disk_usage(folder).free
        fine = os.access(folder, os.W_OK) and free > ROOM
        fact = f"{gigabytes(free)} free" if os.access(folder, os.W_OK) else "cannot be written"
        yield Finding(f"disk, {name}/", fine, fact, f"make room, or choose another folder: --config.{field}=FOLDER")


def started(twin: str, examined: dict[str, Any]) -> Finding:
    """Finds whether a twin could be examined."""
    if "error" in examined:
        return Finding(twin, False, examined["error"], "uv sync --locked; if that changes nothing, send this page")
    return Finding(twin, True, f"{examined['version']}, on {examined['device']}")


def agreement(twins: dict[str, dict[str, Any]]) -> Finding:
    """Finds whether both twins computed the same losses."""
    if any("error" in examined for examined in twins.values()):
        return Finding("agreement", False, "not tested, because a twin does not start", "mend that first")
    ours, theirs = (twins[twin]["losses"] for twin in TWINS)
    error = max(abs(a - b) / max(abs(a), abs(b)) for a, b in zip(ours, theirs, strict=True))
    fact = f"losses of {len(ours)} updates of a tiny model differ by {error:.0e} at most"
    return Finding("agreement", error <= TOLERANCE, fact, "send this page and --json with a report")


def _examine(twin: str, device: str) -> dict[str, Any]:
    """Runs the examination of a twin in a process of its own: neither can break the other, or hold its memory."""
    command = [sys.executable, "-m", "scripts._doctor_twin", twin, device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"error": f"does not end within {PATIENCE} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {"error": last or f"ends with status {done.returncode}", "stderr": done.stderr[-4000:]}
    return json.loads(done.stdout.splitlines()[-1])


def _print(findings: list[Finding], twins: dict[str, dict[str, Any]]) -> None:
    from slm_core.studies.tables import markdown_table

    width = max(len(finding.subject) for finding in findings)
    for subject, fine, fact, remedy in findings:
        print(f"{'ok    ' if fine else 'BROKEN'}  {subject:{width}}  {fact}")
        if not fine:
            print(f"{'':{width + 10}}remedy: {remedy}")
    whole = {twin: examined for twin, examined in twins.items() if "error" not in examined}
    if not whole:
        return
    print("\nMatrix products: 1e9 operations per second in float32, and how many times as fast other dtypes are\n")
    rows = [
        (f"`{twin}`", shape, f"{rates['float32']:,.0f}",
         *(f"{rates[dtype] / rates['float32']:.2f}" for dtype in ("float16", "bfloat16", "float64")))
        for twin, examined in whole.items() for shape, rates in examined["gflops"].items()
    ]  # fmt: skip
    print(markdown_table(("twin", "matrix product", "float32", "float16", "bfloat16", "float64"), rows))
    print()
    rows = [
        (f"`{twin}`", f"{each['copy_gb_per_s']:.1f} GB/s", each["attention"], each["memory"])
        for twin, each in whole.items()
    ]
    print(markdown_table(("twin", "copying", "attention.kernel=fused", "device's memory"), rows))


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
