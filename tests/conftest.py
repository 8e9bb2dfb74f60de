"""Settings of every test: one thread, JAX on the CPU unless GPU tests are asked for, and checked signatures."""

import os

import pytest

CHECKED = ("slm_torch", "slm_flax")
pytest_plugins = ["tests.mutation_score"]


def pytest_configure(config: pytest.Config) -> None:
    marks = config.option.markexpr
    if "gpu" not in marks or "not gpu" in marks:
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from jaxtyping import install_import_hook

    # Every call of the twins checks the shapes and types that its signature states; under jit, once, while it traces.
    install_import_hook(list(CHECKED), "beartype.beartype")
