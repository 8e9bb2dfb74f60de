"""The limits of the property tests can fail."""

import mmap

import pytest

from tests.inputs import answers
from tests.inputs.answers import answer


def test_memory_that_python_does_not_count_is_counted(monkeypatch):
    monkeypatch.setattr(answers, "MUCH", 20_000_000)

    def take(size: int) -> None:
        mmap.mmap(-1, size).write(b"x" * (size // 2) + b"x" * (size // 2))

    assert answer(lambda: take(1_000_000)) == ""
    with pytest.raises(AssertionError, match="MB"):
        answer(lambda: take(40_000_000))
    assert answer(lambda: None) == ""  # the peak of the case before does not count


def test_a_loop_without_end_fails(monkeypatch):
    monkeypatch.setattr(answers, "LONG", 0.05)

    def loop() -> None:
        while True:
            pass

    with pytest.raises(AssertionError, match="of the CPU"):
        answer(loop)
