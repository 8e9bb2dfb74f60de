"""Parameters of the PyTorch twin before they have values."""

from slm_core.model.initialization import Spec
from slm_torch import params


def test_a_declared_parameter_keeps_its_spec_and_takes_no_memory():
    parameter = params.declare((2,), Spec("bias"))
    assert parameter.is_meta and parameter.spec == Spec("bias")
