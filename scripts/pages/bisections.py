"""Writes the three bisections at the end of docs/parity.md, each with its fault and the report of the bisector."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from parity.report import BISECTIONS
from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError
from slm_core.json_files import write_sealed
from slm_core.manifest import NAME, file_sums

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("slm_core", "slm_torch", "slm_flax", "parity", "scripts", "configs")

FLAGS = [Flag("markdown", str, "docs/parity.md", "page whose last section is written anew")]

INTRODUCTION = """
`scripts/bisect_models.py` names the first tensor, in execution order, in which two models differ.
`uv run scripts/pages/bisections.py` wrote this section. It puts each fault into a copy of the project, and shows the
report of the bisector.
"""

EDIT = ("slm_torch/layers/rope.py", "(b * cos + a * sin)", "(b * cos - a * sin)")
"""(file, the code there, a mistake that a porter could make)."""

LLAMA = {
    "vocab_size": 512, "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}  # fmt: skip


class Shown(NamedTuple):
    """One bisection: its fault, the command, and the report that it printed."""

    title: str
    fault: str
    command: str
    output: str


def run(invocation: Invocation) -> None:
    page = Path(invocation.flags["markdown"])
    if not page.is_file():
        raise UserError(
            f"--markdown={page} does not exist: write it with scripts/check_parity.py --all --markdown={page}"
        )
    shown = []
    with tempfile.TemporaryDirectory() as name:
        for make in (_twins, _hugging_face, _checkpoints):
            shown.append(make(_copy(Path(name) / make.__name__)))
            print(f"{shown[-1].title}\n\n$ {shown[-1].command}\n{shown[-1].output}\n", flush=True)
    text = BISECTIONS + INTRODUCTION + "".join(_section(each) for each in shown)
    page.write_text(page.read_text().partition(BISECTIONS)[0] + text)
    print(f"written: {page}")


def _section(shown: Shown) -> str:
    return f"\n### {shown.title}\n{shown.fault}\n\n```\n$ {shown.command}\n{shown.output}\n```\n"


def _twins(copy: Path) -> Shown:
    """Compares the twins after a mistake in one line of the PyTorch twin."""
    name, before, after = EDIT
    source = (copy / name).read_text()
    if before not in source:
        raise UserError(f"{name} no longer has '{before}': choose another fault in scripts/pages/bisections.py")
    (copy / name).write_text(source.replace(before, after))
    command = "uv run scripts/bisect_models.py --config configs/llama.py:tiny"
    fault = f"In `{name}`, `{before}` became `{after}`: the sign of one half of a rotation."
    return Shown("Twin against twin", fault, command, _printed(copy, command))


def _hugging_face(copy: Path) -> Shown:
    """Compares an imported run, whose rotation got another base, with the model that it came from."""
    _call(copy, [sys.executable, "-c", _MAKE_LLAMA, json.dumps(LLAMA)])
    _call(copy, [sys.executable, "scripts/convert.py", "--import", "tiny-llama", "--run", "models/tiny"])
    file = copy / "models" / "tiny" / "config.json"
    saved = json.loads(file.read_text())
    saved["config"]["model"]["position"]["theta"] = 5e5
    write_sealed(file, saved)
    command = "uv run scripts/bisect_models.py --run models/tiny --against tiny-llama --precision float32"
    fault = "A Llama of transformers was imported. Then the run's `position.theta` was changed from 10,000 to 500,000."
    return Shown("Twin against Hugging Face", fault, command, _printed(copy, command))


_MAKE_LLAMA = """
import json, sys, torch, transformers
torch.manual_seed(0)
config = transformers.LlamaConfig(**json.loads(sys.argv[1]))
transformers.AutoModelForCausalLM.from_config(config).save_pretrained("tiny-llama")
"""


def _checkpoints(copy: Path) -> Shown:
    """Compares a checkpoint with a copy in which one bit is flipped."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    small = ["--config.run.name=sound", "--config.train.steps=20", "--config.optim.warmup_steps=5"]
    small += ["--config.train.sample_every=0", "--config.data.split=tail"]
    small += ["--config.data.source=text", "--config.data.path=slm_core/config/*.py"]
    _call(copy, [sys.executable, "scripts/train_torch.py", "--config", "configs/llama.py:tiny", *small])
    shutil.copytree(copy / "models" / "sound", copy / "models" / "damaged")
    file = next((copy / "models" / "damaged").glob("checkpoints/step-*/state/*.safetensors"))
    state, name = load_file(file), "params/layers.1.mlp.down_proj.weight"
    bits = state[name].view(np.uint32)
    bits[3, 5] ^= 1 << 23
    save_file(state, file)
    folder = file.parents[1]
    manifest = json.loads((folder / NAME).read_text())
    write_sealed(folder / NAME, manifest | {"files": file_sums(folder)})
    command = "uv run scripts/bisect_models.py --run models/damaged --against models/sound --precision float32"
    fault = (
        "A run was copied. Then one bit of one weight of the copy was flipped, and its checksums were written anew."
        " With the old checksums the damage is found when the run is read, and an older checkpoint is used."
    )
    return Shown("Checkpoint against checkpoint", fault, command, _printed(copy, command))


def _copy(target: Path) -> Path:
    """Copies the project's sources; returns the copy's folder."""
    for name in COPIED:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def _printed(copy: Path, command: str) -> str:
    """Returns the report of a command, which must find a divergence."""
    words = command.removeprefix("uv run ").split()
    done = _run(copy, [sys.executable, *words])
    if done.returncode != 1:
        raise UserError(f"{command} found no divergence: {(done.stdout + done.stderr).strip()[-300:]}")
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def _call(copy: Path, command: list[str]) -> None:
    done = _run(copy, command)
    if done.returncode:
        raise UserError(f"{' '.join(command[1:4])} failed: {done.stderr.strip()[-300:]}")


def _run(copy: Path, command: list[str]) -> subprocess.CompletedProcess:
    # The copy's own modules, whatever is installed.
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "JAX_PLATFORMS": "cpu"}
    environment = os.environ | quiet | {"PYTHONPATH": str(copy)}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)


if __name__ == "__main__":
    main(run, __doc__, FLAGS, takes_config=False)
