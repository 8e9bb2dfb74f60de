"""Weights on disk: shards, laziness, damage."""

import errno

import numpy as np
import pytest
from safetensors import SafetensorError

from slm_core.errors import UserError
from slm_core.model.weights import Lazy, checked, read_weights, save_tensors, write_weights

ARRAYS = {f"layers.{i}.weight": np.full((4, 8), i, np.float32) for i in range(5)} | {"scale": np.array(2.0)}


def refusal(function, *arguments) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("shard_bytes", "files"), [(1, 6), (129, 3), (1 << 20, 1)])
def test_what_is_written_is_read(tmp_path, shard_bytes, files):
    folder = tmp_path / "a" / "weights"
    write_weights(folder, ARRAYS.items(), shard_bytes)
    assert [path.name for path in sorted(folder.iterdir())] == [
        f"weights-{i:05d}.safetensors" for i in range(1, files + 1)
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["weights"]
    weights = read_weights(folder)
    assert weights.keys() == ARRAYS.keys() and len(weights) == 6 and "scale" in weights and "other" not in weights
    for name, array in ARRAYS.items():
        assert weights[name].dtype == array.dtype and weights[name].shape == array.shape
        assert np.array_equal(weights[name], array)


def test_writing_keeps_one_shard_in_memory(tmp_path):
    """When the writer asks for an array, earlier arrays are in files already, except those of the open shard."""
    written = []

    def items():
        for name, array in ARRAYS.items():
            written.append(len(list((tmp_path / ".tmp-weights").glob("*.safetensors"))))
            yield name, array

    write_weights(tmp_path / "weights", items(), 2 * 4 * 8 * 4)
    assert written == [0, 0, 1, 1, 2, 2]


def test_an_unfinished_folder_never_appears(tmp_path):
    def items():
        yield from list(ARRAYS.items())[:3]
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_weights(tmp_path / "weights", items(), 1)
    assert not (tmp_path / "weights").exists()
    write_weights(tmp_path / "weights", ARRAYS.items(), 1)
    assert read_weights(tmp_path / "weights").keys() == ARRAYS.keys()


def test_what_the_machine_refuses_is_an_error_of_the_machine(tmp_path, monkeypatch):
    """The library's own error says neither which file it was nor what to do."""

    def full(arrays, path, metadata):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("slm_core.model.weights.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_tensors({"a": np.zeros(3)}, tmp_path / "x.safetensors")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x.safetensors"))
    monkeypatch.undo()
    with pytest.raises(OSError, match="No such file"):
        save_tensors({"a": np.zeros(3)}, tmp_path / "none" / "x.safetensors")


def test_transposed_arrays_keep_their_values(tmp_path):
    array = np.arange(6.0).reshape(2, 3).T
    write_weights(tmp_path / "weights", [("a", array)])
    assert np.array_equal(read_weights(tmp_path / "weights")["a"], array)


def test_missing_and_damaged_files(tmp_path):
    folder = tmp_path / "weights"
    assert "there are none" in refusal(read_weights, folder)
    write_weights(folder, ARRAYS.items(), 1)
    (folder / "weights-00003.safetensors").rename(tmp_path / "aside")
    assert "weights-00006.safetensors is missing" in refusal(read_weights, folder)
    (folder / "weights-00003.safetensors").write_bytes((tmp_path / "aside").read_bytes()[:-1])
    message = refusal(read_weights, folder)
    assert "weights-00003.safetensors cannot be read" in message and message.endswith("import the model again")


def test_an_array_is_read_when_it_is_asked_for():
    read = []
    weights = Lazy({name: lambda name=name: read.append(name) or ARRAYS[name] for name in ARRAYS})
    assert list(weights) == list(ARRAYS) and "scale" in weights and not read
    assert weights["scale"] == 2 and read == ["scale"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": np.zeros(2)}, r"entry b is \[2\], this model has no such entry"),
        ({"a": None}, r"entry a is absent, this model has \[3\]"),
        ({"a": np.zeros(4)}, r"entry a is \[4\], this model has \[3\]"),
        ({"a": np.zeros(())}, r"entry a is \[\], this model has \[3\]"),
    ],
)
def test_weights_of_another_model(change, message):
    given = {name: array for name, array in ({"a": np.zeros(3)} | change).items() if array is not None}
    with pytest.raises(UserError, match=message):
        list(checked(given, {"a": (3,)}))


def test_names_are_compared_before_anything_is_read():
    read = []
    weights = Lazy({name: lambda name=name: read.append(name) or np.zeros(3) for name in ("a", "b")})
    with pytest.raises(UserError, match="entry c is absent"):
        list(checked(weights, {"a": (3,), "b": (3,), "c": (3,)}))
    assert not read
