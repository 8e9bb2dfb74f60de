"""Verifies every byte of a run, a checkpoint, a prepared dataset or an exported folder, for scripts/verify.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from slm_core.data.dataset import Manifest as DatasetManifest
from slm_core.data.dataset import token_files
from slm_core.data.dataset_check import dataset_damage
from slm_core.errors import UserError
from slm_core.json_files import Broken, read_sealed
from slm_core.manifest import NAME, damaged_export
from slm_core.runs.checkpoints import list_entries, read_loop
from slm_core.runs.description import read_own
from slm_core.runs.fingerprints import Identity
from slm_core.runs.record import read_lines, record_damage
from slm_core.runs.saved import check_tokenizer
from slm_core.runs.whole import examine, latest_problem, was_saved

STUDY = "study.json"
"""The file that makes a folder a study, whose runs are in it."""


class Finding(NamedTuple):
    """One row of the table: a part of what is verified."""

    part: str
    wrong: tuple[str, ...]  # (): it is whole


def verify(path: Path) -> list[Finding]:
    """Verifies a run, a checkpoint, a dataset or an exported folder; or a folder of these: models/, data/, a study.

    Raises:
      UserError: the folder is none of them.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: give a run, a checkpoint, a dataset, an exported folder, or models/")
    if check := _check_of(path):
        return check(path)
    findings = [_study(path)] if (path / STUDY).exists() else []
    inside = [(entry, check) for entry in sorted(path.iterdir()) if entry.is_dir() and (check := _check_of(entry))]
    if not inside and not findings:
        raise UserError(f"{path} is not a run, a checkpoint, a dataset or an exported folder, and has none inside")
    return findings + [
        Finding(f"{entry.name}/{finding.part}", finding.wrong) for entry, check in inside for finding in check(entry)
    ]


def _check_of(path: Path) -> Callable[[Path], list[Finding]] | None:
    """Finds what a folder is by the names inside it, which damage leaves; None: nothing of ours."""
    names = {entry.name for entry in path.iterdir()}
    if path.name.startswith("step-") and path.parent.name == "checkpoints":
        return lambda folder: [Finding(folder.name, examine(folder))]
    if "checkpoints" in names or {"config.json", "tokenizer", "metrics.jsonl"} <= names:
        return _run
    if {"train.bin", "validation.bin"} & names:
        return _dataset
    weights = any(name.endswith(".safetensors") for name in names)
    return _export if NAME in names or (weights and "config.json" in names) else None


def _study(folder: Path) -> Finding:
    try:
        read_sealed(folder / STUDY, dict[str, Any], "")
    except Broken as error:
        return Finding(STUDY, (error.short,))
    return Finding(STUDY, ())


def _run(folder: Path) -> list[Finding]:
    findings, identity = _description(folder)
    root = folder / "checkpoints"
    entries = list_entries(root)
    findings += _record(folder, entries)
    if was_saved(root):  # else it was not trained to its first checkpoint
        findings.append(_tried("checkpoints/latest", lambda: latest_problem(root, entries)))
    return findings + [Finding(f"checkpoints/{entry.name}", examine(entry, identity)) for entry in entries]


def _description(folder: Path) -> tuple[list[Finding], Identity | None]:
    try:
        saved = read_own(folder)
    except Broken as error:
        return [Finding("config.json", (error.short,))], None
    tokenizer = _tried("tokenizer", lambda: check_tokenizer(folder, saved.tokenizer))
    return [Finding("config.json", ()), tokenizer], Identity(saved.fingerprint, saved.data.fingerprint)


def _record(folder: Path, entries: list[Path]) -> list[Finding]:
    """Checks the loss curve against the newest checkpoint that says what it was."""
    lines = {}
    for entry in reversed(entries):
        try:
            lines = read_loop(entry).lines
            break
        except Broken:
            continue
    names = sorted({*lines, *(name for name in ("metrics.jsonl", "details.jsonl") if (folder / name).exists())})
    findings = []
    for name in names:
        wrong = record_damage(folder, {name: lines[name]} if name in lines else {})
        if not wrong and (folder / name).is_file():
            wrong = [f"line {number}: {why}" for number, why in read_lines(folder / name)[1].items()]
        findings.append(Finding(name, tuple(wrong)))
    return findings


def _dataset(folder: Path) -> list[Finding]:
    try:
        manifest = read_sealed(folder / NAME, DatasetManifest, "")
    except Broken as error:
        return [Finding(NAME, (error.short,))]
    wrong = dataset_damage(folder, manifest.files, token_files(manifest.dtype), manifest.vocab_size)
    return [Finding(NAME, ()), Finding(f"{len(manifest.files)} files", tuple(wrong))]


def _export(folder: Path) -> list[Finding]:
    try:
        return [Finding(NAME, ()), Finding("files", tuple(damaged_export(folder)))]
    except Broken as error:
        return [Finding(NAME, (error.short,))]


def _tried(part: str, check: Callable[[], str | None]) -> Finding:
    try:
        wrong = check()
    except UserError as error:
        wrong = str(error)
    return Finding(part, (wrong,) if wrong else ())
