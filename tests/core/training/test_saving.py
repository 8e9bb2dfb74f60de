"""Checkpoints are written beside training, from a copy: the rules of the thread that writes them."""

import errno
import json
import math
import os
import signal
import threading
import time

import pytest

from slm_core.errors import UserError
from slm_core.runs import states
from slm_core.runs.checkpoints import list_checkpoints
from slm_core.runs.whole import newest_whole
from slm_core.training import saving
from tests.core.fake_engine import change, make_config
from tests.core.training.test_loop import Interrupted, crash_at, run, signal_at


def checkpoints(tmp_path):
    return [path.name for path in list_checkpoints(tmp_path / "models" / "run" / "checkpoints")]


def no_thread_is_left():
    return not any(thread.name == "checkpoint" for thread in threading.enumerate())


@pytest.fixture
def writes(monkeypatch):
    """Lets `writes["before"](folder)` run before each state that a thread writes."""
    hooks = {"before": lambda folder: None}

    def write_state(folder, entries, writer):
        hooks["before"](folder)
        states.write_state(folder, entries, writer)

    monkeypatch.setattr(saving, "write_state", write_state)
    return hooks


def slowly(folder):
    time.sleep(0.2)


def test_updates_go_on_while_a_checkpoint_is_written(tmp_path, writes):
    reached = threading.Event()
    writes["before"] = lambda folder: reached.wait(20) or pytest.fail("training waited for the checkpoint of step 7")

    def prepare_engine(engine):
        original = engine.train_step

        def train_step(tokens, lr, step):
            if step == 12:
                reached.set()
            return original(tokens, lr, step)

        engine.train_step = train_step

    result, _ = run(make_config(tmp_path), prepare_engine)
    assert result.finished and checkpoints(tmp_path) == ["step-00000014", "step-00000020"]


def test_a_checkpoint_is_of_its_own_step_however_long_it_takes(tmp_path, writes):
    """The files of the state are bit for bit those of a run that waits, and so is the loop's state."""
    writes["before"] = slowly
    kept = {}
    for beside in (True, False):
        config = make_config(tmp_path, name=f"beside-{beside}", keep_checkpoints=9)
        result, _ = run(change(config, run__async_saving=beside))
        kept[beside] = {
            str(file.relative_to(result.folder)): file.read_bytes()
            for file in (result.folder / "checkpoints").rglob("*")
            if file.name.endswith(".safetensors") or file.name == "state.json"
        }
        for checkpoint in list_checkpoints(result.folder / "checkpoints"):
            loop = json.loads((checkpoint / "loop.json").read_text())
            kept[beside][checkpoint.name] = [loop["progress"], loop["data"]]
    assert kept[True] == kept[False] and len(kept[True]) == 3 * 3


def test_one_checkpoint_is_written_at_a_time(tmp_path, writes):
    under_way, most = [], []

    def before(folder):
        under_way.append(folder)
        most.append(len(under_way))
        time.sleep(0.05)
        under_way.remove(folder)

    writes["before"] = before
    run(make_config(tmp_path, checkpoint_every=1))
    assert most == [1] * 19  # the last one is written by the loop itself


def test_the_last_checkpoint_needs_no_copy(tmp_path):
    calls = run(make_config(tmp_path))[1].calls
    assert [call for call in calls if call[0] in ("export", "save")] == [("export",), ("export",), ("save",)]
    stopped = run(make_config(tmp_path, name="stopped"), signal_at(4))[1].calls
    assert [call for call in stopped if call[0] in ("export", "save")] == [("save",)]


def test_without_copies_training_waits(tmp_path):
    calls = run(change(make_config(tmp_path), run__async_saving=False))[1].calls
    assert [call for call in calls if call[0] in ("export", "save")] == [("save",)] * 3


def test_an_error_of_training_waits_for_the_checkpoint(tmp_path, writes):
    writes["before"] = slowly
    with pytest.raises(Interrupted):
        run(make_config(tmp_path), crash_at(8))
    assert checkpoints(tmp_path) == ["step-00000007"] and no_thread_is_left()


