"""Claims: one process does a run, a dead one's claim passes to the next."""

import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from slm_core.studies import claims
from slm_core.studies.claims import claim


def test_a_claimed_run_is_refused_until_it_is_released(tmp_path):
    first = claim(tmp_path, "run")
    assert first and claim(tmp_path, "run") is None and claim(tmp_path, "another")
    first.release()
    assert claim(tmp_path, "run")


def test_names_that_begin_alike_are_different_runs(tmp_path):
    assert claim(tmp_path, "a-seed1") and claim(tmp_path, "a-seed10") and claim(tmp_path, "a-seed1.5")


HOLD = "import sys; from pathlib import Path; from slm_core.studies.claims import claim; import os\n"


def test_the_claim_of_a_killed_process_is_free_at_once(tmp_path):
    code = HOLD + "claim(Path(sys.argv[1]), 'run'); print('claimed', flush=True); sys.stdin.read()"
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout and owner.stdout.readline() == "claimed\n"
    assert claim(tmp_path, "run") is None
    owner.kill()
    owner.wait()
    assert claim(tmp_path, "run")


def test_a_child_that_outlives_its_killed_parent_keeps_the_claim(tmp_path):
    code = HOLD + (
        "import subprocess\n"
        "lock = claim(Path(sys.argv[1]), 'run').lock\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0, pass_fds=(lock,))\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout and owner.stdin
    child = int(owner.stdout.readline())
    owner.wait()
    assert claim(tmp_path, "run") is None
    os.kill(child, 9)
    deadline = time.monotonic() + 10
    while not (taken := claim(tmp_path, "run")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert taken


@pytest.mark.parametrize(("age", "free"), [(10.0, False), (claims.EXPIRES + 60, True)])
def test_a_claim_of_another_machine_expires_if_nobody_touches_it(tmp_path, age, free):
    folder = tmp_path / ".claims"
    folder.mkdir()
    (folder / "run.3").write_text("another-machine")
    os.utime(folder / "run.3", (time.time() - age,) * 2)
    assert bool(claim(tmp_path, "run")) is free


def test_a_beat_touches_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", -1.0)
    taken = claim(tmp_path, "run")
    path = tmp_path / ".claims" / "run.1"
    os.utime(path, (1, 1))
    taken.beat()
    assert path.stat().st_mtime > time.time() - 60


def _compete(folder, barrier, wins):
    barrier.wait()
    if claim(folder, "run"):
        wins.put(1)
    barrier.wait()


def test_of_many_that_ask_at_once_one_gets_the_run_of_a_dead_owner(tmp_path):
    (tmp_path / ".claims").mkdir()
    (tmp_path / ".claims" / "run.1").write_text("another-machine")
    os.utime(tmp_path / ".claims" / "run.1", (1, 1))
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(8), context.Queue()
    competitors = [context.Process(target=_compete, args=(tmp_path, barrier, wins)) for _ in range(8)]
    for each in competitors:
        each.start()
    for each in competitors:
        each.join()
    assert wins.get() == 1 and wins.empty()
