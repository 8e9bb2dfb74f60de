import io

import pytest

from slm_core.training.display.plain import PlainDisplay, describe, duration, make_display, printable
from slm_core.training.display.rich import LiveDisplay

ROW = {"step": 100, "split": "train", "loss": 2.11349, "lr": 9.8e-4, "grad_norm": 1.0, "tokens": 204_800}
ROW |= {"tokens_per_second": 12_345.4, "loss_scale": 1.0, "skipped": 0, "peak_memory_bytes": 900_000_000}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (59.4, "59s"), (59.6, "1m00s"), (100, "1m40s"), (3599.9, "1h00m"), (7500, "2h05m")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_plain_lines(capsys):
    display = make_display(0, 600)
    assert isinstance(display, PlainDisplay)  # the captured output is not a terminal
    display.start()
    display.line(ROW)
    display.line(ROW | {"step": 600, "loss": None, "skipped": 3})
    display.evaluated(100, 1.98701)
    display.sample(100, "def f():\x1b[2J\n\treturn\r")
    display.stop()
    first, second, *rest = capsys.readouterr().out.split("\n")
    assert first == "step    100/600  loss 2.113  lr 9.8e-04  12,345 tok/s  0.9 GB  eta 1m23s"
    assert second == "step    600/600  loss not finite  lr 9.8e-04  12,345 tok/s  0.9 GB  eta 0s  skipped 3"
    assert rest[0] == "step 100 validation loss 1.987 nats/token"
    assert rest[1:4] == [
        "step 100 sample:",
        "def f():\N{REPLACEMENT CHARACTER}[2J",
        "\treturn\N{REPLACEMENT CHARACTER}",
    ]


def test_the_accuracy_of_a_task_is_shown(capsys):
    make_display(0, 600).evaluated(200, 0.01, 0.9876)
    assert capsys.readouterr().out == "step 200 validation loss 0.010 nats/token, accuracy 0.988\n"


def test_a_model_cannot_command_the_terminal():
    assert printable("é漢\n\t" + "\x00\x07\x1b\x9b\x7f") == "é漢\n\t" + 5 * "\N{REPLACEMENT CHARACTER}"


def test_the_time_left_leaves_out_what_was_done():
    assert describe(ROW, 600).endswith("eta 1m23s")
    assert describe(ROW | {"step": 600}, 600).endswith("eta 0s")


def test_the_live_display_shows_the_numbers():
    from rich.console import Console

    out = io.StringIO()
    display = LiveDisplay(0, 600, Console(file=out, force_terminal=True, width=120))
    display.start()
    display.progress(100, 2.11349, 0)
    display.line(ROW)
    display.evaluated(100, 1.98701)
    display.sample(100, "def [red]f():\x1b")
    display.progress(101, 2.05, 0)
    display.stopping(102)
    display.stop()
    text = out.getvalue()
    for part in ("step 101/600", "16%", "validation 1.987", "loss 2.050", "12,345 tok/s", "eta 1m23s", "[red]f()"):
        assert part in text
    assert "step 100 validation loss 1.987 nats/token" in text and "finishing step 102" in text
