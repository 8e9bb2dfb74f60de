"""Arrows between packages go one way, and a twin never starts the other's framework."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_import_linter_contracts_hold():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "slm_core").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_never_imports_a_framework(path):
    frameworks = re.findall(r"^\s*(?:import|from)\s+(torch|jax|flax|optax|orbax)\b", path.read_text(), re.MULTILINE)
    assert not frameworks


@pytest.mark.parametrize(
    ("module", "foreign"), [("slm_torch.trainer", ("jax", "flax")), ("slm_flax.trainer", ("torch",))]
)
def test_a_twin_leaves_the_other_framework_alone(module, foreign):
    code = f"import sys, {module}; print([name for name in {foreign!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["slm_core.cli.command_line", "slm_core.training.loop", "slm_core.data"])
def test_the_core_starts_no_framework(module):
    code = f"import sys, {module}; print([name for name in ('jax', 'torch', 'flax') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
