"""Every damage of a run, a dataset, an import or an export is found, and what is used instead is whole."""

import importlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slm_core.data import dataset_check, prepare_text
from slm_core.data.dataset import TextDataset
from slm_core.errors import UserError
from slm_core.hf.importing import open_folder
from slm_core.runs.record import read_lines
from slm_core.runs.saved import load_run
from slm_core.runs.states import open_state
from slm_core.runs.whole import examine
from slm_core.studies.runner import failure
from slm_core.studies.study import FILE, Study, read_study, write_study
from slm_core.studies.variants import make_variants
from slm_core.training.loop import train
from tests.runs.damages import DATASET_KINDS, JSON_KINDS, METRICS_KINDS, flip, newest
from tests.runs.observed import (
    STEPS,
    Copies,
    dataset_damages,
    file_damages,
    files_of,
    make_foreign,
    make_run,
    opening,
    reading,
    run_damages,
    tiny,
    training,
    verified,
)

HARMLESS = {"a half-written folder of a save"}
"""Kinds that leave everything whole that a run uses. They are reported all the same."""

LOST = {"`metrics.jsonl` deleted", "`metrics.jsonl` a folder"}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory) -> Callable[[str], Path]:
    """Makes the run of a twin at its first use."""
    made: dict[str, Path] = {}

    def run_of(twin: str) -> Path:
        if twin not in made:
            made[twin] = make_run(tmp_path_factory.mktemp(twin), twin)
        return made[twin]

    return run_of


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def named(place: str, kind: str, lines: tuple[str, ...]) -> bool:
    """Says whether a line names what was damaged: the file; or, of a kind for the whole run, anything in it."""
    word = Path(place).name if place else "metrics.jsonl" if kind in METRICS_KINDS else "step-"
    return any(word in line or "latest" in line for line in lines)


@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_every_damage_of_a_run_is_reported_and_what_is_used_is_whole(run_of, twin):
    run = run_of(twin)
    work, copies, silent, wrong = run.parent.parent, Copies(run.parent.parent, twin), [], []
    whole = {path.name: contents(path) for path in (run / "checkpoints").glob("step-*")}
    assert not verified(run) and len(whole) == STEPS and not reading(run).reported
    description, lines = (run / "config.json").read_bytes(), len(read_lines(run / "metrics.jsonl")[0])
    for place, kind, damage in run_damages(run):
        copy = copies.run()
        damage(copy)
        read, trained = reading(copy), training(copy, tiny(work))
        if not named(place, kind, trained.reported) or not (kind in HARMLESS or named(place, kind, trained.verified)):
            silent.append((place, kind, trained))
        if trained.used and contents(copy / "checkpoints" / trained.used) != whole[trained.used]:
            wrong.append((place, kind, trained))
        if read.used not in (trained.used, ""):
            wrong.append((place, kind, read))
        if kind in METRICS_KINDS:  # until the next checkpoint vouches for what is left
            if kind not in LOST and len(read_lines(copy / "metrics.jsonl")[0]) < lines - 2:
                wrong.append((place, kind, "good lines are lost"))
        elif trained.used and (verified(copy) or (copy / "config.json").read_bytes() != description):
            wrong.append((place, kind, verified(copy)))  # training repairs all that it reports
        shutil.rmtree(copy.parent.parent)
    assert not silent and not wrong, (silent[:3], wrong[:3])


@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_a_flipped_bit_anywhere_in_a_checkpoint_is_found(run_of, twin, tmp_path):
    checkpoint = Path(shutil.copytree(newest(run_of(twin)), tmp_path / f"step-{STEPS:08d}"))
    generator = random.Random(0)
    assert not examine(checkpoint)
    for name in files_of(checkpoint):
        path = checkpoint / name
        before = path.read_bytes()
        for byte in generator.sample(range(len(before)), min(40, len(before))):
            flip(path, byte, generator.randrange(8))
            assert any(Path(name).name in line for line in examine(checkpoint)), (name, byte)
            path.write_bytes(before)
    assert not examine(checkpoint)


def test_every_damage_of_a_dataset_an_import_and_an_export_is_reported(run_of):
    run = run_of("torch")
    work, copies, silent = run.parent.parent, Copies(run.parent.parent, "torch"), []
    exported, imported = make_foreign(run)
    dataset = next((work / "data").glob("text-*"))
    for folder, open_it, damages in (
        (imported, load_run, file_damages(imported)),
        (exported, open_folder, file_damages(exported)),
        (dataset, TextDataset, dataset_damages(dataset)),
    ):
        assert not verified(folder) and opening(folder, open_it).used
        for place, kind, damage in damages:
            copy = copies.folder(folder)
            damage(copy)
            seen = opening(copy, open_it)
            if not (seen.reported and seen.verified) or not all(
                any((Path(place).name or "") in line for line in lines) for lines in (seen.reported, seen.verified)
            ):
                silent.append((folder.name, place, kind, seen))
            shutil.rmtree(copy.parent.parent)
    assert not silent, silent[:3]


