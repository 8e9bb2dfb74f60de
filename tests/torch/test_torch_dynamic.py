"""The PyTorch quantiser against the specification."""

import dynamic_checks as checks
import torch

from slm_torch.quantization.blockwise import Quantiser


def run(x, block, code):
    values = torch.from_numpy(x)
    quantiser = Quantiser(code, block, values)
    codes, scales = quantiser.quantise(values)
    return codes.numpy(), scales.numpy(), quantiser.dequantise(codes, scales).numpy()


def test_bits():
    checks.check_bits(run)
