"""Measures the time and memory of each step with a checkpoint of SmolLM2-135M's size, from import to export."""

import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from slm_core.cli.command_line import Flag, Invocation, main
from slm_core.errors import UserError

DESCRIPTION = """Makes a Llama-shaped Hugging Face checkpoint with random weights (30 layers, 576 wide, 9 heads, 3 KV
heads, vocabulary 49152, tied: 134.5M parameters), then runs scripts/convert.py, evaluate.py and generate.py on it, in
both twins, each as a process of its own. Prints wall time and peak resident memory."""

FLAGS = [
    Flag("dtype", str, "float32", "of the checkpoint", choices=("float32", "bfloat16")),
    Flag("batches", int, 8, "validation sequences to evaluate"),
    Flag("tokens", int, 64, "tokens to generate"),
]

SHAPE = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
}  # fmt: skip
BPE = 4096  # any tokenizer that fits will do: the weights are random


class Cost(NamedTuple):
    seconds: float
    megabytes: float


def run(invocation: Invocation) -> None:
    from slm_core.studies.machine import machine
    from slm_core.studies.tables import markdown_table

    flags, scripts = invocation.flags, Path(__file__).resolve().parents[1]
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _make(work / "hf", flags["dtype"])
        size = sum(file.stat().st_size for file in (work / "hf").glob("*.safetensors")) / 1e6
        print(f"checkpoint: {size:.0f} MB in {flags['dtype']}\n", flush=True)
        rows = []
        for twin in ("torch", "flax"):
            folder = work / twin
            steps = {
                "import": ["convert.py", f"--import={work / 'hf'}", f"--run={folder}", f"--framework={twin}"],
                "evaluate": [
                    "evaluate.py", f"--run={folder}", f"--batches={flags['batches']}", "--batch_size=1",
                    "--seq_len=1024", f"--data_dir={work / 'data'}",
                ],
                "generate": ["generate.py", f"--run={folder}", "--prompt=def ", f"--max_tokens={flags['tokens']}"],
                "export": ["convert.py", f"--export={work / f'{twin}-hf'}", f"--run={folder}"],
            }  # fmt: skip
            for step, (script, *words) in steps.items():
                cost = _measure([sys.executable, str(scripts / script), *words], work / "log")
                ratio = cost.megabytes / size
                rows.append([step, twin, f"{cost.seconds:.1f}", f"{cost.megabytes:.0f}", f"{ratio:.2f}"])
                print("  ".join(rows[-1]), flush=True)
            shutil.rmtree(folder)
    print("\n" + markdown_table(["step", "twin", "seconds", "peak MB", "peak / checkpoint"], rows))


def _make(folder: Path, dtype: str) -> None:
    """Makes the checkpoint in its own process, because the peak of a child counts the memory of its parent."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError("transformers is not installed: uv sync installs it with the development tools")
    maker = multiprocessing.get_context("spawn").Process(target=_checkpoint, args=(folder, dtype))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise UserError("the checkpoint could not be made: see above")


def _checkpoint(folder: Path, dtype: str) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    import torch
    import transformers

    from slm_core.data.tokenizers import train_bpe

    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**SHAPE))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    texts = (file.read_text(errors="ignore") for file in sorted(Path(os.__file__).parent.glob("*.py")))
    train_bpe(texts, BPE).inner.save(str(folder / "tokenizer.json"))


def _measure(command: list[str], log: Path) -> Cost:
    """Runs a command and returns its time and the peak of its resident memory."""
    begun = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise UserError(f"{' '.join(command[1:])} failed: {log.read_text(errors='replace').strip().splitlines()[-1]}")
    return Cost(time.perf_counter() - begun, usage.ru_maxrss / 1e3)


if __name__ == "__main__":
    main(run, DESCRIPTION, FLAGS, takes_config=False)
