"""The other libraries that the benchmark measures beside the twins: one line each, and the checks of `--peers`."""

import functools
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scripts.benchmarks import _torch_peers
from scripts.benchmarks._jax_peers import NanoDO
from scripts.benchmarks._torch_peers import TorchPeer
from slm_core.config import Config
from slm_core.config.fields import flatten, with_values
from slm_core.data.workers import cores
from slm_core.errors import UserError, nearest
from slm_core.studies.throughput import Contender, Contest, Trainee

LLAMA = "Llama: RMSNorm, RoPE, SwiGLU"
GPT_ERF = "GPT-2 without biases: LayerNorm, learned positions, exact GELU"
GPT_TANH = "GPT-2 without biases: LayerNorm, learned positions, tanh GELU"
NANOCHAT = "nanochat: RMSNorm without weights, RoPE, squared ReLU, untied head, Muon"

_GPT = {
    "model.position.kind": "learned",
    "model.norm.kind": "layernorm",
    "model.mlp.kind": "gelu",
    "optim.decay_embeddings": True,
}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    LLAMA: {"optim.decay_embeddings": True},
    GPT_ERF: _GPT,
    GPT_TANH: _GPT | {"model.mlp.gelu": "tanh", "model.norm.eps": 1e-6},
    NANOCHAT: {
        "model.norm.weight": "none",
        "model.embed_norm": True,
        "model.attention.qk_norm": "l2",
        "model.position.theta": 100_000.0,
        "model.mlp.kind": "relu2",
        "model.tie_embeddings": False,
        "model.logit_softcap": 15.0,
        "optim.kind": "muon",
        "optim.clip_norm": 0.0,
    },
}
"""{title: the fields of the default preset that change, so that the twins do the work of a peer}."""

SIZES = (
    "model.d_model", "model.n_layers", "model.attention.n_heads", "data.seq_len", "data.tokenizer", "data.vocab_size",
    "data.dir", "train.batch_size", "train.steps", "optim.lr", "optim.warmup_steps", "run.threads", "seed",
)  # fmt: skip
"""Fields that every peer reads."""


@dataclass(frozen=True)
class Peer:
    """A library to measure.

    Args:
      title: its name, for people to read.
      setting: which of SETTINGS it does the work of.
      make: makes its trainee from (config, checkout=folder).
      note: how its work and the twins' differ, for the reader of the table.
      package: the package that it is; "" for a checkout.
      url: where its checkout comes from.
      has: a file of its checkout.
    """

    title: str
    setting: str
    make: Callable[..., Trainee]
    note: str
    package: str = ""
    url: str = ""
    has: str = ""


def _torch(build: Callable[[Config, int, str], _torch_peers.Parts]) -> Callable[..., Trainee]:
    return functools.partial(TorchPeer, build=build)


PEERS: Mapping[str, Peer] = {
    "transformers": Peer(
        "Hugging Face transformers", LLAMA, _torch(_torch_peers.transformers),
        "the same architecture; AdamW in one kernel, as in its Trainer", package="transformers",
    ),
    "litgpt": Peer(
        "litgpt", LLAMA, _torch(_torch_peers.litgpt),
        "the same architecture; norms decay too, and AdamW is not one kernel, as in its pre-training on a CPU",
        package="litgpt",
    ),
    "x-transformers": Peer(
        "x-transformers", LLAMA, _torch(_torch_peers.x_transformers),
        "the same architecture, but the first matrix of each MLP has biases; AdamW in one kernel, chosen here",
        package="x-transformers",
    ),
    "nanogpt": Peer(
        "nanoGPT", GPT_ERF, _torch(_torch_peers.nanogpt),
        "the same architecture; AdamW is not one kernel, as it does on a CPU",
        url="https://github.com/karpathy/nanoGPT", has="model.py",
    ),
    "nanochat": Peer(
        "nanochat", NANOCHAT, _torch(_torch_peers.nanochat),
        "another architecture: it also adds embeddings to the values, and learned sums of layers and of neighbouring"
        " tokens; its own Muon with AdamW, which it compiles, at its own learning rates",
        url="https://github.com/karpathy/nanochat", has="nanochat/gpt.py",
    ),
    "nanodo": Peer(
        "nanoDO", GPT_TANH, NanoDO,
        "the same architecture; its model and its optimizer in a step of this benchmark, because its own step imports"
        " TensorFlow",
        url="https://github.com/google-deepmind/nanodo", has="nanodo/model.py",
    ),
}  # fmt: skip