@pytest.mark.parametrize("kind", JSON_KINDS)
def test_no_json_file_of_a_run_ends_in_a_traceback(run_of, kind):
    run = run_of("torch")
    copies = Copies(run.parent.parent, "torch")
    for name in ("config.json", "tokenizer/kind.json", "loop.json", "manifest.json"):
        copy = copies.run()
        JSON_KINDS[kind](copy / name if (copy / name).exists() else newest(copy) / name)
        seen = reading(copy)
        assert any(Path(name).name in line for line in seen.reported) and seen.verified, name
        assert training(copy, tiny(run.parent.parent)).used
        shutil.rmtree(copy.parent.parent)


@pytest.mark.parametrize("kind", JSON_KINDS)
def test_no_json_file_of_a_study_ends_in_a_traceback(tmp_path, kind):
    variants = make_variants(["model.norm.kind=layernorm,rmsnorm"], [])
    study = Study(
        tmp_path / "study", "configs/default.py", {}, variants, ("torch",), 2, "steps", 1, "Which?", "compare"
    )
    write_study(study)
    JSON_KINDS[kind](study.folder / FILE)
    with pytest.raises(UserError, match=r"study.json is broken .*; delete it"):
        read_study(study.folder)
    (tmp_path / "failures").mkdir()
    path = tmp_path / "failures" / "cell.json"
    path.write_text('{"error": "why", "at": 1.5}\n')
    assert failure(tmp_path, "cell") == "why"
    JSON_KINDS[kind](path)
    assert "cell.json is broken" in failure(tmp_path, "cell")


@pytest.mark.parametrize("kind", DATASET_KINDS)
def test_a_damaged_dataset_never_trains_and_a_damaged_manifest_is_made_anew(tmp_path, kind, caplog):
    caplog.set_level("WARNING", "lm-workbench")
    data = tiny(tmp_path).data
    dataset = prepare_text(data, progress=False)
    before = contents(dataset.folder)
    DATASET_KINDS[kind](dataset.folder)
    try:
        anew = prepare_text(data, progress=False)
    except UserError as error:
        assert "delete the folder to prepare it anew" in str(error)
        shutil.rmtree(dataset.folder)
        anew = prepare_text(data, progress=False)
    else:
        assert "manifest.json is broken" in caplog.text
    assert contents(anew.folder) == before


def test_a_large_dataset_is_read_again_only_if_a_file_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_check, "SMALL", 100)
    folder, reads = prepare_text(tiny(tmp_path).data, progress=False).folder, []
    original = dataset_check.dataset_damage
    monkeypatch.setattr(dataset_check, "dataset_damage", lambda *given: reads.append(given) or original(*given))
    TextDataset(folder)
    assert not reads
    (folder / dataset_check.CHECKED).write_text("damaged")
    TextDataset(folder)
    TextDataset(folder)
    assert len(reads) == 1
    flip(folder / "train.bin", 9)
    with pytest.raises(UserError, match="train.bin has changed"):
        TextDataset(folder)


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["torch", "flax"])
def test_training_goes_on_from_the_newest_whole_checkpoint_and_ends_as_if_nothing_had_happened(tmp_path, twin):
    run = make_run(tmp_path, twin)
    build = importlib.import_module(f"slm_{twin}.trainer").build
    before, expected = state(run), loss_curve(run)
    flip(next(path for path in (newest(run) / "state").rglob("*") if path.is_file() and path.stat().st_size > 300), 200)
    shutil.rmtree(newest(run, 1) / "state")
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join([lines[0], *lines[2:]]) + b"\xff garbage\n")
    assert train(tiny(tmp_path), build, twin).finished
    after = state(run)
    assert before.keys() == after.keys() and all(np.array_equal(before[name], after[name]) for name in before)
    assert loss_curve(run) == expected and not verified(run)
    names = sorted(path.name for path in run.rglob("damaged-*"))
    assert names == ["damaged-metrics.jsonl", "damaged-step-00000002", "damaged-step-00000003"]


def state(run: Path) -> dict[str, np.ndarray]:
    return dict(open_state(newest(run) / "state"))


def loss_curve(run: Path) -> list[tuple]:
    return [(row["step"], row["split"], row["loss"]) for row, _ in read_lines(run / "metrics.jsonl")[0]]
