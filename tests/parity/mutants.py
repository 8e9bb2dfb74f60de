"""Makes every generated mutant of a twin, and lists those that neither the proof nor a test of their file finds.

`python -m tests.parity.mutants flax layers.moe` prints {file: {"made": number, "left": [name, ...]}} as JSON; without a
file, those of all files. First the mutants face one pass of every small model, then updates and decoding. The Flax
twin is not compiled: XLA would take seconds for each mutant, and gives the same numbers but for rounding. The verdicts
are kept in `.pytest_cache/mutants/`: a run that was stopped goes on, unless a source has changed. Two runs over other
files can go on side by side.
"""

import contextlib
import copy
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

import jax
from faults import CONFIGS, generated
from faults.generated import Mutant
from faults.pairs import FORWARD, HANDED_OVER, UPDATES

import parity.checks
import slm_flax.trainer
import slm_torch.trainer
from parity.oracle.journal import Journal
from parity.pair import PERTURBATION, Pair, pin_threads, release
from parity.probe import Probe, probe_flax, probe_torch
from parity.sources import hash_of, python_files
from parity.state_transfer import perturbed, snapshot
from parity.suite import checks_of, measure
from tests.generated_mutants import ROOT, tests_pass

BUILD = {"torch": slm_torch.trainer.build, "flax": slm_flax.trainer.build}
PROBE = {"torch": probe_torch, "flax": probe_flax}
FIRST = ("stacks", "capped", "half", "lora")
"""The models that show updates and decoding first: cheap, and each with rules of its own."""
LATER = {"training": ("update", "loss_curve", "resume"), "decoding": ("decoding",)}
"""{stage: its checks}. Mutants that one pass of every model has left face them."""
TRAIN = ("layers.dropout", "layers.moe", "layers.lora")
"""Layers that do more in training than one pass shows. What a mutant of another layer does, its gradients show."""
DECODE = ("layers.", "model", "generate", "trainer")
LIMIT = 300
"""Seconds after which a mutant counts as found: it does not end."""

TESTS = {
    "loss": ("conformance/test_loss.py", "conformance/test_evaluator.py"),
    "trainer": (
        "conformance/test_engine.py", "conformance/test_engine_state.py", "conformance/test_details.py",
        "conformance/test_optimizers.py", "conformance/test_evaluator.py", "{twin}/test_moe.py",
    ),
    "layers.fused": ("conformance/test_kernels.py", "{twin}/test_kernels.py"),
    "layers.flash": ("conformance/test_kernels.py", "{twin}/test_kernels.py"),
    "layers.scan": ("conformance/test_recurrence.py",),
    "layers.recurrence": ("conformance/test_recurrence.py",),
    "layers.decay": ("conformance/test_recurrence.py",),
    "layers.short_convolution": ("conformance/test_recurrence.py",),
    "layers": (
        "conformance/test_layers.py", "conformance/test_attention.py", "conformance/test_kernels.py",
        "conformance/test_moe.py", "conformance/test_lora.py",
    ),
    "optim": ("conformance/test_optimizers.py", "{twin}/test_library_optimizers.py"),
    "quantization": ("conformance/test_blockwise.py", "conformance/test_lora.py"),
    "params": ("conformance/test_engine.py", "conformance/test_engine_state.py", "parity/test_bisect.py"),
    "model": ("conformance/test_engine.py", "conformance/test_documents.py"),
    "remat": ("conformance/test_engine.py::test_ways_to_save_memory_change_no_update",),
    "stack": ("flax/test_stack.py",),
    "generate": ("conformance/test_documents.py", "conformance/test_evaluator.py"),
}  # fmt: skip
"""{file or folder: the tests, in `tests/`, of what the proof does not call or does not tell apart}."""

TESTED = ("tests/conformance", "tests/reference", "tests/torch", "tests/flax")
"""The folders that the verdicts of the tests depend on."""

KEPT = Path(".pytest_cache/mutants")
MAPS = 30_000
"""Memory maps after which the process begins anew: each compiled operation takes some, and Linux allows 65,530."""


class Verdicts:
    """Which mutants a stage called, and which of them it found: kept in a file."""

    def __init__(self, twin: str, made: Sequence[Mutant]) -> None:
        path = KEPT / f"{twin}.jsonl"
        self.numbers = {mutant: number for number, mutant in enumerate(made)}
        KEPT.mkdir(parents=True, exist_ok=True)
        entries = Journal(str(path)).entries
        if entries[:1] != [{"sources": _proof()}]:
            path.unlink(missing_ok=True)
            Journal(str(path)).write({"sources": _proof()})
            entries = []
        self.journal = Journal(str(path))
        self.known = {(entry["stage"], entry["mutant"]): entry["found"] for entry in entries[1:]}

    def found(self, stage: str, mutants: Sequence[Mutant], finds: Callable[[Mutant], bool]) -> set[Mutant]:
        """Returns those of some mutants that a stage finds. Those that it has not faced before face it now.

        Args:
          finds: says of a mutant, while it is alive, whether the stage finds it.
        """
        new = [mutant for mutant in mutants if (stage, self.numbers[mutant]) not in self.known]
        began = time.monotonic()
        for done, mutant in enumerate(new, 1):
            with mutant.alive():
                found = finds(mutant)
            number = self.numbers[mutant]
            self.known[stage, number] = found
            self.journal.write({"stage": stage, "mutant": number, "found": found})
            minutes = (time.monotonic() - began) / done * (len(new) - done) / 60
            result = f"{'found' if found else 'left'}: {mutant.name}"
            print(f"{stage}, {done} of {len(new)}, {minutes:.0f} min to go, {result}", file=sys.stderr, flush=True)
            if len(Path("/proc/self/maps").read_text().splitlines()) > MAPS:
                os.execv(sys.executable, [sys.executable, "-m", "tests.parity.mutants", *sys.argv[1:]])
        return {mutant for mutant in mutants if self.known[stage, self.numbers[mutant]]}


