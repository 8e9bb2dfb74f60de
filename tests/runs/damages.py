"""Every kind of damage, as data: what it does to a folder. Tests and docs/damage.md do them all; see
`observed.py`.

A kind is a function of a path, which it changes. `FILE_KINDS` damage one file, whatever it holds. The other tables
damage a run, a dataset or their small files in a way of their own; the path is then the folder.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slm_core.json_files import write_sealed
from slm_core.manifest import file_sums

Kind = Callable[[Path], object]


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Flips a bit of a file in place; `byte` counts from the end if it is negative."""
    text = bytearray(path.read_bytes())
    text[byte] ^= 1 << bit
    path.write_bytes(text)


def _folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _other_bytes(path: Path) -> None:
    path.write_bytes(random.Random(0).randbytes(path.stat().st_size))


FILE_KINDS: dict[str, Kind] = {
    "a flipped bit at the start": lambda path: flip(path, 0),
    "a flipped bit in the middle": lambda path: flip(path, path.stat().st_size // 2, 3),
    "a flipped bit at the end": lambda path: flip(path, -1, 7),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "the last byte lost": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "deleted": lambda path: path.unlink(),
    "bytes appended": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "replaced by other bytes": _other_bytes,
    "replaced by zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a folder in its place": _folder_instead,
}


def newest(run: Path, back: int = 0) -> Path:
    """Returns the newest checkpoint of a run; or the one `back` before it."""
    return sorted((run / "checkpoints").glob("step-*"))[-1 - back]


def _swap(run: Path) -> None:
    first, second = newest(run, 1), newest(run)
    second.rename(run / "between")
    first.rename(second)
    (run / "between").rename(first)


def _file_instead(run: Path) -> None:
    checkpoint = newest(run)
    shutil.rmtree(checkpoint)
    checkpoint.write_text("")


def _link_instead(run: Path) -> None:
    checkpoint = newest(run)
    shutil.rmtree(checkpoint)
    checkpoint.symlink_to("nowhere")


def _from_another_run(run: Path) -> None:
    """Puts a checkpoint of the same step of another run, `other` beside this one, in the place of the newest."""
    checkpoint = newest(run)
    shutil.rmtree(checkpoint)
    shutil.copytree(run.parent / "other" / "checkpoints" / checkpoint.name, checkpoint)


def _other_loop(change: Callable[[dict], object], sealed: bool) -> Kind:
    def damage(run: Path) -> None:
        path = newest(run) / "loop.json"
        loop = json.loads(path.read_text())
        change(loop)
        path.write_text(json.dumps(loop, indent=1) + "\n")
        if sealed:
            _reseal(newest(run))

    return damage


def _reseal(folder: Path, **fields: object) -> None:
    """Writes the manifest of a folder anew, as if its files had been saved as they are."""
    manifest = json.loads((folder / "manifest.json").read_text())
    write_sealed(folder / "manifest.json", manifest | {"files": file_sums(folder)} | fields)


def _half_written(name: str) -> Kind:
    def damage(run: Path) -> None:
        half = run / "checkpoints" / name
        shutil.copytree(newest(run), half)
        (half / "manifest.json").unlink()
        (half / "loop.json").unlink()

    return damage


RUN_KINDS: dict[str, Kind] = {
    "two checkpoints swapped": _swap,
    "the newest checkpoint renamed to a later step": lambda run: newest(run).rename(run / "checkpoints/step-00000009"),
    "the newest checkpoint renamed to no step": lambda run: newest(run).rename(run / "checkpoints/backup"),
    "an older checkpoint copied over the newest": lambda run: _replace_tree(newest(run, 1), newest(run)),
    "a step's folder from another run": _from_another_run,
    "a file in the place of a checkpoint": _file_instead,
    "a link to nothing in the place of a checkpoint": _link_instead,
    "the newest checkpoint deleted": lambda run: shutil.rmtree(newest(run)),
    "an empty folder in the place of a checkpoint": lambda run: (shutil.rmtree(newest(run)), newest_empty(run)),
    "a half-written folder of a save": _half_written(".tmp-step-00000009"),
    "a half-written folder with a step's name": _half_written("step-00000009"),
    "a file too many in the state": lambda run: (newest(run) / "state" / "extra.bin").write_bytes(b"x"),
    "`loop.json` with another step": _other_loop(lambda loop: loop["progress"].update(step=1), sealed=False),
    "`loop.json` with another step and a manifest that fits": _other_loop(
        lambda loop: loop["progress"].update(step=1), sealed=True
    ),
    "`loop.json` with another data position": _other_loop(lambda loop: loop["data"].update(next_index=7), sealed=False),
    "a manifest with another step": lambda run: _reseal(newest(run), step=1),
    "every checkpoint damaged": lambda run: [flip(path / "loop.json", 5) for path in (run / "checkpoints").glob("s*")],
    "every checkpoint deleted": lambda run: [shutil.rmtree(path) for path in (run / "checkpoints").glob("step-*")],
}


def newest_empty(run: Path) -> None:
    """Makes an empty folder of the step after the newest that is left."""
    (run / "checkpoints" / "step-00000003").mkdir()


def _replace_tree(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def _pointer(text: bytes) -> Kind:
    return lambda run: (run / "checkpoints" / "latest").write_bytes(text)


def _dangling(run: Path) -> None:
    (run / "checkpoints" / "latest").unlink()
    (run / "checkpoints" / "latest").symlink_to("nowhere")


LATEST_KINDS: dict[str, Kind] = {
    "`latest` deleted": lambda run: (run / "checkpoints" / "latest").unlink(),
    "`latest` empty": _pointer(b""),
    "`latest` not UTF-8": _pointer(b"\xff\xfe\0step"),
    "`latest` names an older checkpoint": _pointer(b"step-00000001\n"),
    "`latest` names a step that is not there": _pointer(b"step-00000077\n"),
    "`latest` names another folder": _pointer(b"../../elsewhere\n"),
    "`latest` a folder": lambda run: _folder_instead(run / "checkpoints" / "latest"),
    "`latest` a link to nothing": _dangling,
}


def _line(number: int, text: bytes) -> Kind:
    """Replaces a line of metrics.jsonl."""

    def damage(run: Path) -> None:
        lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        lines[number] = text
        (run / "metrics.jsonl").write_bytes(b"".join(lines))

    return damage


def _digit(run: Path) -> None:
    """Changes a digit of a loss: the line is still a valid one."""
    text = (run / "metrics.jsonl").read_bytes()
    place = text.index(b'"loss": ') + len(b'"loss": ')
    (run / "metrics.jsonl").write_bytes(
        text[:place] + (b"1" if text[place : place + 1] != b"1" else b"2") + text[place + 1 :]
    )


METRICS_KINDS: dict[str, Kind] = {
    "the first line of `metrics.jsonl` garbage": _line(0, b"\xff\x00garbage\n"),
    "a torn line in `metrics.jsonl`": _line(2, b'{"step": 2, "spl\n'),
    "a torn line without its end in `metrics.jsonl`": _line(2, b'{"step": 2, "spl'),
    "the last line of `metrics.jsonl` zeros": _line(-1, b"\0\0\0\0\n"),
    "a line of `metrics.jsonl` with another type": _line(1, b'{"step": "two"}\n'),
    "a line of `metrics.jsonl` that is a list": _line(1, b"[1, 2]\n"),
    "a line of `metrics.jsonl` nested deeply": _line(1, b"[" * 100_000 + b"\n"),
    "a digit of a loss in `metrics.jsonl` changed": _digit,
    "a line of `metrics.jsonl` deleted": _line(1, b""),
    "`metrics.jsonl` deleted": lambda run: (run / "metrics.jsonl").unlink(),
    "`metrics.jsonl` a folder": lambda run: _folder_instead(run / "metrics.jsonl"),
}


def _beyond(dataset: Path) -> None:
    """Makes the vocabulary smaller than a token, with checksums that fit."""
    _reseal(dataset, vocab_size=100)


def _swapped_sides(dataset: Path) -> None:
    (dataset / "train.bin").rename(dataset / "between")
    (dataset / "validation.bin").rename(dataset / "train.bin")
    (dataset / "between").rename(dataset / "validation.bin")


def _changed_token(dataset: Path) -> None:
    tokens = np.memmap(dataset / "train.bin", np.uint8, mode="r+")
    tokens[10] += 1
    tokens.flush()


def _other_count(dataset: Path) -> None:
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["counts"]["train_tokens"] -= 1
    (dataset / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


DATASET_KINDS: dict[str, Kind] = {
    "a changed token": _changed_token,
    "the two token files swapped": _swapped_sides,
    "token ids beyond the vocabulary, with checksums that fit": _beyond,
    "a manifest with another count": _other_count,
    "a manifest without its files": lambda dataset: write_sealed(
        dataset / "manifest.json",
        {n: v for n, v in json.loads((dataset / "manifest.json").read_text()).items() if n != "files"},
    ),
}


JSON_KINDS: dict[str, Kind] = {
    "not JSON": lambda path: path.write_text("{"),
    "a list": lambda path: path.write_text("[]"),
    "an empty object": lambda path: path.write_text("{}"),
    "a number": lambda path: path.write_text("3"),
    "null": lambda path: path.write_text("null"),
    "not UTF-8": lambda path: path.write_bytes(b'{"\xff": 1}'),
    "nested deeply": lambda path: path.write_text("[" * 100_000),
    "NaN": lambda path: path.write_text('{"step": NaN}'),
    "a field too many": lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"extra": 1})),
    "its first field lost": lambda path: path.write_text(json.dumps(dict([*json.loads(path.read_text()).items()][1:]))),
    "a field of another type": lambda path: path.write_text(
        json.dumps(json.loads(path.read_text()) | {next(iter(json.loads(path.read_text()))): [None]})
    ),
}
"""Kinds for a JSON file of ours that holds an object."""

COUNT = sum(map(len, (FILE_KINDS, RUN_KINDS, LATEST_KINDS, METRICS_KINDS, DATASET_KINDS)))
"""Kinds that docs/damage.md shows."""
