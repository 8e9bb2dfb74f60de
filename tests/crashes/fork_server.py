"""Runs scripts in processes that start at once: it imports everything first, then forks a child for each script.

    python -m tests.crashes.fork_server torch

Reads one JSON object per line from stdin, and answers each with one on stdout; see `Server`, which starts it. A start
of Python with a framework takes 6 s of a CPU, and a fork takes 10 ms. That is sound as long as no framework has started
its backend and no thread exists: each fork checks that.
"""

import dataclasses
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120
"""Seconds after which a child counts as hanging."""

HANGS = signal.SIGXCPU
"""The signal that ends a child that hangs; nothing else sends it."""

_SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator
    "GIT_DIR": "/nowhere",  # the commit in config.json is null, whether or not git can be started
    "PYTHONPATH": str(ROOT),
}

CORE = "core"
"""In the place of a twin: a server that imports no framework, for the commands that need none."""

_CORE = (
    "tokenizers", "safetensors.numpy", "rich.progress", "concurrent.futures.process",
    "slm_core.cli.help", "slm_core.data", "slm_core.data.build", "slm_core.hf.run", "slm_core.hf.hub",
    "slm_core.runs.weights",
)  # fmt: skip
_TWIN = (
    "grain.python", "tensorboard.summary.writer.record_writer", "tensorboard.compat.proto.event_pb2",
    "tensorboard.plugins.hparams.summary_v2", "tensorboard.plugins.text.summary_v2", "slm_core.training.loop",
    "slm_core.inference.text", "slm_core.inference.evaluator", "slm_{}.trainer", "slm_{}.evaluator",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a script ended.

    Args:
      status: its exit code; of one that a signal ended, minus the signal's number.
      seconds: from the fork to its end.
      operations: the number of its file operations; 0 if it was killed.
      output, errors: what it printed.
    """

    status: int
    seconds: float
    operations: int
    output: str
    errors: str


class Server:
    """The client of a server for one twin; use it in a `with`.

    Args:
      home: the HOME of its children, with JAX's compile cache.
    """

    def __init__(self, twin: str, home: Path):
        home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.crashes.fork_server", twin]
        environment = os.environ | _SETTINGS | {"HOME": str(home)}
        self.report = home / "report"
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self,
        words: Sequence[object],
        folder: Path,
        *,
        kill: dict[str, Any] | None = None,
        before: str = "",
    ) -> Ended:
        """Runs a script in a folder until it ends.

        Args:
          words: the script's name and its arguments.
          kill: the fields of a `kills.Kill`; where it fell is then in `report`.
          before: what the child does first: a function of `faults`, and a number for it after a space, if any.
        """
        assert self._process.stdin and self._process.stdout
        job = {"words": [str(word) for word in words], "folder": str(folder), "report": str(self.report)}
        self._process.stdin.write(json.dumps(job | {"kill": kill or {}, "before": before}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server of scripts has ended"
        ended = Ended(**json.loads(answer))
        assert ended.status != -HANGS, f"{words} took more than {PATIENCE} s"
        return ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(PATIENCE)


def _serve(twin: str) -> None:
    from slm_core.hardware.devices import quiet_jax

    quiet_jax()
    for name in _CORE + (_TWIN if twin != CORE else ()):
        importlib.import_module(name.format(twin))
    gc.collect()
    gc.freeze()  # else the first collection of each child copies every page
    answers = os.fdopen(os.dup(1), "w")  # fd 1 becomes a script's output
    for line in sys.stdin:
        threads = os.listdir("/proc/self/task")
        assert len(threads) == 1, f"a fork would lose {len(threads) - 1} threads"
        answers.write(json.dumps(dataclasses.asdict(_run(json.loads(line)))) + "\n")
        answers.flush()


def _run(job: dict[str, Any]) -> Ended:
    report = Path(job["report"])
    output, errors, count = (report.with_suffix(suffix) for suffix in (".out", ".err", ".count"))
    for file in (report, count):
        file.unlink(missing_ok=True)
    began = time.monotonic()
    child = os.fork()
    if not child:
        _be_the_script(job, output, errors, count)
    status = _wait(child)
    seconds = time.monotonic() - began
    operations = int(count.read_text()) if count.exists() else 0
    texts = (path.read_text(errors="replace") for path in (output, errors))
    return Ended(status, seconds, operations, *texts)


def _wait(child: int) -> int:
    handle = os.pidfd_open(child)
    ended = select.poll()
    ended.register(handle, select.POLLIN)
    if not ended.poll(PATIENCE * 1000):
        os.kill(child, HANGS)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(handle)
    return status


def _be_the_script(job: dict[str, Any], output: Path, errors: Path, count: Path) -> None:
    """Runs the script in the child, and ends it as Python ends: with its threads joined and `atexit` called."""
    import atexit

    from tests.crashes import faults
    from tests.crashes.kills import Kill, arm

    status = 1
    try:
        for number, path in ((1, output), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(job["folder"])
        os.fsync = lambda handle: None  # a kill leaves what was written, whether it is on the disk or not
        sys.argv = [str(ROOT / "scripts" / job["words"][0]), *job["words"][1:]]
        sys.path.insert(0, str(ROOT / "scripts"))
        if job["before"]:
            name, *numbers = job["before"].split()
            getattr(faults, name)(*map(int, numbers))
        operations = arm(Kill(**job["kill"]), Path(job["folder"]), Path(job["report"]))
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        count.write_text(str(operations.count))
    except BaseException:
        sys.excepthook(*_caught())
        sys.stderr.flush()
    finally:
        os._exit(status)


def _caught() -> tuple[type[BaseException], BaseException, TracebackType | None]:
    kind, error, trace = sys.exc_info()
    assert kind and error
    return kind, error, trace


if __name__ == "__main__":
    _serve(sys.argv[1])
