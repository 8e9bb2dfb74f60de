"""The canonical state of a run: written in shards, read entry by entry, and every damage of its description named."""

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from slm_core.config import Config, Precision, Run
from slm_core.errors import UserError
from slm_core.runs.states import describe_state, open_state, open_state_for, read_writer, write_state

CONFIG = Config(precision=Precision(compute="float32"), run=Run(device="cpu"), seed=3)
STATE = {
    "params/embed.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "params/layers.0.codes": np.arange(7, dtype=np.uint8),
    "optim/m/embed.weight": np.arange(12, dtype=np.float64).reshape(3, 4).T,  # not in C order
    "optim/count": np.array(5, np.int32),
    "scaler/scale": np.array(1.0, np.float32),
    "scaler/good_steps": np.array(0, np.int32),
}


def written(folder, state=STATE, config=CONFIG, **options):
    folder.mkdir(exist_ok=True)
    write_state(folder, state.items(), describe_state(config, "flax"), **options)
    return folder


@pytest.mark.parametrize("shard_bytes", [1, 60, 10**6])
def test_a_state_comes_back_in_every_bit_name_and_dtype(tmp_path, shard_bytes):
    state = open_state(written(tmp_path, shard_bytes=shard_bytes))
    assert state.keys() == STATE.keys()
    for name, value in STATE.items():
        assert (state[name].dtype, state[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(state[name], value)
    assert len(list(tmp_path.glob("state-*"))) == {1: 6, 60: 2}.get(shard_bytes, 1)


def test_one_shard_is_in_memory_at_a_time(tmp_path):
    """An entry is made when its turn comes, and the file before it is on the disk by then."""
    there = []

    def entries():
        for name, value in STATE.items():
            there.append(len(list(tmp_path.glob("state-*"))))
            yield name, value

    write_state(tmp_path, entries(), describe_state(CONFIG, "torch"), shard_bytes=1)
    assert there == [0, 1, 2, 3, 4, 5]


def test_a_state_says_who_wrote_it(tmp_path):
    written(tmp_path)
    assert msgspec.to_builtins(read_writer(tmp_path)) == {
        "schema": 1, "framework": "flax", "device": "cpu", "params": "float32", "compute": "float32",
        "optimizer": "adamw", "seed": 3, "files": 1, "entries": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "a state of version 2, and this program reads up to 1: update it"),
        ({"schema": "1"}, "state.json is broken .schema: expected int"),
        ({"compute": None}, "state.json is broken .compute: expected str"),
        ({"entries": 7}, "6 entries, and state.json says 7"),
        ({"files": 2}, "state-00002.safetensors cannot be read"),
    ],
)
def test_a_wrong_description_is_one_line(tmp_path, change, message):
    file = written(tmp_path) / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        open_state(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3"])
def test_a_description_that_is_not_one_is_one_line(tmp_path, text):
    (written(tmp_path) / "state.json").write_text(text)
    with pytest.raises(UserError, match="state.json is broken"):
        open_state(tmp_path)


def test_a_state_without_its_files_is_one_line(tmp_path):
    with pytest.raises(UserError, match="state.json is missing"):
        open_state(tmp_path)
    (written(tmp_path) / "state-00001.safetensors").unlink()
    with pytest.raises(UserError, match="state-00001.safetensors cannot be read"):
        open_state(tmp_path)


def test_the_loss_scale_starts_anew_only_across_float16(tmp_path):
    half = Config(precision=Precision(compute="float16", loss_scale_init=256.0), run=Run(device="cpu"))
    scaled = STATE | {"scaler/scale": np.array(64.0, np.float32), "scaler/good_steps": np.array(9, np.int32)}
    into_half = open_state_for(written(tmp_path / "single"), half)
    assert (float(into_half["scaler/scale"]), int(into_half["scaler/good_steps"])) == (256.0, 0)
    written(tmp_path / "half", scaled, half)
    out_of_half = open_state_for(tmp_path / "half", CONFIG)
    assert (float(out_of_half["scaler/scale"]), int(out_of_half["scaler/good_steps"])) == (1.0, 0)
    assert out_of_half.keys() == STATE.keys()
    np.testing.assert_array_equal(out_of_half["params/embed.weight"], STATE["params/embed.weight"])
    same = open_state_for(tmp_path / "half", half)
    assert (float(same["scaler/scale"]), int(same["scaler/good_steps"])) == (64.0, 9)


def test_reading_a_state_needs_neither_framework(tmp_path):
    """So a PyTorch process reads what Flax wrote without JAX, and the reverse."""
    program = """
import sys
from pathlib import Path
from slm_core.runs.states import open_state, read_writer
assert read_writer(Path(sys.argv[1])).framework == "flax"
assert sum(array.size for array in open_state(Path(sys.argv[1])).values()) == 34
assert not {"jax", "flax", "orbax", "torch"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", program, written(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
