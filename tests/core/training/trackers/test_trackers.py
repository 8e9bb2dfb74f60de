"""What a run tells trackio and wandb: a fake of each records it, and the real one, where it is installed, stores it."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest

from slm_core.errors import UserError
from slm_core.training.loop import train
from tests.core.fake_engine import BigramEngine, change, make_config
from tests.core.fake_trackers import install

LIBRARIES = ("trackio", "wandb")
VARIABLES = ("WANDB_MODE", "WANDB_PROJECT", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


@pytest.fixture(autouse=True)
def no_variables_of_the_user(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Crash(Exception):
    pass


def run(config, crash_at=None):
    def build(config, vocab_size, weights):
        engine = BigramEngine(config, vocab_size)
        original = engine.train_step

        def train_step(tokens, lr, step):
            if step == crash_at:
                raise Crash
            return original(tokens, lr, step)

        engine.train_step = train_step
        return engine

    return train(config, build, "torch")


def tracked(folder, tracker, **fields):
    config = make_config(folder, log_details_every=6, **fields)
    return change(config, run__tracker=tracker, run__tensorboard=False)


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_stops_the_run_before_any_work(name, tmp_path, monkeypatch):
    config = tracked(tmp_path, name)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError) as caught:
        run(config)
    assert str(caught.value) == (
        f"run.tracker={name}: the {name} library is missing; install it: uv sync --extra {name}"
    )
    assert not (tmp_path / "models").exists() and not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_folder_of_the_same_name_is_not_the_library(name, tmp_path, monkeypatch):
    (tmp_path / "elsewhere" / name).mkdir(parents=True)
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere")])
    with pytest.raises(UserError, match=f"the {name} library is missing"):
        run(tracked(tmp_path, name))


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_tracker_gets_numbers_details_texts_and_every_field(name, tmp_path, monkeypatch):
    library = install(monkeypatch, name)
    run(tracked(tmp_path, name))
    (told,) = library.runs
    assert told.finished and told.options["project"] == "models" and told.name == "run"
    assert told.config["optim.lr"] == 0.01 and told.config["framework"] == "torch"
    steps = {
        tag: [step for step, values in told.logged if tag in values] for _, values in told.logged for tag in values
    }
    assert steps["loss/train"] == steps["lr/train"] == steps["grad_norm/train"] == [1, 3, 6, 9, 12, 15, 18, 20]
    assert steps["tokens_per_second/train"] == steps["peak_memory_bytes/train"] == steps["loss/train"]
    assert steps["loss/eval"] == [5, 10, 15, 20]
    assert steps["details/activation_rms/layers.0"] == [1, 6, 12, 18, 20]
    assert steps["sample"] == [10, 20]
    assert [step for step, _ in told.logged] == sorted(step for step, _ in told.logged)  # which wandb asks for


def test_wandb_is_offline_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    library = install(monkeypatch, "wandb")
    config = tracked(tmp_path, "wandb", steps=8)
    with pytest.raises(Crash):
        run(config, crash_at=7)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    run(config)
    first, second = (told.options for told in library.runs)
    assert (first["mode"], first["project"], first["resume"]) == ("offline", "models", None)
    assert (second["mode"], second["project"], second["resume"]) == ("online", "mine", "allow")
    assert first["id"] == second["id"] and first["dir"] == str(tmp_path / "models" / "run")
    other = change(config, run__name="other")
    run(other)
    assert library.runs[-1].options["id"] != first["id"]


def test_a_resumed_trackio_run_says_nothing_twice(tmp_path, monkeypatch):
    library = install(monkeypatch, "trackio")
    whole = tracked(tmp_path, "trackio", name="whole")
    run(whole)
    config = tracked(tmp_path, "trackio")
    with pytest.raises(Crash):
        run(config, crash_at=12)  # the checkpoint is of step 7
    run(config)
    expected, told = library.runs
    assert (expected.name, told.name) == ("whole", "run")  # the run that crashed is forgotten; the other one is not
    deterministic = [
        [
            (step, {tag: value for tag, value in values.items() if "per_second" not in tag})
            for step, values in run.logged
        ]
        for run in (expected, told)
    ]
    assert deterministic[0] == deterministic[1]


def test_trackio_leaves_another_run_of_the_same_name_alone(tmp_path, monkeypatch):
    library = install(monkeypatch, "trackio")
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        run(tracked(tmp_path / place, "trackio", steps=4))
    assert [told.name for told in library.runs] == ["run", "run"]


def test_trackio_asks_no_server_unless_the_user_names_one(tmp_path, monkeypatch):
    library = install(monkeypatch, "trackio")
    constants = sys.modules["huggingface_hub"].constants
    offline = []
    init = library.init
    library.init = lambda **options: offline.append(constants.HF_HUB_OFFLINE) or init(**options)
    config = tracked(tmp_path, "trackio", steps=8)
    with pytest.raises(Crash):
        run(config, crash_at=7)
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/space")
    run(config)
    assert offline == [True, False] and constants.HF_HUB_OFFLINE is False
    assert [told.options["resume"] for told in library.runs] == ["never", "allow"]
    assert min(step for step, _ in library.runs[1].logged) == 8  # a server keeps what it was told


REAL = """
import sys
from pathlib import Path
from tests.core.training.trackers.test_trackers import Crash, run, tracked
config = tracked(Path(sys.argv[2]), sys.argv[1])
try:
    run(config, crash_at=12)
except Crash:
    pass
run(config)
"""


def really(name, folder):
    """Runs, crashes and resumes with the real library, in a process whose network is a wall."""
    wall = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "HTTP", "HTTPS")}
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    variables = {"TRACKIO_DIR": str(folder / "trackio"), "HF_HOME": str(folder / "hf"), "PYTHONPATH": os.getcwd()}
    variables |= {"WANDB_CACHE_DIR": str(folder / "cache"), "WANDB_CONFIG_DIR": str(folder / "cache")}
    subprocess.run(
        [sys.executable, "-c", REAL, name, str(folder)], env=kept | wall | variables, check=True, timeout=300
    )


@pytest.mark.slow
def test_the_real_trackio_stores_each_line_once(tmp_path):
    pytest.importorskip("trackio")
    really("trackio", tmp_path)
    with sqlite3.connect(tmp_path / "trackio" / "models.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        ((config,),) = database.execute("SELECT config FROM configs").fetchall()
    told = [(step, json.loads(metrics)) for _, step, metrics in rows]
    assert {name for name, *_ in rows} == {"run"}
    assert [step for step, values in told if "loss/train" in values] == [1, 3, 6, 9, 12, 15, 18, 20]
    assert [step for step, values in told if "details/activation_rms/layers.0" in values] == [1, 6, 12, 18, 20]
    assert [step for step, values in told if "sample" in values] == [10, 20]
    assert json.loads(config)["optim.lr"] == 0.01


@pytest.mark.slow
def test_the_real_wandb_writes_a_folder_per_process_with_one_id(tmp_path):
    pytest.importorskip("wandb")
    really("wandb", tmp_path)
    folders = sorted(path for path in (tmp_path / "models" / "run" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and len({path.name.rpartition("-")[2] for path in folders}) == 1
    assert all(list(path.glob("run-*.wandb")) for path in folders)
