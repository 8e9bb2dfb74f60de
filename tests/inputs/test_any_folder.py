"""Any edit of an imported folder or of a checkpoint gives what it should, or one line, and no half-made run."""

import itertools
import json
import shutil

import pytest
from hypothesis import strategies as st

from slm_core.hf.run import import_run
from slm_core.json_files import write_sealed
from slm_core.manifest import file_sums
from slm_core.runs.saved import load_run
from slm_core.runs.weights import run_weights
from slm_core.training.loop import train
from tests.core.fake_engine import BigramEngine
from tests.crashes.commands import make_llama
from tests.inputs.answers import answer, for_all, tiers
from tests.inputs.edits import BYTES, JSON, do
from tests.runs.damages import newest
from tests.runs.observed import tiny


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


@tiers(40, 60, 400)
def test_imported_folders(count, tmp_path):
    make_llama(tmp_path / "hf")
    answers, numbers = [], itertools.count()

    def check(name, of_json, of_bytes, json_edit):
        number = next(numbers)
        folder, run = tmp_path / f"hf-{number}", tmp_path / f"run-{number}"
        shutil.copytree(tmp_path / "hf", folder)
        do(folder / name, json_edit if of_json and name != "model.safetensors" else of_bytes)

        def use() -> None:
            import_run(folder, run, "torch", 0, lambda items, action: items)
            saved = load_run(run)
            for weight in run_weights(saved).values():
                assert weight.size

        said = answer(use)
        assert not said or not (run / "config.json").exists(), said
        answers.append(said)

    names = st.sampled_from(["config.json", "config.json", "model.safetensors", "tokenizer.json"])
    for_all(count, check, name=names, of_json=st.booleans(), of_bytes=BYTES, json_edit=JSON)
    assert "" in answers and len(set(answers)) > 5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    work = tmp_path_factory.mktemp("run")
    train(tiny(work), BigramEngine, "torch")
    return work / "models" / "run"


FILES = ("loop.json", "config.json", "state/state.json", "state/state-00001.safetensors", "manifest.json")


@tiers(20, 60, 400)
def test_checkpoints_whose_manifest_fits(count, run, tmp_path):
    """Edits that checksums do not find, because the manifest is made anew."""
    work, answers, numbers = run.parent.parent, [], itertools.count()

    def check(name, of_json, of_bytes, json_edit):
        copy = tmp_path / str(next(numbers)) / "models" / "run"
        shutil.copytree(run, copy)
        checkpoint = newest(copy)
        do(checkpoint / name, json_edit if of_json and name.endswith(".json") else of_bytes)
        if name != "manifest.json":
            manifest = json.loads((checkpoint / "manifest.json").read_text())
            write_sealed(checkpoint / "manifest.json", manifest | {"files": file_sums(checkpoint)})
        config = tiny(work, **{"run.dir": str(copy.parent), "train.steps": 5})

        def use() -> None:
            load_run(copy)
            assert train(config, BigramEngine, "torch").finished

        answers.append(answer(use))
        shutil.rmtree(copy.parent.parent)

    for_all(count, check, name=st.sampled_from(FILES), of_json=st.booleans(), of_bytes=BYTES, json_edit=JSON)
    assert "" in answers and len(set(answers)) > 3