def survivors(twin: str, files: Sequence[str] = ()) -> dict[str, dict]:
    """Tries all mutants of a twin's files; returns {file: how many were made, and the names of those left}."""
    every = generated.mutants(twin)
    verdicts = Verdicts(twin, every)
    chosen = left = [mutant for mutant in every if not files or mutant.file in files]
    for name, tiny in CONFIGS.items():
        if "logits" in tiny.checks:
            left = _without(left, _prove(twin, name, FORWARD, left, verdicts))
    for stage, checks in LATER.items():
        for name in sorted(CONFIGS, key=lambda name: name not in FIRST):
            checked = [check for check in CONFIGS[name].checks if check in checks]
            faced = [mutant for mutant in left if _faces(mutant, stage)]
            if checked and faced:
                left = _without(left, _prove(twin, name, ["initial_weights", *checked], faced, verdicts))
    stage = f"tests {hash_of(python_files(*TESTED))}"
    left = _without(left, verdicts.found(stage, left, lambda mutant: not _pass_tests_of(twin, mutant)))
    made = Counter(mutant.file for mutant in chosen)
    return {
        file: {"made": count, "left": [mutant.name for mutant in left if mutant.file == file]}
        for file, count in made.items()
    }


def _without(mutants: list[Mutant], found: set[Mutant]) -> list[Mutant]:
    return [mutant for mutant in mutants if mutant not in found]


def _faces(mutant: Mutant, stage: str) -> bool:
    if stage == "decoding":
        return mutant.file.startswith(DECODE)
    return not mutant.file.startswith(("layers.", "generate")) or mutant.file in TRAIN


def _prove(twin: str, name: str, checks: Sequence[str], left: list[Mutant], verdicts: Verdicts) -> set[Mutant]:
    """Lets mutants face some checks of a small model that calls them; returns those that it finds."""
    release()
    tiny, stage = CONFIGS[name], f"{name}, {checks[-1]}"
    checks = checks_of(tiny.case(name), tiny.precision, checks)
    with jax.disable_jit(twin == "flax"):
        pair = Pair(tiny.case(name), tiny.precision)
        pair.initial = pair.initial or {name: snapshot(engine) for name, engine in pair.engines.items()}
        pair.start()
        sound = pair.probes[twin == "torch"]
        caught = []
        called = generated.reached(lambda: caught.append(is_caught(pair, twin, checks, sound)))
        assert caught == [False], f"{name} must pass {checks} before anything is broken"
        faced = [mutant for mutant in left if mutant.function.__code__ in called]
        return verdicts.found(stage, faced, lambda _: is_caught(pair, twin, checks, sound))


def is_caught(pair: Pair, twin: str, checks: Sequence[str], sound: Probe) -> bool:
    """Says whether a check fails, or the twin itself, if the twin is built while it is broken.

    Each mutant gets its own twin: gradients that an exception leaves behind would fail the next mutant.

    Args:
      sound: what the other twin computes.
    """
    try:
        with _limited():
            engine, broken = BUILD[twin](pair.config, pair.case.vocab_size), copy.copy(pair)
            setattr(broken, twin, engine)
            broken.engines, broken.initial = pair.engines | {twin: engine}, pair.initial | {twin: snapshot(engine)}
            broken.start()
            engine.import_state(perturbed(broken.initial[twin], PERTURBATION))
            if not {"logits", "gradients", "decoding"}.isdisjoint(checks):
                own = PROBE[twin](engine, pair.tokens)
                vars(broken)["probes"] = (own, sound) if twin == "torch" else (sound, own)
            broken.start()
            return not all(result.passed for result in measure(broken, checks))
    except Exception:
        return True


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def fail(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _proof() -> str:
    """Returns a hash of what the verdicts of the proof depend on: the twins, and what this process has loaded."""
    twins = python_files("slm_core", "slm_torch", "slm_flax")
    loaded = {Path(module.__file__) for module in sys.modules.values() if getattr(module, "__file__", None)}
    ours = [file for file in loaded if any(file.is_relative_to(ROOT / folder) for folder in ("parity", "tests"))]
    return hash_of([*twins, *sorted(ours)])


def _pass_tests_of(twin: str, mutant: Mutant) -> bool:
    names = TESTS[mutant.file if mutant.file in TESTS else mutant.file.partition(".")[0]]
    paths = [f"tests/{name.format(twin=twin)}" for name in names]
    files = [path for path in paths if Path(path.partition("::")[0]).is_file()]
    jax.clear_caches()  # what was compiled before is not the mutant
    return not files or tests_pass(files, twin)


def small_sizes() -> None:
    """Sets few updates, and tiles of 4, so that the models' 16 tokens fill several."""
    parity.checks.UPDATES, parity.checks.HANDED_OVER = UPDATES, HANDED_OVER
    for twin in BUILD:
        import_module(f"slm_{twin}.layers.flash").TILE = 4


if __name__ == "__main__":
    pin_threads()
    small_sizes()
    print(json.dumps(survivors(sys.argv[1], sys.argv[2:])))
