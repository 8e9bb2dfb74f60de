"""JAX is kept on the CPU only where there is no NVIDIA driver and nobody decided."""

import os
import subprocess
import sys
import types

import pytest

from slm_core import platform


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "")  # so that the test's changes are undone
    monkeypatch.delenv("JAX_PLATFORMS")


def test_no_driver_means_cpu(monkeypatch):
    monkeypatch.setattr(platform, "has_nvidia_driver", lambda: False)
    platform.quiet_jax()
    assert os.environ["JAX_PLATFORMS"] == "cpu"


def test_a_gpu_is_never_hidden(monkeypatch):
    monkeypatch.setattr(platform, "has_nvidia_driver", lambda: True)
    platform.quiet_jax()
    assert "JAX_PLATFORMS" not in os.environ


def test_a_choice_is_kept(monkeypatch):
    monkeypatch.setattr(platform, "has_nvidia_driver", lambda: False)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    platform.quiet_jax()
    assert os.environ["JAX_PLATFORMS"] == "cuda"


def test_a_device_without_its_library_is_no_driver(monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "_DEVICES", (str(tmp_path),))

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(platform.ctypes, "CDLL", missing)
    assert not platform.has_nvidia_driver()
    monkeypatch.setattr(platform.ctypes, "CDLL", lambda name: None)
    assert platform.has_nvidia_driver()
    monkeypatch.setattr(platform, "_DEVICES", (str(tmp_path / "none"),))
    assert not platform.has_nvidia_driver()


@pytest.mark.parametrize(("visible", "asked"), [(None, "0"), ("", "0"), ("3,1", "3"), ("GPU-8f", "GPU-8f")])
def test_the_driver_tells_the_memory_of_the_first_visible_gpu(monkeypatch, visible, asked):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    commands = []

    def run(command, **options):
        commands.append(command)
        return types.SimpleNamespace(stdout="6144, 5000\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert platform.gpu_memory() == (6144 * 2**20, 5000 * 2**20)
    assert f"--id={asked}" in commands[0]


@pytest.mark.parametrize("answer", ["", "[N/A], [N/A]\n", "No devices were found\n"])
def test_a_driver_that_does_not_tell(monkeypatch, answer):
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: types.SimpleNamespace(stdout=answer))
    assert platform.gpu_memory() is None


def test_no_driver_tells_nothing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert platform.gpu_memory() is None
