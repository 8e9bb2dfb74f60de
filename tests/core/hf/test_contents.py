"""What is inside a checkpoint, of any kind: names, shapes, dtypes, norms, and facts."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from slm_core.errors import UserError
from slm_core.hf.contents import as_json, open_contents, table
from slm_core.runs.saved import load_run
from slm_core.training.loop import train
from tests.core.fake_engine import BigramEngine, make_config
from tests.core.runs.test_folder import imported


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_config(tmp_path_factory.mktemp("contents"), steps=4, checkpoint_every=2, sample_tokens=3)


@pytest.fixture(scope="module")
def folder(config):
    return train(config, BigramEngine, "torch").folder


def test_a_run_shows_its_newest_checkpoint(folder):
    contents = open_contents(folder)
    assert contents.facts["kind"] == "run" and contents.facts["framework"] == "torch"
    assert (contents.facts["step"], contents.facts["optimizer"], contents.facts["vocabulary"]) == (4, "adamw", 256)
    assert contents.facts["data position"] == {"next_index": 4}
    entries = {entry.name: entry for entry in contents.entries()}
    assert list(entries) == ["optim/m/embed.weight", "params/embed.weight"]
    for name, array in contents.arrays.items():
        assert (entries[name].dtype, entries[name].shape) == ("float64", [256, 256])
        assert entries[name].norm == pytest.approx(np.linalg.norm(array), rel=1e-14)


def test_an_older_checkpoint_and_a_state_show_themselves(folder):
    older = open_contents(folder / "checkpoints" / "step-00000002")
    assert older.facts["step"] == 2 and older.facts["data position"] == {"next_index": 2}
    newest = dict(open_contents(folder).arrays)
    assert not np.array_equal(older.arrays["params/embed.weight"], newest["params/embed.weight"])
    state = open_contents(load_run(folder).checkpoint / "state")
    assert state.facts["entries"] == 2 and state.facts["schema"] == 1


def test_an_imported_run_has_parameters_alone(config):
    contents = open_contents(imported(config))
    assert contents.facts["kind"] == "imported run" and "optimizer" not in contents.facts
    assert [(entry.name, entry.shape) for entry in contents.entries()] == [("embed.weight", [7, 4])]


def test_a_hugging_face_folder_and_a_file_keep_their_dtypes(tmp_path):
    arrays = {
        "model.embed_tokens.weight": np.full((3, 4), 2, ml_dtypes.bfloat16), "codes": np.arange(5, dtype=np.uint8),
        "count": np.array(7, np.int64), "broken": np.array([1.0, np.nan], np.float32),
    }  # fmt: skip
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 3}))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        entries = {entry.name: entry for entry in open_contents(path).entries()}
        assert entries["model.embed_tokens.weight"][1:] == ("bfloat16", [3, 4], pytest.approx(48**0.5), None)
        assert entries["codes"].norm is None and entries["count"].value == 7
    assert open_contents(tmp_path).facts == {
        "kind": "Hugging Face folder", "files": 1, "model_type": "llama", "vocab_size": 3,
    }  # fmt: skip
    text = json.dumps(as_json(open_contents(tmp_path)), allow_nan=False)
    assert {"nan"} == {row["norm"] for row in json.loads(text)["arrays"] if row["name"] == "broken"}
    lines = list(table(open_contents(tmp_path)))
    assert lines[-1] == "4 arrays, 20 numbers, 45 bytes" and any("bfloat16" in line and "3x4" in line for line in lines)


@pytest.mark.parametrize("name", ["nothing", "text.txt", "empty", "damaged.safetensors"])
def test_what_cannot_be_shown_is_one_line(tmp_path, name):
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "damaged.safetensors").write_bytes(b"12345678")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=name) as caught:
        open_contents(tmp_path / name)
    assert "\n" not in str(caught.value)
