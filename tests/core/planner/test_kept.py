"""Plans are kept on the disk until something that they depend on changes."""

import importlib.metadata

import pytest

from slm_core.planner import kept as module
from slm_core.planner.kept import kept_on_disk


@pytest.fixture(autouse=True)
def sources(tmp_path, monkeypatch):
    """Gives the test a home folder and sources of its own."""
    (tmp_path / "code" / "slm_flax").mkdir(parents=True)
    (tmp_path / "code" / "slm_core").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "SOURCES", tmp_path / "code")
    module._sources.cache_clear()
    yield tmp_path / "code"
    module._sources.cache_clear()


def never():
    raise AssertionError("it was computed again")


def test_an_answer_is_computed_once():
    assert kept_on_disk("slm_flax", {"rows": 4}, lambda: [3, 0, 5]) == [3, 0, 5]
    assert kept_on_disk("slm_flax", {"rows": 4}, never) == [3, 0, 5]
    assert kept_on_disk("slm_flax", {"rows": 8}, lambda: [6, 0, 10]) == [6, 0, 10]


@pytest.mark.parametrize("package", ["slm_flax", "slm_core"])
def test_changed_sources_ask_anew(sources, package):
    kept_on_disk("slm_flax", "rows", lambda: [1])
    (sources / package / "layer.py").write_text("width = 2\n")
    module._sources.cache_clear()
    assert kept_on_disk("slm_flax", "rows", lambda: [2]) == [2]


def test_other_versions_ask_anew(monkeypatch):
    kept_on_disk("slm_flax", "rows", lambda: [1])
    monkeypatch.setattr(importlib.metadata, "version", {"jax": "0.0.1"}.get)
    assert kept_on_disk("slm_flax", "rows", lambda: [2]) == [2]


@pytest.mark.parametrize("text", ["", "[1,", '["one"]', "\xff"])
def test_a_damaged_file_asks_anew(tmp_path, text):
    kept_on_disk("slm_flax", "rows", lambda: [1])
    (file,) = (tmp_path / ".cache" / "lm-workbench" / "plans").iterdir()
    file.write_text(text, encoding="latin-1")
    assert kept_on_disk("slm_flax", "rows", lambda: [2]) == [2]
    assert kept_on_disk("slm_flax", "rows", never) == [2]


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path):
    (tmp_path / ".cache").write_text("a file")
    assert kept_on_disk("slm_flax", "rows", lambda: [1]) == [1]
    assert kept_on_disk("slm_flax", "rows", lambda: [2]) == [2]
