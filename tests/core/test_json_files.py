"""The reader of our JSON files: whatever a file holds, it is a value of the schema or one line about what is wrong."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_core.errors import UserError
from slm_core.json_files import Broken, Count, Schema, read_json, read_line, read_sealed, sealed_text, write_sealed


class Inner(Schema):
    step: Count
    loss: float | None = None


class Outer(Schema):
    inner: Inner
    names: list[str]


class Sealed(Schema):
    inner: Inner
    checksum: str


def written(folder: Path, text: str) -> Path:
    (folder / "file.json").write_text(text)
    return folder / "file.json"


def test_a_file_is_read_as_its_schema(tmp_path):
    path = written(tmp_path, '{"inner": {"step": 3, "loss": 1}, "names": ["a"]}')
    assert read_json(path, Outer, "") == Outer(inner=Inner(step=3, loss=1.0), names=["a"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is broken (input data was truncated)"),
        ("{", "is broken (input data was truncated)"),
        ("[]", "is broken (expected object, got array)"),
        ('{"inner": {"step": "3"}, "names": []}', "is broken (inner.step: expected int, got str)"),
        ('{"inner": {"step": -1}, "names": []}', "is broken (inner.step: expected int >= 0)"),
        ('{"inner": {"step": 1, "stop": 2}, "names": []}', "is broken (inner: object contains unknown field stop)"),
        ('{"inner": {"step": 1}}', "is broken (object missing required field names)"),
        ('{"inner": {"step": 1}, "names": [1]}', "is broken (names[0]: expected str, got int)"),
        ('{"inner": {"step": NaN}, "names": []}', "is broken (JSON is malformed: invalid character (byte 19))"),
        ("[" * 100_000, "is broken ("),
    ],
)
def test_an_error_names_file_place_reason_and_remedy(tmp_path, text, why):
    path = written(tmp_path, text)
    with pytest.raises(Broken) as error:
        read_json(path, Outer, "restore it")
    assert str(error.value).startswith(f"{path} {why}") and str(error.value).endswith("; restore it")
    assert error.value.short.startswith(f"file.json {why}") and "\n" not in str(error.value)


def test_what_is_no_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="is missing; restore it"):
        read_json(tmp_path / "none", Outer, "restore it")
    with pytest.raises(UserError, match="is not a file; restore it"):
        read_json(tmp_path, Outer, "restore it")


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(), st.text().map(str.encode), st.from_type(dict[str, int]).map(json.dumps).map(str.encode)))
def test_any_line_is_a_value_or_a_reason(line):
    try:
        assert isinstance(read_line(line, Outer), Outer)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)


def test_a_sealed_file_is_read_back_and_any_changed_byte_is_found(tmp_path):
    path = tmp_path / "file.json"
    write_sealed(path, {"inner": Inner(step=3), "checksum": "an old one"})
    assert json.loads(path.read_text())["inner"] == {"step": 3, "loss": None}
    assert read_sealed(path, Sealed, "").inner == Inner(step=3)
    text = sealed_text({"inner": Inner(step=3)}).encode()
    assert path.read_bytes() == text
    for byte in range(len(text)):
        for changed in (text[:byte] + bytes([text[byte] ^ 1]) + text[byte + 1 :], text[:byte] + text[byte + 1 :]):
            path.write_bytes(changed)
            with pytest.raises(Broken):
                read_sealed(path, Sealed, "")
    path.write_bytes(text + b"\n")
    with pytest.raises(Broken, match="its checksum is not that of its content"):
        read_sealed(path, Sealed, "")