def test_divergence_names_the_checkpoint_that_was_under_way(tmp_path, writes):
    writes["before"] = slowly

    def prepare_engine(engine):
        engine.metrics_at[7] = {"loss": math.nan}

    with pytest.raises(UserError, match="loss became nan at step 8.*the last good checkpoint is .*step-00000007"):
        run(make_config(tmp_path), prepare_engine)


def full_disk(folder):
    raise OSError(errno.ENOSPC, "No space left on device", str(folder / "state-00001.safetensors"))


def at_second(action):
    """Does something at the second state that is written."""
    actions = iter((lambda folder: None, action))
    return lambda folder: next(actions)(folder)


def test_a_full_disk_ends_the_run_at_once_and_leaves_the_last_checkpoint(tmp_path, writes):
    writes["before"], engines = at_second(full_disk), []

    def prepare_engine(engine):
        engine.delay = 0.005
        engines.append(engine)

    config = make_config(tmp_path, steps=400, checkpoint_every=100, eval_every=0, sample_every=0)
    with pytest.raises(OSError, match="No space left on device.*state-00001.safetensors"):
        run(config, prepare_engine)
    assert ("train", 200) in engines[0].calls and ("train", 299) not in engines[0].calls
    root = tmp_path / "models" / "run" / "checkpoints"
    assert newest_whole(root).name == "step-00000100" and no_thread_is_left()
    writes["before"] = lambda folder: None
    assert run(config)[0].finished


def test_an_error_of_training_hides_none_of_a_checkpoint(tmp_path, writes, capsys):
    """The error of training is raised, and that of the checkpoint is a line."""
    writes["before"] = lambda folder: (slowly(folder), full_disk(folder))
    with pytest.raises(Interrupted):
        run(make_config(tmp_path), crash_at(8))
    assert "a checkpoint could not be saved ([Errno 28] No space left on device" in capsys.readouterr().err
    assert checkpoints(tmp_path) == []


def test_a_second_signal_gives_the_checkpoint_up(tmp_path, writes):
    reached, go_on = threading.Event(), threading.Event()
    writes["before"] = at_second(lambda folder: (reached.set(), go_on.wait(20)))

    def prepare_engine(engine):
        original = engine.train_step

        def train_step(tokens, lr, step):
            if step == 15:
                assert reached.wait(20)
                signal.raise_signal(signal.SIGINT)
                threading.Timer(0.1, go_on.set).start()
                signal.raise_signal(signal.SIGINT)
            return original(tokens, lr, step)

        engine.train_step = train_step

    config = make_config(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(config, prepare_engine)
    assert checkpoints(tmp_path) == ["step-00000007"] and no_thread_is_left()
    writes["before"] = lambda folder: None
    assert run(config)[0].finished


def test_a_second_signal_does_not_wait_for_what_takes_long(tmp_path, writes, monkeypatch):
    monkeypatch.setattr(saving, "_PATIENCE", 0.05)
    go_on, began = threading.Event(), []
    writes["before"] = lambda folder: (began.append(time.monotonic()), go_on.wait(20))

    def prepare_engine(engine):
        signal_at(7)(engine)
        original = engine.train_step

        def train_step(tokens, lr, step):
            metrics = original(tokens, lr, step)
            if step == 7:  # the loop is about to wait for the checkpoint of step 7
                threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
            return metrics

        engine.train_step = train_step

    with pytest.raises(KeyboardInterrupt):
        run(make_config(tmp_path), prepare_engine)
    assert time.monotonic() - began[0] < 10
    go_on.set()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "checkpoint"]
    thread.join(20)
    assert checkpoints(tmp_path) == []


def test_a_copy_goes_into_the_memory_of_the_last_one(tmp_path):
    given, made = [], []

    def prepare_engine(engine):
        original = engine.export_state

        def export_state(into):
            given.append(into)
            made.append(original(into))
            return made[-1]

        engine.export_state = export_state

    run(make_config(tmp_path), prepare_engine)
    assert given == [{}, made[0]] and given[1] is made[0]
