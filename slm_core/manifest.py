"""The manifest of a folder: name, size and checksum of each file, and what the folder is.

Each checkpoint, imported model and exported folder has one, `manifest.json`. A prepared dataset has the table of files
in the manifest that describes it. The manifest is written before the folder gets its name, and read before its files.

The checksum is XXH3, 64 bits (https://github.com/Cyan4973/xxHash). It finds damage; it is no protection against a
forger.
"""

import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import xxhash

from slm_core.errors import UserError
from slm_core.files import sync, sync_tree, walk, write_atomically
from slm_core.json_files import Count, Schema, read_sealed, sealed_text

NAME = "manifest.json"
_BLOCK = 1 << 20


class FileSum(Schema):
    """Size and checksum of a file."""

    bytes: Count
    xxh3: str  # 16 hexadecimal digits


Files = Mapping[str, FileSum]
"""{path inside the folder, with "/": its size and checksum}."""


class Manifest(Schema):
    """What a checkpoint or an exported folder is, and its files."""

    kind: Literal["checkpoint", "import", "export"]
    step: Count  # completed updates of the parameters in it
    config: str  # fingerprint of the run's config, as its config.json has it
    data: str  # fingerprint of the run's data
    files: dict[str, FileSum]
    checksum: str = ""


def file_sum(path: Path) -> FileSum:
    """Reads a file once, for its size and checksum."""
    digest, buffer = xxhash.xxh3_64(), bytearray(_BLOCK)
    view, size = memoryview(buffer), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
            size += count
    return FileSum(bytes=size, xxh3=digest.hexdigest())


def file_sums(folder: Path, leave_out: Iterable[str] = (NAME,)) -> dict[str, FileSum]:
    """Reads every file inside a folder once; {} if there is no such folder."""
    left = set(leave_out)
    return {name: file_sum(folder / name) for name in sorted(_names(folder)) if name not in left}


def commit_folder(temporary: Path, target: Path, kind: str, step: int, config: str, data: str) -> None:
    """Writes the manifest of a complete folder, waits until everything is on the disk, and gives the folder its name.

    The checksums are computed while the disk writes.
    """
    with ThreadPoolExecutor(1) as pool:
        files = pool.submit(file_sums, temporary)
        sync_tree(temporary)
    text = sealed_text({"kind": kind, "step": step, "config": config, "data": data, "files": files.result()})
    write_atomically(temporary / NAME, text)
    temporary.rename(target)
    sync(target.parent)


def read_manifest(folder: Path, remedy: str) -> Manifest:
    """Reads the manifest of a folder. Raises `json_files.Broken` if it is missing or damaged."""
    return read_sealed(folder / NAME, Manifest, remedy)


def damaged_files(folder: Path, files: Files, quick: bool = False, others: bool = False) -> list[str]:
    """Compares the files of a folder with their sizes and checksums. Returns what is wrong, one text per file.

    Args:
      quick: compare names and sizes alone.
      others: allow files that the table does not list. Hidden files are always allowed: systems leave them.
    """
    wrong = [f"{name} {why}" for name, entry in files.items() if (why := _damage(folder / name, entry, quick))]
    unlisted = [] if others else sorted(set(_names(folder)) - set(files) - {NAME})
    return wrong + [f"{name} is not one of its files" for name in unlisted if not Path(name).name.startswith(".")]


def check_export(folder: Path) -> None:
    """Checks a folder that has the manifest of an export; one from elsewhere has none.

    Raises:
      UserError: a file is missing or has changed, or the manifest is not one of ours.
    """
    if (folder / NAME).exists() and (wrong := damaged_export(folder)):
        raise UserError(f"{folder}: {wrong[0]}; export it again, or delete {NAME} if you changed the folder on purpose")


def damaged_export(folder: Path) -> list[str]:
    """Says what is wrong with an exported folder, one text per file. Raises `json_files.Broken` as `read_manifest`."""
    manifest = read_manifest(folder, f"export it again, or delete {NAME} if the folder is not an export of ours")
    weights = [path.name for path in sorted(folder.glob("*.safetensors")) if path.name not in manifest.files]
    return damaged_files(folder, manifest.files, others=True) + [f"{name} is not one of its files" for name in weights]


def _damage(path: Path, entry: FileSum, quick: bool) -> str:
    """Says what is wrong with a file; "": nothing."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            return "is not a file"
        if facts.st_size != entry.bytes:
            return f"has {facts.st_size} bytes instead of {entry.bytes}"
        return "" if quick or file_sum(path) == entry else "has changed: its checksum differs"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _names(folder: Path) -> Iterator[str]:
    for parent, _, names in walk(folder):
        for name in names:
            yield Path(parent, name).relative_to(folder).as_posix()
