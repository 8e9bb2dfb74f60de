"""Faults of a machine: what the process of a script does to itself before it begins, or at a file operation."""

import os
import pwd
import resource
import shutil
import tempfile
import time
from pathlib import Path


def several_processes() -> None:
    """Lets even a small text be prepared by several processes."""
    from slm_core.data import build

    build._SMALL = dict.fromkeys(build._SMALL, 0)
    build.cores = lambda: 2


def largest_file(size: int) -> None:
    """Allows no file above `size` bytes, as a file system or `ulimit -f` does."""
    _limit(resource.RLIMIT_FSIZE, size)


def few_files(more: int) -> None:
    """Allows `more` open files than there are now."""
    _limit(resource.RLIMIT_NOFILE, max(map(int, os.listdir("/proc/self/fd"))) + 1 + more)


def little_memory(megabytes: int) -> None:
    """Allows so much more memory than there is now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + megabytes * 10**6)


def _limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, resource.getrlimit(which)[1]))


def no_home() -> None:
    """Takes away HOME, and the user's entry in the list of users: `docker run --user 1234` without HOME."""
    os.environ.pop("HOME", None)

    def unknown(user: int) -> None:
        raise KeyError(user)

    pwd.getpwuid = unknown


def no_temporary_folder() -> None:
    """Leaves no folder for temporary files."""
    os.environ["TMPDIR"] = "/nowhere"
    tempfile.tempdir = None
    tempfile._candidate_tempdir_list = lambda: ["/nowhere"]


def unwritable_cache() -> None:
    """Names a compile cache that cannot be made, whoever the user is."""
    os.environ["HOME"] = "/proc"
    _cache("/proc/nowhere/jax")


def home_cache() -> None:
    """Puts the compile cache into the folder `cache` of the script's folder."""
    _cache("cache")


def _cache(folder: str) -> None:
    import sys

    if "jax" in sys.modules:
        import jax

        jax.config.update("jax_compilation_cache_dir", folder)


def clock_that_moves_back() -> None:
    """Sets the clock of the day back by an hour each time that it is asked. The monotonic clock stays."""
    asked = iter(range(10**9))
    began = time.time()
    time.time = lambda: began - 3600 * next(asked)
    time.time_ns = lambda: int(time.time() * 1e9)


def closed_output() -> None:
    """Starts with stdout closed, as `>&-` does."""
    import sys

    os.close(1)
    sys.stdout = None


_reader: list[int] = []


def piped_output() -> None:
    """Sends stdout to a pipe; `end_reader` closes its other end."""
    reader, writer = os.pipe()
    _reader.append(reader)
    os.dup2(writer, 1)
    os.close(writer)


def end_reader() -> None:
    """Ends the reader of stdout, as `head` does."""
    os.close(_reader.pop())


def output_without_reader() -> None:
    """Starts with an output that nobody reads."""
    piped_output()
    end_reader()


def remove_run() -> None:
    """Removes the folder of the run."""
    shutil.rmtree("models/run", ignore_errors=True)


def replace_run() -> None:
    """Puts an empty folder into the place of the run."""
    if os.path.isdir("models/run"):
        os.rename("models/run", "models/moved")
        os.mkdir("models/run")


def remove_data() -> None:
    """Removes the prepared text."""
    shutil.rmtree("data", ignore_errors=True)


def forgotten_position() -> None:
    """Plants a fault in the code: a run that goes on reads its text from the beginning again."""
    from slm_core.training import starting

    starting.Batches.restore = lambda self, state: None


def name_before_content() -> None:
    """Plants a fault in the code: a checkpoint gets its name before its manifest is written."""
    from slm_core.runs import checkpoints

    commit = checkpoints.commit_folder

    def early(temporary: Path, target: Path, *rest: object) -> None:
        temporary.rename(target)
        commit(target, target, *rest)

    checkpoints.commit_folder = early
