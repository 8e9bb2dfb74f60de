"""scripts/doctor.py examines the machine that runs it, and names what is broken, with a remedy."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import doctor
from slm_core.cli.command_line import main
from slm_core.hardware import devices

ROOT = Path(__file__).parents[2]
WHOLE = {
    "version": "PyTorch 2", "device": "CPU", "platform": "cpu", "memory": "1 GB free", "attention": "a kernel",
    "gflops": {"1 x 1 x 1": {"float32": 2.0, "float16": 1.0, "bfloat16": 4.0, "float64": 1.0}}, "copy_gb_per_s": 3.0,
    "losses": [5.0, 4.0],
}  # fmt: skip


def test_this_machine_is_whole_and_its_twins_agree(tmp_path):
    file = tmp_path / "doctor.json"
    command = [sys.executable, "scripts/doctor.py", "--device=cpu", f"--json={file}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "BROKEN" not in done.stdout and "agreement" in done.stdout
    found = json.loads(file.read_text())
    assert all(finding["fine"] for finding in found["findings"])
    for twin in found["twins"].values():
        assert twin["copy_gb_per_s"] > 0 and len(twin["losses"]) == 4
        assert all(rate > 0 for rates in twin["gflops"].values() for rate in rates.values())


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs the script with invented answers of the twins, and returns its status and what it prints."""

    def call(torch: dict, flax: dict, *words: str) -> tuple[int, str]:
        monkeypatch.setattr(doctor, "_examine", lambda twin, device: {"torch": torch, "flax": flax}[twin])
        status = 0
        try:
            main(doctor.run, doctor.DESCRIPTION, doctor.FLAGS, takes_config=False, argv=list(words))
        except SystemExit as stopped:
            status = stopped.code
        return status, capsys.readouterr().out

    return call


def test_a_whole_machine_ends_with_0(call):
    status, printed = call(WHOLE, WHOLE, "--device=cpu")
    assert status == 0 and [
        word.strip() for word in next(line for line in printed.splitlines() if "1 x 1 x 1" in line).split("|")[3:-1]
    ] == ["2", "0.50", "2.00", "0.50"]


def test_twins_that_disagree_are_broken(call):
    status, printed = call(WHOLE, WHOLE | {"losses": [5.0, 4.1]}, "--device=cpu")
    assert status == 1 and "BROKEN  agreement" in printed and "differ by 2e-02" in printed


def test_a_twin_that_does_not_start_is_named_with_its_error(call):
    status, printed = call({"error": "ImportError: libcudart.so"}, WHOLE, "--device=cpu")
    assert status == 1 and "BROKEN  torch" in printed and "ImportError: libcudart.so" in printed
    assert "remedy: uv sync --locked" in printed and "not tested" in printed


def test_a_process_that_fails_is_an_error(monkeypatch):
    assert "No module named 'slm_nothing'" in doctor._examine("nothing", "cpu")["error"]
    monkeypatch.setattr(doctor, "PATIENCE", 0.01)
    assert doctor._examine("torch", "cpu") == {"error": "does not end within 0.01 s"}


@pytest.mark.parametrize(
    ("nodes", "library", "container", "torch", "requested", "fine", "named"),
    [
        (False, False, False, "cpu", "auto", True, "none is visible"),
        (False, True, True, "cpu", "auto", True, "docker run --gpus all"),
        (False, False, True, "cpu", "cuda", False, "start the container with --gpus all"),
        (True, False, False, "cpu", "auto", False, "install NVIDIA's driver"),
        (True, True, False, "gpu", "auto", True, "a card, driver 570"),
        (True, True, False, "cpu", "auto", False, "torch cannot use it"),
        (True, True, False, "cpu", "cpu", True, "not used"),
    ],
)  # fmt: skip
def test_a_gpu_must_be_visible_to_the_driver_and_to_both_twins(
    monkeypatch, nodes, library, container, torch, requested, fine, named
):
    monkeypatch.setattr(devices, "gpu_nodes", lambda: nodes)
    monkeypatch.setattr(devices, "has_nvidia_driver", lambda: library)
    monkeypatch.setattr(devices, "in_container", lambda: container)
    monkeypatch.setattr(devices, "driver_facts", lambda: "a card, driver 570")
    found = doctor.gpu({"torch": {"platform": torch}, "flax": {"platform": "gpu"}}, requested)
    assert found.fine == fine and named in found.fact + found.remedy


def test_packages_must_be_there_and_of_the_right_version(monkeypatch):
    def version(name: str) -> str:
        if name == "optax":
            raise importlib.metadata.PackageNotFoundError
        return "1.0" if name == "torch" else original(name)

    original = importlib.metadata.version
    assert doctor.packages().fine
    monkeypatch.setattr(importlib.metadata, "version", version)
    found = doctor.packages()
    assert not found.fine and "optax is missing" in found.fact and "torch is 1.0 and not ==2.10.*" in found.fact


def test_a_full_disk_is_broken(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "ROOM", 2**80)
    assert [finding.fine for finding in doctor.disk()] == [False, False]
