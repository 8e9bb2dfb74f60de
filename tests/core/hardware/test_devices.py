"""The facts about this machine. JAX stays on the CPU only if there is no NVIDIA driver and the user did not choose."""

import os
import subprocess
import sys
import types

import pytest

from slm_core.hardware import devices


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "")  # so that the test's changes are undone
    monkeypatch.delenv("JAX_PLATFORMS")


def test_no_driver_means_cpu(monkeypatch):
    monkeypatch.setattr(devices, "has_nvidia_driver", lambda: False)
    devices.quiet_jax()
    assert os.environ["JAX_PLATFORMS"] == "cpu"


def test_a_gpu_is_never_hidden(monkeypatch):
    monkeypatch.setattr(devices, "has_nvidia_driver", lambda: True)
    devices.quiet_jax()
    assert "JAX_PLATFORMS" not in os.environ


def test_a_choice_is_kept(monkeypatch):
    monkeypatch.setattr(devices, "has_nvidia_driver", lambda: False)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    devices.quiet_jax()
    assert os.environ["JAX_PLATFORMS"] == "cuda"


def test_a_device_without_its_library_is_no_driver(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_DEVICES", (str(tmp_path),))

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(devices.ctypes, "CDLL", missing)
    assert not devices.has_nvidia_driver()
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: None)
    assert devices.has_nvidia_driver()
    monkeypatch.setattr(devices, "_DEVICES", (str(tmp_path / "none"),))
    assert not devices.has_nvidia_driver()


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
    assert devices.gpu_memory() == (6144 * 2**20, 5000 * 2**20)
    assert f"--id={asked}" in commands[0]


@pytest.mark.parametrize("answer", ["", "[N/A], [N/A]\n", "No devices were found\n"])
def test_a_driver_that_reports_no_memory(monkeypatch, answer):
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: types.SimpleNamespace(stdout=answer))
    assert devices.gpu_memory() is None


def test_a_driver_that_hangs_is_ignored(monkeypatch):
    def hang(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert devices.gpu_memory() is None


def test_cuda_counts_gpus_as_the_driver_does(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    devices.count_gpus_as_their_driver()
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    os.environ["CUDA_DEVICE_ORDER"] = "FASTEST_FIRST"
    devices.count_gpus_as_their_driver()
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


V2 = ("memory.max", "memory.current", "memory.stat")
V1 = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat")
STAT = "anon 1\nactive_file 300\ninactive_file 200\n"


@pytest.mark.parametrize(
    ("names", "texts", "expected"),
    [
        ((), (), (10_000 * 1024, 8_000 * 1024)),
        (V2, ("4000\n", "1500\n", STAT), (4_000, 3_000)),
        (V1, ("4000\n", "1500\n", STAT), (4_000, 3_000)),
        (V2, ("4000\n", "5000\n", ""), (4_000, 0)),
        (V2, (f"{9_000 * 1024}\n", "0\n", STAT), (9_000 * 1024, 8_000 * 1024)),  # other processes use the rest
        (V2, ("max\n", "1500\n", STAT), (10_000 * 1024, 8_000 * 1024)),
        (V1, ("9223372036854771712\n", "1500\n", STAT), (10_000 * 1024, 8_000 * 1024)),
    ],
)
def test_a_container_has_the_memory_of_its_limit(monkeypatch, tmp_path, names, texts, expected):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       10000 kB\nMemAvailable:    8000 kB\nHugePages_Total:       0\n")
    monkeypatch.setattr(devices, "_MEMINFO", meminfo)
    monkeypatch.setattr(devices, "_CGROUP", tmp_path)
    (tmp_path / "memory").mkdir()
    for name, text in zip(names, texts, strict=True):
        (tmp_path / name).write_text(text)
    assert devices.cpu_memory() == expected


def test_without_a_driver_nothing_is_known(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert devices.gpu_memory() is None
