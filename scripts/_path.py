"""Takes scripts/ off the path, where Python puts it first and parity.py would hide the package of its name. Import it
before anything of the package."""

import sys
from pathlib import Path

_SCRIPTS = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _SCRIPTS]
