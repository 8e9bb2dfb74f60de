"""train.keep_best keeps the checkpoint of the evaluation with the lowest loss beside the newest ones."""

import shutil

import pytest

from slm_core.errors import UserError
from slm_core.protocols import Evaluation
from slm_core.runs.checkpoints import list_checkpoints, read_loop
from slm_core.runs.chosen import at_step
from slm_core.runs.saved import load_run
from slm_core.training.loop import train
from tests.core.fake_engine import BigramEngine, change, make_config
from tests.core.training.test_loop import Interrupted, crash_at, lines

LOSSES = {5: 3.0, 10: 1.0, 15: 2.0, 20: 1.5}
"""{step: loss of its evaluation}."""


class Judged(BigramEngine):
    """An engine whose evaluations have given losses."""

    losses = LOSSES

    def train_step(self, tokens, lr, step):
        self.done = step + 1
        return super().train_step(tokens, lr, step)

    def eval_step(self, tokens):
        return Evaluation(self.losses[self.done] * 10, 10, 5)


class JudgedFlax(Judged):
    framework = "flax"


def run(config, engine_class=Judged, prepare_engine=lambda engine: None):
    def build(config, vocab_size, weights):
        engine = engine_class(config, vocab_size)
        prepare_engine(engine)
        return engine

    return train(config, build, engine_class.framework)


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path, name="", checkpoint_every=7, keep_checkpoints=1, keep_best=True)


def named(config, name):
    return change(config, run__name=name)


def steps(result):
    return [int(path.name.removeprefix("step-")) for path in list_checkpoints(result.folder / "checkpoints")]


def best(folder):
    return int(at_step(load_run(folder), "best").checkpoint.name.removeprefix("step-"))


def test_the_best_checkpoint_stays_beside_the_newest(config):
    result = run(named(config, "run"))
    assert steps(result) == [10, 20] and best(result.folder) == 10
    progress = read_loop(load_run(result.folder).checkpoint).progress
    assert (progress.best_step, progress.best_loss) == (10, 1.0)
    assert (result.folder / "checkpoints" / "latest").read_text() == "step-00000020\n"


def test_it_changes_nothing_that_training_computes(config):
    kept, plain = run(named(config, "kept")), run(change(named(config, "plain"), train__keep_best=False))
    assert lines(kept) == lines(plain) and steps(plain) == [20]
    with pytest.raises(UserError, match="--step=best: .* has no best checkpoint; train.keep_best=True keeps one"):
        best(plain.folder)


@pytest.mark.parametrize("step", [5, 6, 9, 10, 12, 16, 19])
def test_it_survives_a_crash_at_any_step(config, step):
    config = named(config, "run")
    with pytest.raises(Interrupted):
        run(config, prepare_engine=crash_at(step))
    result = run(config)
    assert steps(result) == [10, 20] and best(result.folder) == 10


def interrupted(config, name="run"):
    """Returns the folder of a run that ended after step 14, with checkpoints of steps 10 and 14."""
    with pytest.raises(Interrupted):
        run(named(config, name), prepare_engine=crash_at(17))
    return load_run(f"{config.run.dir}/{name}").folder


def damage(folder, step):
    (file,) = (folder / "checkpoints" / f"step-{step:08d}" / "state").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_damaged_best_checkpoint_gives_its_place_away(config, caplog):
    folder = interrupted(config)
    damage(folder, 10)
    result = run(named(config, "run"))
    assert any("step-00000010 is damaged" in line and "no other was the best" in line for line in caplog.messages)
    assert steps(result) == [20] and best(folder) == 20  # 2.0 of step 15 was the best until 1.5 came


def test_the_next_best_takes_the_place_of_a_damaged_one(config, caplog):
    result = run(change(named(config, "run"), train__keep_checkpoints=9))
    assert steps(result) == [5, 7, 10, 14, 20] and best(result.folder) == 10
    damage(result.folder, 10)
    assert best(result.folder) == 5
    assert any("step-00000010 is damaged" in line and "step-00000005 is the best" in line for line in caplog.messages)


def test_a_missing_best_checkpoint_is_missed(config, caplog):
    folder = interrupted(config)
    shutil.rmtree(folder / "checkpoints" / "step-00000010")
    run(named(config, "run"))
    assert any("step-00000010, the best one, is missing" in line for line in caplog.messages)
    assert best(folder) == 20


def test_the_other_twin_goes_on_with_it(config):
    folder = interrupted(config)
    result = run(change(named(config, "mine"), run__resume_from=str(folder)), JudgedFlax)
    assert steps(result) == [10, 20] and best(result.folder) == 10
    own = run(change(named(config, "run"), run__resume_from=str(folder)), JudgedFlax)
    assert own.folder == folder and steps(own) == [10, 20] and best(folder) == 10


@pytest.mark.parametrize(("changed", "kept"), [({"optim__lr": 0.02}, [10, 20]), ({"train__eval_batches": 2}, [20])])
def test_a_branch_has_it_unless_it_evaluates_on_other_batches(config, changed, kept):
    folder = interrupted(config)
    settings = change(named(config, "run"), run__resume_from=str(folder), run__branch="branch", **changed)
    result = run(settings)
    assert steps(result) == kept and best(result.folder) == kept[0]


def test_a_resumed_run_that_evaluates_on_other_batches_forgets_it(config):
    interrupted(config)
    result = run(change(named(config, "run"), train__eval_batches=2))
    assert best(result.folder) == 20 and steps(result) == [20]


def test_a_run_can_keep_its_best_from_now_on(config):
    with pytest.raises(Interrupted):
        run(change(named(config, "run"), train__keep_best=False), prepare_engine=crash_at(17))
    assert best(run(named(config, "run")).folder) == 20


def test_a_loss_that_is_not_finite_is_never_the_best(config):
    class Infinite(Judged):
        losses = LOSSES | {5: float("inf"), 10: float("nan")}

    assert best(run(named(config, "run"), Infinite).folder) == 20


def test_a_step_can_be_chosen(config):
    saved = load_run(run(change(named(config, "run"), train__keep_checkpoints=9)).folder)
    assert at_step(saved, "") == saved and at_step(saved, "14").checkpoint.name == "step-00000014"
    with pytest.raises(UserError, match="--step=15: .* has no checkpoint of it; it has 5, 7, 10, 14, 20"):
        at_step(saved, "15")
    for text in ("last", "-1", "9" * 5000):
        with pytest.raises(UserError, match="give the step of a checkpoint of .*, or best"):
            at_step(saved, text)
    damage(saved.folder, 14)
    with pytest.raises(UserError, match="step-00000014: cannot be used: .* has changed"):
        at_step(saved, "14")
