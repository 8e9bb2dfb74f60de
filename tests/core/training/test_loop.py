import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from slm_core.errors import UserError
from slm_core.json_files import write_sealed
from slm_core.runs.checkpoints import list_checkpoints
from slm_core.training.divergence import first_not_finite
from slm_core.training.loop import train
from slm_core.training.metrics import FIELDS, read_metrics
from tests.core.fake_engine import BigramDecoder, BigramEngine, change, make_config

TIMES = {"tokens_per_second", "peak_memory_bytes"}


class Interrupted(Exception):
    """Stands for a crash in the middle of an update."""


def run(config, prepare_engine=lambda engine: None, **kwargs):
    engines = []

    def build(config, vocab_size, weights):
        engines.append(BigramEngine(config, vocab_size))
        prepare_engine(engines[-1])
        return engines[-1]

    result = train(config, build, kwargs.pop("framework", "torch"), **kwargs)
    return result, engines[-1] if engines else None


def crash_at(step):
    def prepare_engine(engine):
        original = engine.train_step

        def train_step(tokens, lr, done):
            if done == step:
                raise Interrupted
            return original(tokens, lr, done)

        engine.train_step = train_step

    return prepare_engine


def signal_at(step):
    """Asks for a stop during the update after `step`."""

    def prepare_engine(engine):
        original = engine.train_step

        def train_step(tokens, lr, done):
            if done == step:
                signal.raise_signal(signal.SIGINT)
            return original(tokens, lr, done)

        engine.train_step = train_step

    return prepare_engine


