"""The commands that are killed, and what must be the same at their end as if nothing had happened."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from slm_core.data.tokenizers import train_bpe
from slm_core.errors import UserError
from slm_core.runs.verification import verify
from tests.crashes.fork_server import CORE, Ended, Server

STEPS = 6
MEASURED = ("tokens_per_second", "peak_memory_bytes", "seconds")
"""Fields of lines of JSON that no two runs have in common."""

LEFT_OUT = ("tensorboard", ".lock", ".locks", "cache", "moved")
"""Names of files and folders that each process has its own of, that hold nothing, or that faults make."""


@dataclass(frozen=True)
class Command:
    """A command, and how often it is killed.

    Args:
      words: the script and its arguments; TWIN and FRAMEWORK stand for the twin's name, TEXT for a folder.
      needs: folders of the template that stand in its folder before.
      kills: of 100 kills, how many are of this command.
      core: whether it needs no twin.
      before: a function of `faults` that its process calls first.
      taken: what a command says that finds its work already done, as it is after a kill at its very end.
    """

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...]
    kills: int
    core: bool = False
    before: str = ""
    taken: str = ""


_TEXT = (
    "--config.data.source=text", "--config.data.path=TEXT", "--config.data.dir=data", "--config.data.seq_len=8",
    "--config.data.split=tail",
)  # fmt: skip

TRAIN = (
    "train_TWIN.py", *_TEXT, "--config.model.d_model=16", "--config.model.n_layers=1",
    "--config.model.attention.n_heads=2", "--config.model.dropout=0.1", "--config.optim.warmup_steps=1",
    f"--config.train.steps={STEPS}", "--config.train.batch_size=2", "--config.train.log_every=1",
    "--config.train.eval_every=3", "--config.train.eval_batches=2", "--config.train.checkpoint_every=1",
    "--config.train.keep_checkpoints=2", "--config.train.sample_every=2", "--config.train.sample_tokens=6",
    "--config.train.log_details_every=4", "--config.run.dir=models", "--config.run.name=run",
    "--config.run.device=cpu", "--config.run.threads=1",
)  # fmt: skip

_PREPARE = ("prepare_data.py", *_TEXT, "--config.data.tokenizer=bpe", "--config.data.vocab_size=280")

_IMPORT = ("convert.py", "--import", "hf", "--run", "models/imported", "--framework", "FRAMEWORK")
_EVALUATE = (
    "evaluate.py", "--run", "models/imported", "--source", "text", "--path", "TEXT", "--data_dir", "data",
    "--batches", "2", "--seq_len", "8", "--json", "results.jsonl",
)  # fmt: skip

COMMANDS = (
    Command("train", TRAIN, (), 62),
    Command("prepare", _PREPARE, (), 12, core=True),
    Command("prepare with several processes", _PREPARE, (), 2, core=True, before="several_processes"),
    Command("import", _IMPORT, ("hf",), 8, core=True, taken="models/imported: already holds"),
    Command(
        "export", ("convert.py", "--export", "exported", "--run", "models/imported"), ("models",), 8, core=True,
        taken="--export=exported is there already",
    ),
    Command("evaluate", _EVALUATE, ("models",), 4),
    Command(
        "generate", ("generate.py", "--run", "models/imported", "--prompt", "line ", "--max_tokens", "12"),
        ("models",), 4,
    ),
)  # fmt: skip


class Work:
    """The folders of a harness: the text, the template, and a folder per trial.

    The template has `hf`, a Llama model of one layer as Hugging Face writes it, and `models/imported`, the run of it.
    """

    def __init__(self, folder: Path, twin: str, server: Server):
        self.folder, self.twin, self.server = folder, twin, server
        self.text, self.template = folder / "text", folder / "template"
        self.count = 0
        self.text.mkdir(parents=True)
        for part in range(20):
            lines = (f"line {i}: {i * i} squared, {i % 7} left over\n" for i in range(part * 100, part * 100 + 60))
            (self.text / f"{part:02d}.txt").write_text("".join(lines))
        make_llama(self.template / "hf")
        ended = self.run(next(command for command in COMMANDS if command.name == "import"), self.template)
        assert not ended.status, ended.errors

    def trial(self, command: Command) -> Path:
        """Makes the folder in which a command begins."""
        self.count += 1
        folder = self.folder / f"trial-{self.count}"
        folder.mkdir()
        for name in command.needs:
            shutil.copytree(self.template / name, folder / name)
        return folder

    def run(self, command: Command, folder: Path, kill: dict[str, Any] | None = None, before: str = "") -> Ended:
        """Runs a command in a folder."""
        texts = {"TWIN": self.twin, "FRAMEWORK": "torch" if self.twin == CORE else self.twin, "TEXT": str(self.text)}
        words = [re.sub("TWIN|FRAMEWORK|TEXT", lambda match: texts[match[0]], word) for word in command.words]
        return self.server.run(words, folder, kill=kill, before=before or command.before)


def make_llama(folder: Path) -> None:
    """Writes a Llama model with random weights, and its tokenizer, as Hugging Face writes them."""
    width, hidden, vocabulary = 16, 24, 280
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": width, "intermediate_size": hidden,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
        "tie_word_embeddings": True, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"self_attn.q_proj": (width, width), "self_attn.k_proj": (width // 2, width)}
    shapes |= {"self_attn.v_proj": (width // 2, width), "self_attn.o_proj": (width, width)}
    shapes |= {"mlp.gate_proj": (hidden, width), "mlp.up_proj": (hidden, width), "mlp.down_proj": (width, hidden)}
    shapes |= {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
    shapes = {f"model.layers.0.{name}.weight": shape for name, shape in shapes.items()}
    shapes |= {"model.embed_tokens.weight": (vocabulary, width), "model.norm.weight": (width,)}
    generator = np.random.default_rng(0)
    save_file(
        {name: generator.normal(0, 0.1, s).astype("f4") for name, s in shapes.items()}, folder / "model.safetensors"
    )
    train_bpe(["line 12: 144 squared, 5 left over\n" * 20], vocabulary).inner.save(str(folder / "tokenizer.json"))


def contents(folder: Path, ended: Ended | None = None) -> dict[str, Any]:
    """Reads all that must be the same: {file: its bytes, or what it says without times and what follows from them}.

    Args:
      ended: what a command that only reads has said; its output counts, too.
    """
    paths = (path for path in sorted(folder.rglob("*")) if not set(path.relative_to(folder).parts) & set(LEFT_OUT))
    files = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    output = {"": ended.output} if ended else {}
    return output | {name: _READERS.get(path.name, Path.read_bytes)(path) for name, path in files.items()}


def damaged(folder: Path) -> list[str]:
    """Says what is damaged in everything with a checksum inside a folder of a trial."""
    wrong = []
    for path in (*folder.glob("models/*"), *folder.glob("data/*-*"), *folder.glob("exported")):
        try:
            wrong += [f"{finding.part}: {line}" for finding in verify(path) for line in finding.wrong]
        except UserError as error:
            wrong.append(str(error))
    return wrong


def _lines(path: Path) -> list[dict[str, Any]]:
    return [{n: v for n, v in json.loads(line).items() if n not in MEASURED} for line in path.read_text().splitlines()]


def _loop(path: Path) -> dict[str, Any]:
    loop = json.loads(path.read_text())
    return loop | {"lines": sorted(loop["lines"])}


def _manifest(path: Path) -> dict[str, Any]:
    """Leaves out what follows from times: the checksums of loop.json and of the manifest itself."""
    manifest = json.loads(path.read_text())
    files = {n: entry for n, entry in manifest["files"].items() if n != "loop.json"}
    return manifest | {"files": files, "checksum": ""}


_READERS: dict[str, Callable[[Path], Any]] = {
    "metrics.jsonl": _lines,
    "results.jsonl": _lines,
    "loop.json": _loop,
    "manifest.json": _manifest,
}
