"""How a run starts: alone, from its checkpoint, from the checkpoint of another run, or as a branch of one."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from slm_core.config import Precision
from slm_core.errors import UserError
from slm_core.runs.checkpoints import list_checkpoints
from slm_core.runs.description import add_to_description
from slm_core.runs.origin import inherited, open_source
from slm_core.runs.saved import load_run
from slm_core.runs.states import open_state
from slm_core.training.loop import train
from slm_core.training.metrics import read_metrics
from tests.core.fake_engine import BigramEngine, change, make_config

MEASURED = {"tokens_per_second", "peak_memory_bytes"}


class FlaxBigram(BigramEngine):
    """The other twin, which computes the same."""

    framework = "flax"


ENGINES = {"torch": BigramEngine, "flax": FlaxBigram}


def run(config, framework="torch", engines=ENGINES):
    """Trains. Returns the result and the tokens and rates that the engine was given."""
    given = []

    def build(config, vocab_size, weights):
        engine = engines[framework](config, vocab_size)
        original = engine.train_step

        def train_step(tokens, lr, step):
            given.append((step, lr, tokens.copy()))
            return original(tokens, lr, step)

        engine.train_step = train_step
        return engine

    return train(config, build, framework), given


def stopped(config, step, framework="torch", **values):
    """Returns the folder of a run whose training ended at a step, long before the last one of `config`."""
    whole = run(change(config, run__name="whole", **values), framework)[0].folder
    folder = shutil.copytree(whole, whole.with_name("other"))
    for checkpoint in list_checkpoints(folder / "checkpoints"):
        if checkpoint.name != f"step-{step:08d}":
            shutil.rmtree(checkpoint)
    (folder / "checkpoints" / "latest").write_text(f"step-{step:08d}\n")
    return folder


@pytest.fixture
def config(tmp_path):
    """Twenty steps with a checkpoint and an evaluation at step 10."""
    config = make_config(tmp_path, name="", checkpoint_every=10, keep_checkpoints=3, sample_tokens=3, log_every=1)
    return change(config, precision=Precision(params="float64", compute="float64"))


def lines(folder):
    rows = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def same_state(a, b):
    a, b = (open_state(load_run(folder).checkpoint / "state") for folder in (a, b))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def refusal(config, framework="torch"):
    with pytest.raises(UserError) as caught:
        run(config, framework)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def described(folder):
    return json.loads((folder / "config.json").read_text())


def test_another_framework_goes_on_as_if_nothing_had_happened(config, capsys):
    """The new run has the whole record, the same tokens and the same end. The other run is as it was."""
    other = stopped(config, 10)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    result, given = run(change(config, run__resume_from=str(other), run__name="mine"), "flax")
    assert result.folder.name == "mine" and [step for step, _, _ in given] == list(range(10, 20))
    whole = result.folder.with_name("whole")
    assert lines(result.folder) == lines(whole) and same_state(result.folder, whole)
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before
    saved = described(result.folder)
    assert saved["framework"] == "flax"
    assert saved["origin"] == {
        "run": str(other), "framework": "torch", "step": 10, "branch": False, "changed": {},
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert f"{other} after step 10, trained in PyTorch" in printed
    assert "framework torch -> flax: expected validation loss" in printed and "e-12 nats" in printed
    assert "checked: validation loss" in printed


def test_a_run_goes_on_in_its_own_folder_in_the_other_framework(config):
    other = stopped(config, 10)
    assert f"--config.run.resume_from={other}" in refusal(change(config, run__name="other"), "flax")
    result, given = run(change(config, run__name="other", run__resume_from=str(other)), "flax")
    assert result.folder == other and [step for step, _, _ in given] == list(range(10, 20))
    assert lines(other) == lines(other.with_name("whole")) and same_state(other, other.with_name("whole"))
    saved = described(other)
    assert saved["framework"] == "flax"
    assert saved["changes"] == [{"step": 10, "changed": {}, "framework": ["torch", "flax"]}]
    assert "was trained by the flax twin (now torch)" in refusal(change(config, run__name="other"))


def test_there_and_back_without_an_update_is_bitwise_the_same(config):
    """A finished run has nothing left to train, so that its checkpoint moves as it is."""
    other = run(change(config, run__name="other"))[0].folder
    there, trained = run(change(config, run__name="there", run__resume_from=str(other)), "flax")
    back, again = run(change(config, run__name="back", run__resume_from=str(there.folder)), "torch")
    assert not trained and not again and there.step == back.step == 20
    assert same_state(other, there.folder) and same_state(other, back.folder)


def test_an_interrupted_continuation_needs_its_source_no_more(config):
    other = stopped(config, 10)
    mine = change(config, run__name="mine", run__resume_from=str(other))

    class Crashing(FlaxBigram):
        def train_step(self, tokens, lr, step):
            if step == 12:
                raise RuntimeError("power failure")
            return super().train_step(tokens, lr, step)

    with pytest.raises(RuntimeError):
        run(mine, "flax", {"flax": Crashing})
    shutil.rmtree(other)
    result, given = run(mine, "flax")
    assert [step for step, _, _ in given] == list(range(10, 20))
    assert lines(result.folder) == lines(result.folder.with_name("whole"))


def test_a_continuation_is_not_mixed_up_with_another_run(config):
    other = stopped(config, 10)
    run(change(config, run__name="mine"))
    message = refusal(change(config, run__name="mine", run__resume_from=str(other)))
    assert "mine is there already, and was not started from another run" in message
    started = change(config, run__name="second", run__resume_from=str(other))
    run(started)
    assert run(started)[0].finished  # the same command again
    moved = shutil.copytree(other, other.with_name("moved"))
    assert f"was started from {other}" in refusal(change(started, run__resume_from=str(moved)))
    assert run(change(started, run__resume=False))[0].folder.name == "second-2"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim__lr": 0.5}, "optim.lr: .*other was begun with optim.lr=0.01 .now 0.5.; keep its values, or leave out"),
        ({"train__batch_size": 2}, "train.batch_size: .*branch off"),
        ({"train__steps": 9}, "train.steps=9: .*other has done 10 already"),
        ({"run__resume_from": "nothing"}, "run.resume_from: nothing: no such run"),
    ],
)
def test_other_settings_are_refused_by_field(config, values, message):
    other = stopped(config, 10)
    with pytest.raises(UserError, match=message):
        run(change(config, **({"run__resume_from": str(other), "run__name": "mine"} | values)), "flax")
    assert not (other.parent / "mine").exists()


def test_other_text_is_refused(config):
    other = stopped(config, 10)
    text = Path(config.data.path)
    text.write_text(text.read_text().replace("fox", "cat"))
    message = refusal(change(config, run__resume_from=str(other), run__name="mine"), "flax")
    assert "the text changed since" in message and not (other.parent / "mine").exists()


def test_safe_settings_change_in_the_same_run_and_are_recorded(config, capsys):
    other = stopped(config, 10)
    longer = change(
        config, run__name="other", train__steps=25, train__log_every=2, train__eval_every=0, train__micro_batch_size=2
    )
    result, given = run(longer)
    assert result.step == 25 and [step for step, _, _ in given] == list(range(10, 25))
    saved = described(other)
    assert saved["config"]["train"]["steps"] == 25
    (changed,) = saved["changes"]
    assert changed["step"] == 10 and changed["changed"]["train.steps"] == [20, 25]
    assert "train.steps 20 -> 25" in capsys.readouterr().out
    assert run(longer)[0].finished and len(described(other)["changes"]) == 1


def test_fewer_steps_than_done_are_refused(config):
    stopped(config, 10)
    assert "train.steps=9: " in refusal(change(config, run__name="other", train__steps=9))


def test_a_branch_has_other_settings_and_the_same_tokens(config, capsys):
    other = stopped(config, 10)
    branch = change(config, run__name="other", run__branch="faster", optim__lr=0.05, train__steps=22)
    result, given = run(branch)
    assert result.folder == other.with_name("faster") and result.step == 22
    _, whole = run(change(config, run__name="again"))
    for (step, lr, tokens), (expected_step, expected_lr, expected) in zip(given, whole[10:], strict=False):
        assert step == expected_step and lr > 4 * expected_lr
        np.testing.assert_array_equal(tokens, expected)
    assert lines(result.folder)[:11] == lines(other)[:11]  # the record before the branch
    origin = described(result.folder)["origin"]
    assert origin["branch"] and origin["changed"] == {"optim.lr": [0.01, 0.05], "train.steps": [20, 22]}
    assert "branch of" in capsys.readouterr().out
    assert run(branch)[0].finished  # the same command again
    assert load_run(other).checkpoint.name == "step-00000010"


def test_a_branch_is_not_mixed_up_with_another_run(config):
    stopped(config, 10)
    run(change(config, run__name="mine"))
    message = refusal(change(config, run__name="other", run__branch="mine"))
    assert message.startswith("run.branch=mine: ") and "was not started from another run" in message


@pytest.mark.parametrize("values", [{"seed": 5}, {"train__batch_size": 2}, {"data__seq_len": 8}])
def test_a_branch_with_other_tokens_starts_the_data_anew(config, values):
    other = stopped(config, 10)
    branch = change(config, run__resume_from=str(other), run__branch="b", **values)
    _, given = run(branch)
    _, alone = run(change(config, run__name="alone", **values))
    for (_, _, tokens), (_, _, expected) in zip(given, alone, strict=False):
        np.testing.assert_array_equal(tokens, expected)


def test_a_branch_with_another_text(config, tmp_path, capsys):
    other = stopped(config, 10)
    text = tmp_path / "second.txt"
    text.write_text("".join(f"another text, line {i}: {i * i}.\n" for i in range(300)))
    branch = change(config, run__resume_from=str(other), run__branch="b", data__path=str(text))
    result, given = run(branch, "flax")
    assert result.finished and len(given) == 10
    changed = described(result.folder)["origin"]["changed"]
    assert changed["data.path"] == [config.data.path, str(text)] and "data.fingerprint" in changed
    assert "cannot be compared (the validation batches are others)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim__kind": "lion"}, "optim.kind: .* a branch keeps it, because the saved state is that of its optimizer"),
        ({"finetune__kind": "lora"}, "finetune.kind: .*those of its adapters"),
        ({"train__steps": 10}, "train.steps=10: .* has done 10 already; give more than that"),
    ],
)
def test_what_a_branch_cannot_change_is_refused_by_field(config, values, message):
    other = stopped(config, 10)
    with pytest.raises(UserError, match=message):
        run(change(config, run__resume_from=str(other), run__branch="b", **values))
    assert not (other.parent / "b").exists()


def test_a_branch_and_another_twin_keep_the_dtype_of_what_was_resolved(config):
    other = stopped(config, 10)
    resolved = {"precision.compute": "float64", "train.micro_batch_size": 4}
    add_to_description(other, resolved=resolved)
    source = change(config, run__resume_from=str(other), run__name="mine")
    branch = change(config, run__resume_from=str(other), run__branch="b", train__batch_size=2)
    dtype = {"precision.compute"}
    for case, framework, kept in ((source, "torch", {*resolved}), (source, "flax", dtype), (branch, "torch", dtype)):
        found = open_source(case, framework, "default")
        assert inherited(found, case, framework) == {name: resolved[name] for name in kept}


def test_a_branch_of_another_model_is_refused(config):
    import dataclasses

    other = stopped(config, 10)
    deeper = change(config, model=dataclasses.replace(config.model, n_layers=9))
    assert refusal(change(deeper, run__resume_from=str(other), run__branch="b")).startswith("model.n_layers: ")
    learned = dataclasses.replace(config.model, position=dataclasses.replace(config.model.position, kind="learned"))
    other = stopped(change(config, model=learned, run__dir=config.run.dir + "2"), 10)
    longer = change(config, model=learned, data__seq_len=20, run__resume_from=str(other), run__branch="b")
    assert "data.seq_len: " in refusal(longer)


def test_a_loss_that_is_not_the_recorded_one_stops_the_run(config):
    class Other(FlaxBigram):
        def restore(self, folder):
            super().restore(folder)
            self.weights = self.weights * 1.001

    other = stopped(config, 10)
    mine = change(config, run__name="mine", run__resume_from=str(other))
    with pytest.raises(UserError, match="nats away, and .*e-12 was expected; nothing was trained"):
        run(mine, "flax", {"flax": Other})
    assert len(list_checkpoints(other.parent / "mine" / "checkpoints")) == 1


def test_another_dtype_is_expected_to_be_farther_away(config, capsys):
    other = stopped(config, 10)
    half = Precision(params="float32", compute="float16")
    run(change(config, run__resume_from=str(other), run__branch="b", precision=half))
    printed = capsys.readouterr().out
    assert "compute float64 -> float16, params float64 -> float32: expected" in printed
    assert 0.02 < float(re.search(r"within (\S+) nats", printed)[1]) < 0.2  # 2% of the loss


def test_a_step_without_an_evaluation_cannot_be_checked_and_says_so(config, capsys):
    other = stopped(config, 10, train__eval_every=3)
    run(change(config, run__resume_from=str(other), run__name="mine", train__eval_every=3), "flax")
    assert "cannot be compared (no evaluation of these batches at that step)" in capsys.readouterr().out


def test_the_same_twin_on_the_same_device_checks_nothing(config, capsys):
    stopped(config, 10)
    capsys.readouterr()
    run(change(config, run__name="other"))
    printed = capsys.readouterr().out
    assert "expected" not in printed and "compared" not in printed


def test_an_imported_model_has_no_state_to_continue(config):
    from tests.core.runs.test_folder import imported

    folder = imported(config)
    message = refusal(change(config, run__resume_from=str(folder), run__name="mine"))
    assert "an imported model has weights and no state" in message and "configs/finetune.py" in message


def test_the_newest_whole_checkpoint_of_a_source_is_used_and_said_so(config, caplog):
    other = run(change(config, run__name="other"))[0].folder
    (weights,) = (load_run(other).checkpoint / "state").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    result, given = run(change(config, run__resume_from=str(other), run__name="mine"), "flax")
    assert [step for step, _, _ in given] == list(range(10, 20)) and described(result.folder)["origin"]["step"] == 10
    assert "step-00000020 is damaged" in caplog.text and "step-00000010 is used" in caplog.text


def test_a_damaged_source_is_named_and_nothing_begins(config):
    other = stopped(config, 10)
    (load_run(other).checkpoint / "loop.json").write_text("{")
    assert str(other) in refusal(change(config, run__resume_from=str(other), run__name="mine"))
    assert not list_checkpoints(other.parent / "mine" / "checkpoints")
