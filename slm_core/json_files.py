"""Reads and writes every JSON file of ours: a file that does not say what it should is one `UserError`.

A schema names the fields and their types:

    class Progress(Schema):
        step: Count

    read_json(path, Progress, "delete the file")           # types and names are checked
    write_sealed(path, {"step": 3})                        # its last field, "checksum", is that of the text before it
    read_sealed(path, SealedProgress, "restore the file")  # a schema with `checksum: str`; any changed byte is an error
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import xxhash

from slm_core.errors import UserError
from slm_core.files import write_atomically

Kind = TypeVar("Kind")
Count = Annotated[int, msgspec.Meta(ge=0)]
"""A whole number that is not negative."""

_SEAL = re.compile(rb',\n "checksum": "([0-9a-f]{16})"\n}\n')
_SEAL_BYTES = len(b',\n "checksum": "0123456789abcdef"\n}\n')


class Broken(UserError):
    """A file that cannot be used.

    Attributes:
      short: the file's name and what is wrong with it: "loop.json is missing".
    """

    def __init__(self, path: Path, why: str, remedy: str):
        super().__init__(f"{path} {why}; {remedy}")
        self.short = f"{path.name} {why}"


class Schema(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of a JSON object: no other name is allowed, and each value has its field's type."""


def read_json(path: Path, kind: type[Kind], remedy: str) -> Kind:
    """Reads a JSON file as a value of `kind`: a Schema, dict[str, int], ...

    Args:
      remedy: what the user is to do if the file cannot be used.

    Raises:
      Broken: the file is missing, unreadable or not JSON, or a field is unknown, missing or of another type.
    """
    return _decoded(path, _bytes(path, remedy), kind, remedy)


def read_sealed(path: Path, kind: type[Kind], remedy: str) -> Kind:
    """Reads a file of `write_sealed`. Raises Broken as `read_json`, and if a single byte of the file has changed."""
    text = _bytes(path, remedy)
    value = _decoded(path, text, kind, remedy)
    seal = _SEAL.fullmatch(text[-_SEAL_BYTES:])
    if seal is None or seal[1].decode() != xxhash.xxh3_64_hexdigest(text[:-_SEAL_BYTES]):
        raise Broken(path, "is broken (its checksum is not that of its content)", remedy)
    return value


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object with a checksum of its text as the last field, in one step (see `write_atomically`)."""
    write_atomically(path, sealed_text(values))


def sealed_text(values: Mapping[str, Any]) -> str:
    """Makes the text of `write_sealed`. `values` is not empty; a "checksum" in it is replaced."""
    fields = {name: msgspec.to_builtins(value) for name, value in values.items() if name != "checksum"}
    text = json.dumps(fields, indent=1, allow_nan=False).removesuffix("\n}")
    return f'{text},\n "checksum": "{xxhash.xxh3_64_hexdigest(text.encode())}"\n}}\n'


def read_line(line: bytes, kind: Any) -> Any:
    """Reads one line of a file of JSON lines. Raises ValueError with the reason if it is not a value of `kind`."""
    try:
        return msgspec.json.decode(line, type=kind)
    except (ValueError, RecursionError) as error:  # of msgspec's errors, each is a ValueError
        raise ValueError(reason(error)) from None


def reason(error: Exception) -> str:
    """Turns an error of the decoder into "place: what is wrong"."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text, _, place = " ".join(str(error).split()).replace("`", "").partition(" - at $")
    text = text[:160] if text.startswith("JSON") else text[:1].lower() + text[1:160]
    return f"{place.removeprefix('.')}: {text}" if place else text


def _bytes(path: Path, remedy: str) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a folder, or a pipe that would be waited for
            raise Broken(path, "is not a file", remedy)
        return path.read_bytes()
    except FileNotFoundError:
        raise Broken(path, "is missing", remedy) from None
    except OSError as error:
        raise Broken(path, f"cannot be read ({error.strerror})", remedy) from None


def _decoded(path: Path, text: bytes, kind: Any, remedy: str) -> Any:
    try:
        return read_line(text, kind)
    except ValueError as error:
        raise Broken(path, f"is broken ({error})", remedy) from None
