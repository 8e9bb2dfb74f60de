import json
import math
import subprocess
import sys

import pytest

from slm_core.training.metrics import FIELDS, Metrics, read_metrics


def write(folder, steps, begin=0, tensorboard=True):
    metrics = Metrics(folder, begin, tensorboard)
    for step in steps:
        metrics.write(step=step, split="train", loss=1 / step, lr=0.1, tokens=step)
    metrics.close()


def test_a_line_has_every_field_in_order_and_is_there_at_once(tmp_path):
    metrics = Metrics(tmp_path, 0, tensorboard=False)
    metrics.write(step=1, split="eval", loss=0.1 + 0.2)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert tuple(json.loads(text)) == FIELDS and '"loss": 0.30000000000000004' in text and '"lr": null' in text
    metrics.close()
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_null(tmp_path, value):
    metrics = Metrics(tmp_path, 0, tensorboard=True)
    assert metrics.write(step=1, split="train", loss=value)["loss"] is None
    metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["loss"] is None


def test_a_field_that_does_not_exist(tmp_path):
    with pytest.raises(TypeError, match="no field 'los'"):
        Metrics(tmp_path, 0, tensorboard=False).write(step=1, split="train", los=1.0)


def test_a_resume_cuts_back_to_the_checkpoint(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    write(tmp_path, [3, 4, 5], begin=2)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("tail", ['{"step": 3, "spl', '{"step": 3}garbage\n{"step": 4}\n', "\0\0\0\n"])
def test_a_torn_tail_is_dropped(tmp_path, tail):
    write(tmp_path, [1, 2], tensorboard=False)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + tail)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    write(tmp_path, [3], begin=2, tensorboard=False)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_tensorboard_reads_the_same_numbers_after_a_resume(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, [1, 2, 3, 4])
    write(tmp_path, [3, 4, 5], begin=2)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"loss/train", "lr/train", "tokens/train"}
    scalars = events.Scalars("loss/train")
    assert [event.step for event in scalars] == [1, 2, 3, 4, 5]
    assert [event.value for event in scalars] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])


def test_no_framework_is_imported(tmp_path):
    code = (
        "import sys; from pathlib import Path; from slm_core.training.metrics import Metrics;"
        "import slm_core.training.loop;"
        "m = Metrics(Path(sys.argv[1]), 0, True); m.write(step=1, split='train', loss=1.0); m.close();"
        "print(sorted({'torch', 'jax', 'tensorflow'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert output.stdout == "[]\n"
