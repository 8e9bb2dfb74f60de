"""The runner of a study: every run once, several at a time; failures told, interruptions continued."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from slm_core.studies.runner import Runner, failure, steps_done
from slm_core.studies.study import Cell

TRAIN = '''
"""Stands for a trainer: a checkpoint per step, which it resumes from."""
import json, os, signal, sys, time
from pathlib import Path
settings = dict(word.removeprefix("--config.").split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = Path(settings["run.dir"]) / settings["run.name"]
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as file:
    file.write("x")
if settings["seed"] == "13":
    print("error: seed=13: an unlucky number; choose another", file=sys.stderr)
    sys.exit(2)
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
done = len(list((folder / "checkpoints").glob("step-*")))
for step in range(done + 1, int(settings["train.steps"]) + 1):
    time.sleep(float(os.environ.get("STEP", "0")))
    with (folder / "steps").open("a") as file:
        file.write(f"{step}\\n")
    path = folder / "checkpoints" / f"step-{step:08d}"
    path.mkdir()
    (path / "loop.json").write_text(json.dumps({"progress": {"step": step}}))
    if stop:
        sys.exit(0)
'''


@pytest.fixture
def commands(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    return {twin: [sys.executable, str(script)] for twin in ("torch", "flax")}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("slm_core.studies.runner.POLL", 0.02)


def cells(folder, seeds, steps=3):
    return [
        Cell("a", "torch", seed, f"a-torch-seed{seed}",
             {"seed": seed, "run.dir": str(folder), "run.name": f"a-torch-seed{seed}", "train.steps": steps}, steps)
        for seed in seeds
    ]  # fmt: skip


def started(folder, cell):
    return len((folder / cell.name / "starts").read_text())


def test_every_run_is_done_once_and_not_again(tmp_path, commands):
    folder, todo = tmp_path / "study", cells(tmp_path / "study", range(4))
    folder.mkdir()
    seen = []
    assert Runner(folder, "p", commands, 2, seen.append).run(todo)
    assert all(steps_done(folder / cell.name) == 3 and started(folder, cell) == 1 for cell in todo)
    assert max(len(progress.running) for progress in seen) == 2
    assert (seen[-1].finished, seen[-1].failed, seen[-1].waiting, seen[-1].share) == (4, 0, 0, 1.0)
    assert Runner(folder, "p", commands, 2).run(todo)
    assert all(started(folder, cell) == 1 for cell in todo)


def test_a_failed_run_is_told_and_does_not_stop_the_others_and_is_tried_again_next_time(tmp_path, commands):
    folder, todo = tmp_path / "study", cells(tmp_path / "study", (12, 13, 14))
    folder.mkdir()
    seen = []
    assert Runner(folder, "p", commands, 1, seen.append).run(todo)
    assert failure(folder, todo[1].name) == "seed=13: an unlucky number; choose another"
    assert [steps_done(folder / cell.name) for cell in todo] == [3, 0, 3]
    assert (seen[-1].finished, seen[-1].failed) == (2, 1) and started(folder, todo[1]) == 1
    assert Runner(folder, "p", commands, 1).run(todo)
    assert started(folder, todo[1]) == 2 and started(folder, todo[0]) == 1


STUDY = """
import json, os, sys
from pathlib import Path
import slm_core.studies.runner as runner
from slm_core.studies.study import Cell
runner.POLL = 0.02
folder, commands, rows = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
print("started", flush=True)
done = runner.Runner(folder, "p", commands, 2).run([Cell(*row) for row in rows])
sys.exit(0 if done else 130)
"""


def study_process(folder, commands, todo):
    rows = json.dumps([list(cell.__dict__.values()) for cell in todo])
    return subprocess.Popen(
        [sys.executable, "-c", STUDY, str(folder), json.dumps(commands), rows],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"STEP": "0.05"},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_study_repeats_no_step(tmp_path, commands, number):
    folder, todo = tmp_path / "study", cells(tmp_path / "study", range(4), steps=6)
    folder.mkdir()
    for _ in range(3):
        process = study_process(folder, commands, todo)
        assert process.stdout and process.stdout.readline() == "started\n"
        time.sleep(0.35)
        process.send_signal(number)
        assert process.wait(timeout=30) in (130, 0, -number)  # -2: a slow machine had not reached the runner yet
    finished = study_process(folder, commands, todo)
    assert finished.wait(timeout=60) == 0
    for cell in todo:
        assert (folder / cell.name / "steps").read_text().split() == [str(step) for step in range(1, 7)]


def test_two_processes_share_a_study(tmp_path, commands):
    folder, todo = tmp_path / "study", cells(tmp_path / "study", range(8), steps=4)
    folder.mkdir()
    both = [study_process(folder, commands, todo) for _ in range(2)]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert all(started(folder, cell) == 1 and steps_done(folder / cell.name) == 4 for cell in todo)


def test_a_run_killed_for_memory_says_so(tmp_path, commands):
    folder, todo = tmp_path / "study", cells(tmp_path / "study", [1], steps=1000)
    folder.mkdir()

    def kill():
        while not (folder / todo[0].name / "steps").exists():
            time.sleep(0.01)
        subprocess.run(["pkill", "-9", "-f", str(commands["torch"][1])], check=False)

    os.environ["STEP"] = "0.05"
    try:
        threading.Thread(target=kill).start()
        assert Runner(folder, "p", commands, 1).run(todo)
    finally:
        del os.environ["STEP"]
    assert "killed by signal 9: too little memory?" in failure(folder, todo[0].name)