def lines(result):
    rows = read_metrics(result.folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of 20 steps."""
    return run(make_config(tmp_path_factory.mktemp("whole")))


def test_every_due_line_is_there_in_order(whole):
    rows = lines(whole[0])
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 3, 6, 9, 12, 15, 18, 20]
    assert [row["step"] for row in rows if row["split"] == "eval"] == [5, 10, 15, 20]
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert all(row["tokens"] == row["step"] * 4 * 16 for row in rows)


def test_lines_have_exactly_the_documented_fields(whole):
    for line in (whole[0].folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert tuple(row) == FIELDS
        empty = {name for name, value in row.items() if value is None}
        expected = (
            {"lr", "grad_norm", "tokens_per_second", "loss_scale", "skipped"}
            if row["split"] == "eval"
            else {"accuracy"}
        )
        assert empty == expected


def test_it_learns_and_says_how_it_ended(whole):
    result, engine = whole
    rows = lines(result)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert result.finished and result.step == 20 and result.eval_loss == rows[-1]["loss"]
    loss_sum, tokens, correct = map(sum, zip(*(engine.eval_step(batch) for batch in _validation(result)), strict=True))
    assert result.eval_loss == loss_sum / tokens and rows[-1]["accuracy"] == correct / tokens


def _validation(result):
    from slm_core import data

    config = make_config(result.folder.parent.parent)
    return data.validation_batches(data.prepare(config.data), 16, 4, 3, 0)


def test_metrics_are_fetched_one_update_late_unless_something_is_due(whole):
    calls = [call for call in whole[1].calls if call[0] in ("train", "fetch")]
    assert calls[:6] == [("train", 0), ("train", 1), ("fetch", 0), ("train", 2), ("fetch", 1), ("train", 3)]
    assert calls.index(("fetch", 4)) < calls.index(("train", 5))  # step 5 evaluates, so it is waited for


def test_details_are_of_the_weights_before_an_update_and_change_no_line(whole, tmp_path):
    result, engine = run(make_config(tmp_path, log_details_every=6))
    rows = read_metrics(result.folder / "details.jsonl")
    assert [row["step"] for row in rows] == [1, 6, 12, 18, 20]
    assert [row["activation_rms/layers.0"] for row in rows] == [0.5, 5.5, 11.5, 17.5, 19.5]
    calls = [call for call in engine.calls if call[0] in ("train", "fetch", "details")]
    at = calls.index(("details", 5))
    assert calls[at - 1 : at + 2] == [("fetch", 4), ("details", 5), ("train", 5)]
    assert lines(result) == lines(whole[0]) and (engine.weights == whole[1].weights).all()
    assert not (whole[0].folder / "details.jsonl").exists()


@pytest.mark.parametrize("step", [5, 8, 13])
def test_a_crash_leaves_no_trace_in_the_details(tmp_path, step):
    config = make_config(tmp_path, log_details_every=3)
    expected = read_metrics(run(change(config, run__name="whole"))[0].folder / "details.jsonl")
    with pytest.raises(Interrupted):
        run(config, crash_at(step))
    assert read_metrics(run(config)[0].folder / "details.jsonl") == expected


def test_details_are_written_of_an_update_that_ends_the_run(tmp_path):
    def prepare_engine(engine):
        engine.metrics_at[11] = {"loss": math.nan}

    with pytest.raises(UserError, match="at step 12"):
        run(make_config(tmp_path, log_details_every=12), prepare_engine)
    rows = read_metrics(tmp_path / "models" / "run" / "details.jsonl")
    assert [row["step"] for row in rows] == [1, 12]


def test_checkpoints_and_samples(whole):
    folder = whole[0].folder
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == ["step-00000014", "step-00000020"]
    assert (folder / "checkpoints" / "latest").read_text() == "step-00000020\n"
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["step-00000010.txt", "step-00000020.txt"]
    from slm_core import data

    dataset = data.prepare(make_config(folder.parent.parent).data)
    prompt = dataset.tokenizer.decode([int(token) for token in dataset.tokens("validation")[:4]])
    texts = [(folder / "samples" / f"step-000000{step}.txt").read_text() for step in (10, 20)]
    assert all(text.startswith(prompt) and len(text) > len(prompt) for text in texts)
    assert any((folder / "tensorboard").iterdir())


@pytest.mark.parametrize("step", [0, 1, 4, 6, 7, 10, 13, 19])
def test_a_crash_at_any_step_leaves_no_trace_in_the_metrics(whole, tmp_path, step):
    config = make_config(tmp_path)
    with pytest.raises(Interrupted):
        run(config, crash_at(step))
    result, engine = run(config)
    assert engine.calls[0] == ("train", step // 7 * 7)
    assert lines(result) == lines(whole[0])
    assert (engine.weights == whole[1].weights).all()


@pytest.mark.parametrize("step", [0, 1, 2, 4, 6, 9, 13, 18])
def test_a_signal_at_any_step_saves_there_and_resumes_exactly(whole, tmp_path, step):
    config = make_config(tmp_path)
    result, _ = run(config, signal_at(step))
    assert (result.step, result.finished) == (step + 1, False)
    assert lines(result) == [row for row in lines(whole[0]) if row["step"] <= step + 1]
    result, engine = run(config)
    assert engine.calls[0] == ("train", step + 1)
    assert result.finished and lines(result) == lines(whole[0])
    assert (engine.weights == whole[1].weights).all()


def test_a_signal_in_the_last_update_finishes_the_run(tmp_path):
    result, _ = run(make_config(tmp_path), signal_at(19))
    assert result.finished


def test_samples_and_checkpoints_do_not_change_the_loss_curve(whole, tmp_path):
    result, _ = run(make_config(tmp_path, sample_every=0, checkpoint_every=3, keep_checkpoints=1))
    assert lines(result) == lines(whole[0])
    assert not (result.folder / "samples").exists()
    assert len(list_checkpoints(result.folder / "checkpoints")) == 1


def test_the_second_signal_aborts_at_once(tmp_path):
    def twice(engine):
        signal_at(3)(engine)
        first = engine.train_step

        def train_step(tokens, lr, done):
            metrics = first(tokens, lr, done)
            if done == 3:
                signal.raise_signal(signal.SIGINT)
            return metrics

        engine.train_step = train_step

    before = signal.getsignal(signal.SIGTERM)
    config = make_config(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(config, twice)
    assert signal.getsignal(signal.SIGTERM) is before
    assert not list_checkpoints(tmp_path / "models" / "run" / "checkpoints")
    assert run(config)[0].finished


def test_it_trains_outside_the_main_thread(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(make_config(tmp_path, steps=4))[0]))
    thread.start()
    thread.join()
    assert results[0].finished


def test_a_complete_run_says_so_without_building_an_engine(tmp_path, capsys):
    config = make_config(tmp_path, steps=4)
    first, _ = run(config)
    capsys.readouterr()
    result, engine = run(config)
    assert engine is None and result == first
    assert "already complete (4 steps)" in capsys.readouterr().out


def test_a_new_run_is_made_beside_the_old_one(tmp_path):
    config = make_config(tmp_path, steps=4)
    run(config)
    anew = change(config, run__resume=False)
    assert run(anew)[0].folder.name == "run-2"
    assert run(anew)[0].folder.name == "run-3"


@pytest.mark.parametrize("bad", ["loss", "grad_norm"])
def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path, bad):
    def prepare_engine(engine):
        engine.metrics_at[13] = {bad: math.nan}

    with pytest.raises(UserError, match=rf"optim.lr=0.01: {bad} became nan at step 14; lower .*step-00000007") as error:
        run(make_config(tmp_path), prepare_engine)
    assert "\n" not in str(error.value)
    checkpoints = list_checkpoints(tmp_path / "models" / "run" / "checkpoints")
    assert [path.name for path in checkpoints] == ["step-00000007"]


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    def prepare_engine(engine):
        real = engine.train_step

        def train_step(tokens, lr, step):
            metrics = real(tokens, lr, step)
            if step == 13:  # the last update before a checkpoint: no later loss would show it
                engine.weights[0, 0] = math.inf
            return metrics

        engine.train_step = train_step

    with pytest.raises(UserError, match=r"embed.weight is not finite after step 14.*the last good .*step-00000007"):
        run(make_config(tmp_path, eval_every=0, sample_every=0), prepare_engine)
    assert [path.name for path in list_checkpoints(tmp_path / "models" / "run" / "checkpoints")] == ["step-00000007"]


def test_a_sample_that_cannot_be_drawn_is_a_line(tmp_path):
    def prepare_engine(engine):
        engine.decoder = lambda: BigramDecoder(engine.weights * math.nan, engine.config.data.seq_len)

    result, _ = run(make_config(tmp_path), prepare_engine)
    assert result.finished
    assert "no text: cannot sample" in (result.folder / "samples" / "step-00000020.txt").read_text()


def test_the_first_place_that_is_not_finite_is_named(tmp_path):
    def prepare_engine(engine):
        engine.metrics_at[13] = {"loss": math.nan}
        engine.details = lambda tokens, step: {
            "gradient_norm/layers.1.mlp.up_proj.weight": math.nan, "activation_rms/layers.1": math.inf,
            "activation_rms/layers.10.attention": math.nan, "activation_rms/layers.1.mlp": math.inf,
            "weight_norm/embed.weight": 1.0,
        }  # fmt: skip

    with pytest.raises(UserError, match=r"step 14 \(the first activation that is not finite is that of layers.1.mlp\)"):
        run(make_config(tmp_path), prepare_engine)


def test_the_last_gradient_is_the_first_of_the_backward_pass():
    names = [
        "embed.weight",
        "layers.0.mlp.up_proj.weight",
        "layers.2.attention.q_proj.weight",
        "layers.2.mlp_norm.weight",
    ]
    gradients = {f"gradient_norm/{name}": math.inf for name in names}
    assert "gradient that is not finite is that of layers.2.mlp_norm.weight" in first_not_finite(gradients)
    assert "final_norm.weight" in first_not_finite(gradients | {"gradient_norm/final_norm.weight": math.nan})
    assert first_not_finite({"gradient_norm/embed.weight": 1.0, "weight_norm/embed.weight": math.inf}) == ""


def test_a_run_that_is_refused_leaves_no_folder(tmp_path):
    def refuse(config, vocab_size, weights):
        raise UserError("it does not fit")

    config = make_config(tmp_path)
    with pytest.raises(UserError, match="does not fit"):
        train(config, refuse, "torch")
    assert not (tmp_path / "models" / "run").exists()
    begun = change(config, train__steps=4)
    assert run(begun)[0].finished
    with pytest.raises(UserError):
        train(change(begun, train__steps=6), refuse, "torch")
    assert run(begun)[0].step == 4  # what was there stays


def skip(steps, **values):
    def prepare_engine(engine):
        for step in steps:
            engine.metrics_at[step] = {"skipped": 1.0, "grad_norm": math.inf} | values

    return prepare_engine


def test_skipped_updates_are_counted_across_a_resume(tmp_path):
    config = change(make_config(tmp_path), precision__compute="float16")
    skipping = skip([1, 2, 11], loss=math.inf)

    def prepare_engine(engine):
        skipping(engine)
        signal_at(5)(engine)

    run(config, prepare_engine)
    rows = {row["step"]: row for row in lines(run(config, skipping)[0]) if row["split"] == "train"}
    assert [rows[step]["skipped"] for step in (1, 3, 9, 12, 20)] == [0, 2, 2, 3, 3]
    assert rows[3]["loss"] is None and rows[3]["grad_norm"] is None  # JSON has neither NaN nor infinity


def test_many_skipped_updates_in_a_row_stop_the_run(tmp_path):
    config = change(make_config(tmp_path, steps=80, checkpoint_every=20), precision__compute="float16")
    with pytest.raises(UserError, match="50 updates in a row .* at step 55"):
        run(config, skip(range(5, 80)))


def test_the_number_of_skipped_updates_that_stop_a_run_is_a_field_and_the_place_is_named(tmp_path):
    def prepare_engine(engine):
        skip(range(5, 20))(engine)
        engine.details = lambda tokens, step: {"activation_rms/layers.1.mlp": math.inf}

    config = change(make_config(tmp_path), precision__compute="float16", precision__max_skipped_in_a_row=3)
    with pytest.raises(UserError, match=r"3 updates in a row .* at step 8 \(the first activation .* of layers.1.mlp\)"):
        run(config, prepare_engine)


@pytest.mark.parametrize("compute", ["bfloat16", "auto"])
def test_a_skipped_update_excuses_no_other_precision(tmp_path, compute):
    config = change(make_config(tmp_path), precision__compute=compute)
    with pytest.raises(UserError, match="grad_norm became inf at step 2"):
        run(config, skip([1]))


def test_evaluation_goes_by_micro_batches(whole, tmp_path):
    result, engine = run(make_config(tmp_path, micro_batch_size=2))
    assert {call[1] for call in engine.calls if call[0] == "eval"} == {(2, 17)}
    losses, reference = ([row["loss"] for row in lines(each) if row["split"] == "eval"] for each in (result, whole[0]))
    assert losses == pytest.approx(reference, rel=1e-14)


def test_resolved_settings_are_recorded_and_used_again(whole, tmp_path):
    built = []

    def resolve_auto(micro_batch_size):
        def prepare_engine(engine):
            built.append(engine.config.train.micro_batch_size)
            if not built[-1]:
                engine.config = change(engine.config, train__micro_batch_size=micro_batch_size)
            if len(built) < 3:
                crash_at(8)(engine)

        return prepare_engine

    config = make_config(tmp_path)
    for micro_batch_size in (2, 4):
        with pytest.raises(Interrupted):
            run(config, resolve_auto(micro_batch_size))
        description = json.loads((tmp_path / "models" / "run" / "config.json").read_text())
        assert description["resolved"] == {"train.micro_batch_size": 2}
        assert description["config"]["train"]["micro_batch_size"] == 0
    result, engine = run(config, resolve_auto(4))
    assert built == [0, 2, 2] and result.finished
    assert {call[1] for call in engine.calls if call[0] == "eval"} == {(2, 17)}
    assert (engine.weights == whole[1].weights).all()


def test_settings_that_no_longer_fit_are_resolved_again_except_the_dtype(tmp_path, capsys):
    def fits(most, begun):
        def prepare_engine(engine):
            given = engine.config
            if given.train.micro_batch_size > most:
                raise UserError("it does not fit")
            assert given.precision.compute == begun
            engine.config = change(given, train__micro_batch_size=most, precision__compute="float32")

        return prepare_engine

    def then_stops(engine):
        fits(4, "auto")(engine)
        crash_at(8)(engine)

    config = make_config(tmp_path)
    with pytest.raises(Interrupted):
        run(config, then_stops)
    assert run(config, fits(2, "float32"))[0].finished
    printed = capsys.readouterr().out
    assert "does not fit here now: it is resolved anew" in printed and "2 (as resolved before)" in printed
    description = json.loads((tmp_path / "models" / "run" / "config.json").read_text())
    assert description["resolved"] == {"precision.compute": "float32", "train.micro_batch_size": 2}


def test_a_run_of_an_older_version_is_resolved_again(tmp_path):
    config = make_config(tmp_path)
    with pytest.raises(Interrupted):
        run(config, crash_at(8))
    file = tmp_path / "models" / "run" / "config.json"
    description = json.loads(file.read_text())
    assert description.pop("resolved") == {}
    write_sealed(file, description)
    assert run(config)[0].finished
    after = json.loads(file.read_text())
    assert after == description | {"resolved": {}, "checksum": after["checksum"]}


@pytest.mark.parametrize("every", [0, 100])
def test_the_last_step_always_evaluates_and_saves(tmp_path, every):
    config = make_config(tmp_path, steps=5, eval_every=every, checkpoint_every=every, sample_every=100, log_every=100)
    result, _ = run(config)
    assert [(row["step"], row["split"]) for row in lines(result)] == [(1, "train"), (5, "train"), (5, "eval")]
    assert [path.name for path in (result.folder / "samples").iterdir()] == ["step-00000005.txt"]
    assert len(list_checkpoints(result.folder / "checkpoints")) == 1


def test_a_run_with_another_seed_is_another_run(whole, tmp_path):
    result, _ = run(dataclasses.replace(make_config(tmp_path), seed=1))
    assert lines(result)[0]["loss"] != lines(whole[0])[0]["loss"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_a_process_save_and_exit_0(tmp_path, number):
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.core.fake_engine", str(tmp_path), "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    printed = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("step      3/200"):
            process.send_signal(number)
            break
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "saving, then stopping" in errors
    step = int(rest.split("RESULT ")[1].split()[0])
    assert 3 <= step < 200 and "the same command continues it" in rest
    assert (tmp_path / "models/run/checkpoints/latest").read_text() == f"step-{step:08d}\n"
    assert any(line.startswith("step      1/200  loss 5.") and " tok/s  0.1 GB  eta " in line for line in printed)