def parse(text: str) -> dict[str, str]:
    """Parses the value of `--peers` into {name of a peer: folder of its checkout, or ""}.

    Raises:
      UserError: a name that is not a peer, a package that is not installed, or a folder that is not a checkout.
    """
    asked: dict[str, str] = {}
    for entry in text.split(","):
        name, _, folder = entry.strip().partition("=")
        if name not in PEERS:
            raise UserError(f"--peers: '{name}' is not one of {', '.join(PEERS)}{nearest(name, PEERS)}")
        if name in asked:
            raise UserError(f"--peers={text} names {name} twice; leave one out")
        asked[name] = str(Path(folder).expanduser().resolve()) if folder else ""
        (_check_package if PEERS[name].package else _check_checkout)(name, asked[name])
    return asked


def _check_package(name: str, folder: str) -> None:
    if folder:
        raise UserError(f"--peers={name}={folder}: {name} is an installed package; write --peers={name}")
    if find_spec(name.replace("-", "_")) is None:
        raise UserError(f"--peers={name}: the package {name} is not installed; run uv sync --group peers")


def _check_checkout(name: str, folder: str) -> None:
    peer = PEERS[name]
    if not folder:
        raise UserError(f"--peers={name} needs a checkout: git clone {peer.url}, then --peers={name}=FOLDER")
    if not (Path(folder) / peer.has).is_file():
        raise UserError(f"--peers={name}={folder} has no {peer.has}: name the folder of a clone of {peer.url}")


def contests(
    asked: Mapping[str, str], config: Config, twins: Mapping[str, Callable[[Config], Trainee]]
) -> list[Contest]:
    """Groups peers by the work that they do, in the order of SETTINGS; the twins do the same work beside them.

    Args:
      asked: {name of a peer: folder of its checkout, or ""}.
      config: the sizes.
      twins: {name: what makes its trainee}.

    Raises:
      UserError: the config changes a field that the peers do not read.
    """
    _check_sizes(config)
    # Threads are a number here: left to the frameworks, each would choose its own.
    alike = {"run.device": "cpu", "precision.compute": "float32", "run.threads": config.run.threads or cores()}
    made = []
    for setting, fields in SETTINGS.items():
        chosen = with_values(config, {**fields, **alike})
        peers = {name: folder for name, folder in asked.items() if PEERS[name].setting == setting}
        contenders = [Contender(name, make, chosen) for name, make in twins.items()]
        contenders += [
            Contender(_label(name, folder), functools.partial(PEERS[name].make, checkout=folder), chosen)
            for name, folder in peers.items()
        ]
        notes = [f"{PEERS[name].title}: {PEERS[name].note}" for name in peers]
        if peers:
            made.append(Contest(f"{setting}; threads: {alike['run.threads']}", contenders, tuple(twins), notes))
    return made


def _check_sizes(config: Config) -> None:
    standard = flatten(Config())
    for name, value in flatten(config).items():
        if value != standard[name] and name not in SIZES:
            raise UserError(
                f"--peers with {name}={value}: peers do the work of the default preset; of its fields you can set"
                f" {', '.join(SIZES)}"
            )


def _label(name: str, folder: str) -> str:
    """Names a peer with its version, or with the commit of its checkout."""
    peer = PEERS[name]
    if peer.package:
        return f"{peer.title} {version(peer.package)}"
    command = ["git", "-C", folder, "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True) if (Path(folder) / ".git").exists() else None
    return f"{peer.title} {done.stdout.strip()}" if done and done.returncode == 0 else peer.title
