"""Matrices in few bits in PyTorch alone: nothing comes from the host, and the backward pass keeps nothing wide."""

import pytest
import torch

from slm_core.model.initialization import Spec
from slm_core.quantization import formats
from slm_torch import params
from slm_torch.layers.linear import Linear
from slm_torch.layers.lora import FrozenLinear
from slm_torch.quantization.formats import TABLES, product
from tests.conformance.test_lora import numbers
from tests.conformance.twins.torch import stored


@pytest.mark.parametrize("stored_as", formats.FORMATS)
def test_a_product_brings_nothing_from_the_host(stored_as, monkeypatch):
    layer = FrozenLinear(Linear(8, 6, Spec("matrix", std=1.0), bias=False), stored_as, 0, 1.0)
    params.initialise(torch.nn.ModuleDict({"layer": layer}), 0, torch.float32, torch.device("cpu"))
    assert (
        dict(layer.named_buffers()).keys() == TABLES[stored_as].keys()
        and not layer.state_dict().keys() & TABLES[stored_as]
    )
    monkeypatch.setattr(torch, "from_numpy", None)
    layer(torch.ones(3, 8, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("stored_as", formats.FORMATS)
def test_nothing_floating_is_kept_for_the_backward_pass(stored_as):
    parts = stored(stored_as, formats.FORMATS[stored_as].quantise(numbers((64, 64), "float32")))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        product(torch.ones(3, 64, requires_grad=True), stored_as, list(parts.values()))
    assert [tensor.data_ptr() for tensor in kept] == [part.data_ptr() for part in parts.values()]
