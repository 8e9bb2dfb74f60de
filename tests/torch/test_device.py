"""The PyTorch twin's facts about its device. Those of a GPU come from an invented answer of PyTorch."""

import os

import pytest
import torch

from slm_core.config import Config, Memory, Run
from slm_torch import device

MATRICES = [(4, 8, 16), (4, 16, 8)]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_products_are_timed_in_the_dtype_that_is_asked_for(monkeypatch, dtype):
    made = []
    monkeypatch.setattr(device, "_fastest", lambda *given: made.extend(given[-1]()) or 1.0)
    facts = device.probe(device.prepare_device(Config(run=Run(device="cpu"))))
    assert facts.matmul_seconds(dtype, MATRICES) == 1.0
    assert [str(y.dtype).removeprefix("torch.") for y in made] == [dtype] * 2
    assert [tuple(y.shape) for y in made] == [(4, 16), (4, 8)]


def test_a_cpu_is_found_with_its_memory():
    facts = device.probe(device.prepare_device(Config(run=Run(device="cpu"))))
    assert (facts.platform, facts.capability, facts.bfloat16) == ("cpu", None, False)
    assert 0 < facts.free <= facts.total and facts.fused == "PyTorch's kernel for CPUs"
    for dtype in ("float32", "float16"):
        assert 0 < facts.matmul_seconds(dtype, MATRICES) < 1


def test_no_default_rounding_of_products_is_inherited():
    matmul = torch.backends.cuda.matmul
    matmul.allow_fp16_reduced_precision_reduction = matmul.allow_bf16_reduced_precision_reduction = True
    torch.backends.fp32_precision = "tf32"
    device.prepare_device(Config(run=Run(device="cpu")))
    assert matmul.fp32_precision == torch.backends.cudnn.fp32_precision == "ieee"
    assert not matmul.allow_fp16_reduced_precision_reduction and not matmul.allow_bf16_reduced_precision_reduction


@pytest.mark.parametrize(("capability", "hardware"), [((7, 5), False), ((8, 6), True)])
def test_a_gpu_is_found_as_its_driver_describes_it(monkeypatch, capability, hardware):
    def supported(including_emulation=True):
        return including_emulation or hardware

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3_000, 6_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 100)
    facts = device.probe(torch.device("cuda"))
    assert (facts.platform, facts.name, facts.capability) == ("gpu", "a card", capability)
    assert facts.bfloat16 == hardware
    assert ("FlashAttention" in facts.fused) == hardware and "memory-efficient kernel" in facts.fused
    assert (facts.total, facts.free) == (6_000, 3_400)  # what PyTorch reserves unused is free


def test_cuda_counts_gpus_as_the_driver_does_before_pytorch_looks(monkeypatch):
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    orders = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: orders.append(os.environ.get("CUDA_DEVICE_ORDER")))
    device.prepare_device(Config())
    assert orders == ["PCI_BUS_ID"]


def test_the_memory_limit_is_a_limit_of_the_process(monkeypatch):
    fractions = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: type("", (), {"total_memory": 24e9}))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    for limit in (6.0, 0.0, 30.0):
        device.prepare_device(Config(memory=Memory(limit_gb=limit)))
    assert fractions == [0.25]
