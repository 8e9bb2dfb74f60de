"""The planner's parameters are the twins' own."""

import pytest

from parity.cells import PRESETS, cells
from parity.memory import cases
from slm_core.planner.parameters import Parameter, matrix_sizes, parameters

CONFIGS = {cell.name: (cell.config, cell.vocab_size) for cell in cells()} | cases()
QUICK = [cell.name for cell in cells() if cell.quick and cell.section != PRESETS][::2]


@pytest.mark.parametrize("names", [QUICK, pytest.param(list(CONFIGS), marks=pytest.mark.slow)], ids=["quick", "all"])
def test_parameters_are_those_that_the_twin_declares(names):
    torch = pytest.importorskip("torch")
    from slm_torch import params
    from slm_torch.model import Transformer

    for name in names:
        config, vocab_size = CONFIGS[name]
        specs = params.specs(Transformer(config, vocab_size, torch.float32))
        declared = {name: Parameter(shape, spec.role, spec.dtype) for name, (shape, spec) in specs.items()}
        assert parameters(config, vocab_size) == declared, name


def test_a_token_meets_the_matrices_of_its_own_experts():
    config, _ = cases()["moe"]
    layer = (2 * 384 + 2 * 128) * 384 + 384 * config.model.mlp.experts
    hidden = -(-1024 // 16) * 8  # of each of the two experts that share a dense MLP's width
    assert matrix_sizes(config) == 6 * (layer + 2 * 3 * 384 * hidden)
