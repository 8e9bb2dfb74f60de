import json
import math
import subprocess
import sys

import pytest

from slm_core.training.metrics import FIELDS, Metrics, read_metrics


class Told:
    """A tracker that remembers what it is told."""

    def __init__(self, replays=False):
        self.replays, self.calls = replays, []

    def scalars(self, step, values):
        self.calls.append((step, values))

    def text(self, step, tag, text):
        self.calls.append((step, {tag: text}))

    def close(self):
        self.calls.append("closed")


def write(folder, steps, begin=0, trackers=()):
    metrics = Metrics(folder, begin, trackers)
    for step in steps:
        metrics.write(step=step, split="train", loss=1 / step, lr=0.1, tokens=step)
    metrics.close()


def test_a_line_has_every_field_in_order_and_is_there_at_once(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.write(step=1, split="eval", loss=0.1 + 0.2)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert tuple(json.loads(text)) == FIELDS and '"loss": 0.30000000000000004' in text and '"lr": null' in text
    metrics.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_null(tmp_path, value):
    tracker = Told()
    metrics = Metrics(tmp_path, 0, [tracker])
    assert metrics.write(step=1, split="train", loss=value)["loss"] is None
    metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["loss"] is None
    assert tracker.calls == [(1, {}), "closed"]


def test_a_field_that_does_not_exist(tmp_path):
    with pytest.raises(TypeError, match="no field 'los'"):
        Metrics(tmp_path, 0).write(step=1, split="train", los=1.0)


def test_a_resume_cuts_back_to_the_checkpoint(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    write(tmp_path, [3, 4, 5], begin=2)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("tail", ['{"step": 3, "spl', '{"step": 3}garbage\n{"step": 4}\n', "\0\0\0\n"])
def test_a_torn_tail_is_dropped(tmp_path, tail):
    write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + tail)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    write(tmp_path, [3], begin=2)
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_details_are_lines_of_their_own_and_are_cut_back_as_well(tmp_path):
    for begin, steps in ((0, (1, 4, 8)), (5, (6, 8))):
        metrics = Metrics(tmp_path, begin)
        for step in steps:
            metrics.details(step, {"weight_norm/embed.weight": step / 2, "activation_rms/layers.0": math.inf})
        metrics.sync()
        metrics.close()
    rows = read_metrics(tmp_path / "details.jsonl")
    assert [row["step"] for row in rows] == [1, 4, 6, 8]
    assert rows[1] == {"step": 4, "weight_norm/embed.weight": 2.0, "activation_rms/layers.0": None}


def test_a_tracker_gets_numbers_by_tag_and_texts(tmp_path):
    tracker = Told()
    metrics = Metrics(tmp_path, 0, [tracker])
    metrics.write(step=2, split="train", loss=1.5, lr=0.1, tokens=8)
    metrics.write(step=2, split="eval", loss=2.5)
    metrics.details(3, {"weight_norm/head.weight": 4.0, "gradient_norm/head.weight": math.nan})
    metrics.sample(3, "once upon")
    metrics.close()
    assert tracker.calls == [
        (2, {"loss/train": 1.5, "lr/train": 0.1, "tokens/train": 8}),
        (2, {"loss/eval": 2.5}),
        (3, {"details/weight_norm/head.weight": 4.0}),
        (3, {"sample": "once upon"}),
        "closed",
    ]


def test_a_tracker_that_replays_is_told_what_was_kept_in_order(tmp_path):
    write(tmp_path, [1, 3, 5])
    details = Metrics(tmp_path, 5)
    for step in (2, 5):
        details.details(step, {"activation_rms/layers.0": 0.5})
    details.close()
    (tmp_path / "samples").mkdir()
    for step in (3, 4, 12):
        (tmp_path / "samples" / f"step-{step:08d}.txt").write_text(f"text {step}")
    once, anew = Told(), Told(replays=True)
    Metrics(tmp_path, 4, [once, anew]).close()
    assert once.calls == ["closed"]
    assert [call if call == "closed" else call[0] for call in anew.calls] == [1, 2, 3, 3, 4, "closed"]
    assert anew.calls[1] == (2, {"details/activation_rms/layers.0": 0.5})
    assert anew.calls[4] == (4, {"sample": "text 4"})


def test_no_framework_is_imported(tmp_path):
    code = (
        "import sys; from pathlib import Path; from slm_core.config import Config;"
        "from slm_core.training.metrics import Metrics; from slm_core.training.trackers import open_trackers;"
        "import slm_core.training.loop; folder = Path(sys.argv[1]);"
        "m = Metrics(folder, 0, open_trackers(Config(), 'torch', folder, 0));"
        "m.write(step=1, split='train', loss=1.0); m.sample(1, 'text'); m.close();"
        "print(sorted({'torch', 'jax', 'tensorflow'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert output.stdout == "[]\n"
