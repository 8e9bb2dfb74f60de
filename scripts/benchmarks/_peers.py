"""Runs the training loops of nanoGPT and nanoDO as contenders of the benchmark, from checkouts that the user has.

None of their code is here: these adapters build their model, optimizer and step with our setting, and feed them.
"""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np

from slm_core.config import Config
from slm_core.errors import UserError
from slm_core.studies.machine import process_peak_bytes
from slm_core.training.schedules import learning_rates


class NanoGPT:
    """nanoGPT (https://github.com/karpathy/nanoGPT): its GPT, its AdamW, the body of its loop, float32 on the CPU."""

    def __init__(self, config: Config, checkout: str):
        import torch

        _use_checkout("nanogpt", checkout, "model.py")
        from model import GPT, GPTConfig  # pyrefly: ignore[missing-import]  # of the checkout

        model = config.model
        self.model = GPT(
            GPTConfig(
                block_size=config.data.seq_len,
                vocab_size=256,
                n_layer=model.n_layers,
                n_head=model.attention.n_heads,
                n_embd=model.d_model,
                dropout=0.0,
                bias=False,
            )
        )
        optim = config.optim
        self.optimizer = self.model.configure_optimizers(optim.weight_decay, optim.lr, optim.betas, "cpu")
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.clip = optim.clip_norm
        self.rates = iter(learning_rates(optim, config.train.steps))
        self.batches = _random_batches(config)
        self.batch = self._next()
        self.parameters = sum(p.numel() for p in self.model.parameters())

    def _next(self):
        import torch

        x, y = next(self.batches)
        return torch.from_numpy(x.astype(np.int64)), torch.from_numpy(y.astype(np.int64))

    def run(self, updates: int) -> list[float]:
        import torch

        losses = []
        for _ in range(updates):
            lr = float(next(self.rates))
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            _, loss = self.model(*self.batch)
            self.batch = self._next()
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
        return losses

    def peak_memory_bytes(self) -> int:
        return process_peak_bytes()


class NanoDO:
    """nanoDO (https://github.com/google-deepmind/nanodo): its TransformerDo, its optimizer, its Trainer, in float32.

    Its step also computes statistics of gradients, parameters and updates; `statistics=False` leaves them out.
    """

    def __init__(self, config: Config, checkout: str, statistics: bool):
        _use_checkout("nanodo", checkout, "nanodo/train.py")
        for absent in (
            "clu",
            "sentencepiece",
            "tensorflow_datasets",
        ):  # its logging and its data, of which nothing is used
            _fallback(absent)
        import jax
        from jax.experimental import mesh_utils
        from jax.sharding import Mesh
        from nanodo import metrics, model_factory, train  # pyrefly: ignore[missing-import]  # of the checkout

        if not statistics:
            metrics.get_metrics = lambda aux, c, loss, *rest: {"train_loss": loss}
        settings = _nanodo_settings(config)
        mesh = Mesh(mesh_utils.create_device_mesh((1,)), ("data",))
        model, get_loss_fn = model_factory.get_model_and_loss(settings, 256)
        shardings, state = train._init_train_state(settings, model, jax.random.PRNGKey(0), mesh)
        self.trainer = train.Trainer(settings, state, mesh, shardings, get_loss_fn)
        self.batches = _random_batches(config)
        self.step = 0
        self.parameters = sum(p.size for p in jax.tree.leaves(state.params))

    def run(self, updates: int) -> list[float]:
        losses, pending = [], []
        for _ in range(updates):
            pending.append(self.trainer.do_step(self.step, next(self.batches)[0]))
            self.step += 1
            if len(pending) > 1:
                losses.append(float(pending.pop(0)["train_loss"]))
        return losses + [float(metrics["train_loss"]) for metrics in pending]

    def peak_memory_bytes(self) -> int:
        return process_peak_bytes()


def _nanodo_settings(config: Config):
    import ml_collections

    model, optim = config.model, config.optim
    shape = dict(
        D=model.d_model,
        H=model.attention.n_heads,
        L=config.data.seq_len,
        N=model.n_layers,
        F=4 * model.d_model,
    )
    rates = dict(
        init_learning_rate=0.0,
        peak_learning_rate=optim.lr,
        final_learning_rate=optim.lr * optim.min_lr_ratio,
    )
    return ml_collections.ConfigDict(
        {
            "model": shape | {"dtype": "float32"},
            "opt": rates
            | {
                "num_train_steps": config.train.steps,
                "warmup_steps": optim.warmup_steps,
                "decay_type": "cosine",
                "optimizer": "adamw",
                "b1": optim.betas[0],
                "b2": optim.betas[1],
                "weight_decay": optim.weight_decay,
                "clip_by_global_norm": optim.clip_norm,
            },
        }
    )


def _random_batches(config: Config) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields inputs and targets, int32 [batch, seq_len], at random places of the tokens that our twins read."""
    from slm_core.data import prepare_text

    tokens, length = prepare_text(config.data).tokens("train"), config.data.seq_len
    random = np.random.default_rng(0)
    while True:
        starts = random.integers(0, len(tokens) - length, config.train.batch_size)
        rows = np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int32)
        yield rows[:, :-1], rows[:, 1:]


def _use_checkout(name: str, checkout: str, needed: str) -> None:
    if not (Path(checkout) / needed).is_file():
        raise UserError(f"--{name}={checkout} has no {needed}: give the folder of a {name} checkout")
    sys.path.insert(0, str(Path(checkout).resolve()))


def _fallback(name: str) -> None:
    """Puts an empty module in place of a package that is not installed, which the measured code never calls."""
    try:
        __import__(name)
    except ImportError:
        module = ModuleType(name)
        module.__getattr__ = lambda name: MagicMock()
        sys.modules[name] = module


nanogpt = NanoGPT
nanodo = functools.partial(NanoDO, statistics=True)
nanodo_bare = functools.partial(NanoDO, statistics=False)
