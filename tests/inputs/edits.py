"""Random edits of files: of any bytes, and of any place in a JSON value."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

NEW = [..., None, 0, -1, 10**12, "", "x", [], {}, [[]], True, 0.5, {"type": "BPE"}, {"a": 10**9}, {"a": 0, "b": 0}]
"""What takes the place of a JSON value; ...: it is left out."""

Edit = Callable[[bytes], bytes]


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yields the path of every value inside a JSON value, down to four keys."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, each in inside:
        if len(path) < 3:
            yield from places(each, (*path, key))


def edited(value: Any, path: tuple, new: Any) -> Any:
    """Returns a copy with the value at a path replaced, or left out if `new` is ...."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if new is ... and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = edited(value[path[0]], path[1:], new)
    return copy


def _of_bytes(places_of: list[tuple[float, int]], cut: float) -> Edit:
    def edit(text: bytes) -> bytes:
        changed = bytearray(text)
        for share, byte in places_of:
            changed[int(share * (len(text) - 1))] = byte
        return bytes(changed[: int(len(text) * cut)])

    return edit


def _of_json(which: float, new: Any) -> Edit:
    def edit(text: bytes) -> bytes:
        value = json.loads(text)
        paths = sorted(places(value), key=str)
        changed = edited(value, paths[int(which * (len(paths) - 1))], new)
        return b"" if changed is ... else json.dumps(changed).encode()

    return edit


_share = st.floats(0, 1, allow_nan=False)
_start = st.floats(0, 0.1, allow_nan=False)  # a safetensors file begins with its header

BYTES = st.builds(
    _of_bytes,
    st.lists(st.tuples(st.one_of(_share, _start), st.integers(0, 255)), min_size=1, max_size=3),
    st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5, 0.0]),
)
JSON = st.builds(_of_json, _share, st.sampled_from(NEW))


def do(path: Path, edit: Edit) -> None:
    """Edits a file that is not empty."""
    path.write_bytes(edit(path.read_bytes()))
