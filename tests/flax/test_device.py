"""The Flax twin's facts about its device. Those of a GPU come from invented answers of JAX and the driver."""

import os
from pathlib import Path
from unittest.mock import Mock

import jax
import pytest
from jaxlib.xla_client import generate_pjrt_gpu_plugin_options

from slm_core.config import Config, Memory, Run
from slm_core.errors import UserError
from slm_flax import device

MATRICES = [(4, 8, 16), (4, 16, 8)]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_products_are_timed_in_the_dtype_that_is_asked_for(monkeypatch, dtype):
    made = []
    monkeypatch.setattr(device, "_fastest", lambda *given: made.extend(given[-1]()) or 1.0)
    facts = device.probe(device.prepare_device(Config(run=Run(device="cpu"))), threads=1)
    assert facts.matmul_seconds(dtype, MATRICES) == 1.0
    assert [str(y.dtype).removeprefix("torch.") for y in made] == [dtype] * 2
    assert [tuple(y.shape) for y in made] == [(4, 16), (4, 8)]


def test_a_cpu_is_found_with_its_memory():
    facts = device.probe(device.prepare_device(Config(run=Run(device="cpu"))), threads=1)
    assert (facts.platform, facts.capability, facts.bfloat16) == ("cpu", None, False)
    assert 0 < facts.free <= facts.total and facts.fused == "JAX's function, in blocks of queries"
    for dtype in ("float32", "float16"):
        assert 0 < facts.matmul_seconds(dtype, MATRICES) < 1


@pytest.mark.parametrize(
    ("home", "chosen", "said"),
    [("/proc", None, "/proc/.cache cannot be made"), ("", None, "no home folder"), ("", "/proc/x", "/proc/x cannot")],
)
def test_a_compile_cache_of_no_use_is_a_warning(monkeypatch, caplog, home, chosen, said):
    """Root may write everywhere but there."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    caplog.set_level("WARNING", "lm-workbench")
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(Path, "home", (lambda: Path(home)) if home else no_home)
    try:
        jax.config.update("jax_compilation_cache_dir", chosen)
        device.prepare_device(Config(run=Run(device="cpu")))
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert said in caplog.text and "set JAX_COMPILATION_CACHE_DIR" in caplog.text


def card(capability: str) -> Mock:
    stats = {"bytes_in_use": 100, "pool_bytes": 500, "bytes_limit": 5_000}
    gpu = Mock(spec=jax.Device, platform="gpu", device_kind="a card", compute_capability=capability)
    gpu.memory_stats = lambda: stats
    return gpu


@pytest.mark.parametrize(("capability", "modern"), [("7.5", False), ("8.6", True)])
def test_a_gpu_is_found_as_its_driver_describes_it(monkeypatch, capability, modern):
    monkeypatch.setattr(device, "gpu_memory", lambda: (6_000, 3_000))
    facts = device.probe(card(capability), threads=0)
    assert (facts.platform, facts.name) == ("gpu", "a card")
    assert ".".join(map(str, facts.capability)) == capability
    assert facts.bfloat16 == modern and facts.fused == "flash: JAX's function would hold every score"
    assert (facts.total, facts.free) == (6_000, 3_400)  # what JAX reserves unused is free


def test_a_gpu_whose_driver_does_not_tell_has_what_jax_may_take(monkeypatch):
    monkeypatch.setattr(device, "gpu_memory", lambda: None)
    facts = device.probe(card("8.0"), threads=0)
    assert (facts.total, facts.free) == (5_000, 4_900)


def test_an_allocator_that_counts_nothing_leaves_what_the_driver_tells(monkeypatch):
    uncounted = card("8.0")
    uncounted.memory_stats = lambda: None
    monkeypatch.setattr(device, "gpu_memory", lambda: (6_000, 3_000))
    facts = device.probe(uncounted, threads=0)
    assert (facts.total, facts.free) == (6_000, 3_000)
    assert device.peak_memory_bytes(uncounted) == 0
    monkeypatch.setattr(device, "gpu_memory", lambda: None)
    with pytest.raises(UserError, match="unset XLA_PYTHON_CLIENT_ALLOCATOR"):
        device.probe(uncounted, threads=0)


def test_other_processes_and_jaxs_own_limit_both_count(monkeypatch):
    monkeypatch.setattr(device, "gpu_memory", lambda: (6_000, 5_900))
    assert device.probe(card("8.0"), threads=0).free == 4_900


@pytest.mark.parametrize(("limit", "fraction"), [(6.0, "0.2500"), (0.0, "1.0000"), (30.0, "1.0000")])
def test_jax_takes_the_card_as_it_needs_it_up_to_the_limit(monkeypatch, limit, fraction):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(device, "gpu_memory", lambda: (24 * 10**9, 10**9))
    devices = jax.devices("cpu")
    monkeypatch.setattr(jax, "devices", lambda: devices)
    device.prepare_device(Config(memory=Memory(limit_gb=limit)))
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert generate_pjrt_gpu_plugin_options()["memory_fraction"] == float(fraction)


@pytest.mark.parametrize("name", ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"])
def test_the_users_own_limit_is_kept(monkeypatch, name):
    monkeypatch.setattr(os, "environ", {name: "0.5"})
    monkeypatch.setattr(device, "gpu_memory", lambda: (24 * 10**9, 10**9))
    devices = jax.devices("cpu")
    monkeypatch.setattr(jax, "devices", lambda: devices)
    device.prepare_device(Config())
    assert generate_pjrt_gpu_plugin_options()["memory_fraction"] == 0.5
