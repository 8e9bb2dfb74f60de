"""The twin under test: every test that asks for `twin` runs once in PyTorch and once in Flax."""

from importlib import import_module
from types import ModuleType

import pytest


@pytest.fixture(params=["torch", "flax"])
def twin(request: pytest.FixtureRequest) -> ModuleType:
    """Gives the functions of `tests/conformance/twins/NAME.py`, ready to compute in float64."""
    module = import_module(f"tests.conformance.twins.{request.param}")
    module.prepare()
    return module
