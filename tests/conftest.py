"""Settings of every test: one thread, JAX on the CPU unless GPU tests are asked for, and checked signatures."""

import gc
import os

import pytest

CHECKED = ("slm_torch", "slm_flax")
UNCHECKED = ("parity", "sensitivity", "inputs")
"""Folders of tests in which signatures are not checked: that takes a fourth of their time, and the others do it."""

pytest_plugins = ["tests.mutation_score", "tests.formula_page", "tests.resumed"]


def pytest_configure(config: pytest.Config) -> None:
    marks = config.option.markexpr
    if "gpu" not in marks or "not gpu" in marks:
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    gc.set_threshold(100_000, 20, 20)  # by default Python looks for garbage in a fifth of the time: traces make much
    from jaxtyping import install_import_hook

    # Every call of the twins checks the shapes and types that its signature states; under jit, once, while it traces.
    install_import_hook(list(CHECKED), "beartype.beartype")


@pytest.fixture(autouse=True)
def signatures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns the check of signatures off in the folders that do without it."""
    if request.path.parent.name in UNCHECKED:
        import jaxtyping

        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
