"""The twins declare the same parameters, so that the planner may take those of either."""

import pytest

import slm_flax.model
import slm_torch.model
from parity.cells import PRESETS, cells
from parity.memory import cases

CONFIGS = {cell.name: (cell.config, cell.vocab_size) for cell in cells()} | cases()
QUICK = [cell.name for cell in cells() if cell.quick and cell.section != PRESETS][::2]


@pytest.mark.parametrize("names", [QUICK, pytest.param(list(CONFIGS), marks=pytest.mark.slow)], ids=["quick", "all"])
def test_the_twins_declare_the_same_parameters(names):
    for name in names:
        torch, flax = (twin.declared(*CONFIGS[name]) for twin in (slm_torch.model, slm_flax.model))
        assert torch == flax, name
