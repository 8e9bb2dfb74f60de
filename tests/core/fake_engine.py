"""Implements the Engine protocol with a NumPy bigram model, for tests of the loop; as a script, it trains one."""

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np

from slm_core.config import Config, Data, Optim, Run, Train
from slm_core.protocols import FIRST, Evaluation, unscored
from slm_core.runs.states import describe_state, open_state, write_state

TEXT = "".join(f"the {i}th quick brown fox jumps over {i * 7 % 13} lazy dogs.\n" for i in range(120))


class BigramDecoder:
    def __init__(self, weights: np.ndarray, context: int):
        self.weights, self.context = weights, context

    def prefill(self, tokens: list[int]) -> np.ndarray:
        assert 1 <= len(tokens) <= self.context
        return self.weights[tokens[-1]]

    def step(self, token: int) -> np.ndarray:
        return self.weights[token]


class BigramEngine:
    framework = "torch"

    def __init__(self, config: Config, vocab_size: int, weights: object = None):
        self.config, self.choices = config, {}
        self.weights = np.random.default_rng(config.seed).normal(0, 0.02, (vocab_size, vocab_size))
        self.momentum = np.zeros_like(self.weights)
        self.calls: list[tuple] = []  # what the loop asked for, in order
        self.metrics_at: dict[int, dict] = {}  # {step: values that its metrics report instead}
        self.delay = 0.0  # seconds per update

    def facts(self) -> dict[str, str]:
        return {"parameters": f"{self.weights.size:,}"}

    def _losses(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        before, after = tokens[:, :-1].ravel(), tokens[:, 1:].ravel()
        valid = after >= 0
        before, after = (np.maximum(before, unscored(before)) % FIRST)[valid], after[valid]
        logits = self.weights[before]
        logits = logits - logits.max(-1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return before, after, log_probabilities, -log_probabilities[np.arange(len(after)), after]

    def train_step(self, tokens: np.ndarray, lr: float, step: int) -> dict:
        self.calls.append(("train", step))
        if self.delay:
            time.sleep(self.delay)
        before, after, log_probabilities, losses = self._losses(tokens)
        error = np.exp(log_probabilities)
        error[np.arange(len(after)), after] -= 1
        gradient = np.zeros_like(self.weights)
        np.add.at(gradient, before, error / len(after))
        noise = np.random.default_rng((self.config.seed, step)).random()  # as dropout, it depends on the step
        self.momentum = 0.9 * self.momentum + gradient * (0.5 + noise)
        self.weights = self.weights - 100 * lr * self.momentum
        values = {
            "loss": losses.mean(),
            "grad_norm": np.sqrt(np.square(gradient).sum()),
            "loss_scale": 65536.0 if self.config.precision.compute == "float16" else 1.0,
            "skipped": 0.0,
        }
        return {"step": step} | values | self.metrics_at.get(step, {})

    def details(self, tokens: np.ndarray, step: int) -> dict[str, float]:
        self.calls.append(("details", step))
        return {"weight_norm/embed.weight": float(np.linalg.norm(self.weights)), "activation_rms/layers.0": step + 0.5}

    def fetch(self, metrics: dict) -> dict[str, float]:
        self.calls.append(("fetch", metrics["step"]))
        return {name: float(metrics[name]) for name in ("loss", "grad_norm", "loss_scale", "skipped")}

    def eval_step(self, tokens: np.ndarray) -> Evaluation:
        self.calls.append(("eval", tokens.shape))
        _, after, log_probabilities, losses = self._losses(tokens)
        return Evaluation(float(losses.sum()), len(losses), int((log_probabilities.argmax(-1) == after).sum()))

    def decoder(self) -> BigramDecoder:
        self.calls.append(("decoder",))
        return BigramDecoder(self.weights, self.config.data.seq_len)

    def non_finite_parameter(self) -> str:
        return "" if np.isfinite(self.weights).all() else "embed.weight"

    def save(self, folder: Path) -> None:
        assert not any(folder.iterdir())
        self.calls.append(("save",))
        state = {"params/embed.weight": self.weights, "optim/m/embed.weight": self.momentum}
        write_state(folder, state.items(), describe_state(self.config, self.framework))

    def export_state(self, into: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        self.calls.append(("export",))
        return {"params/embed.weight": self.weights.copy(), "optim/m/embed.weight": self.momentum.copy()}

    def import_state(self, state: dict[str, np.ndarray]) -> None:
        self.calls.append(("import",))
        self.weights, self.momentum = state["params/embed.weight"], state["optim/m/embed.weight"]

    def restore(self, folder: Path) -> None:
        state = open_state(folder)
        self.weights, self.momentum = state["params/embed.weight"], state["optim/m/embed.weight"]

    def peak_memory_bytes(self) -> int:
        return 123_456_789


def make_config(folder: Path, name: str = "run", **train: int) -> Config:
    """Returns the config of a tiny run inside `folder`, whose text it writes there."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text(TEXT)
    defaults = {"steps": 20, "batch_size": 4, "eval_every": 5, "eval_batches": 3, "checkpoint_every": 7}
    defaults |= {"log_every": 3, "sample_every": 10, "sample_tokens": 12}
    return Config(
        data=Data(source="text", path=str(text), split="tail", seq_len=16, dir=str(folder / "data")),
        optim=Optim(warmup_steps=2, lr=0.01),
        train=Train(**(defaults | train)),
        run=Run(dir=str(folder / "models"), name=name),
    )


def change(config: Config, **values: object) -> Config:
    """Returns the config with fields of its sections replaced: change(config, train__steps=3)."""
    for name, value in values.items():
        section, _, field = name.partition("__")
        if field:
            value = dataclasses.replace(getattr(config, section), **{field: value})
        config = dataclasses.replace(config, **{section: value})
    return config


def main(folder: str, delay: str) -> None:
    from slm_core.training.loop import train

    def build(config: Config, vocab_size: int, weights: object) -> BigramEngine:
        engine = BigramEngine(config, vocab_size)
        engine.delay = float(delay)
        return engine

    result = train(make_config(Path(folder), steps=200, checkpoint_every=0), build, "torch")
    print(f"RESULT {result.step} {result.finished}")


if __name__ == "__main__":
    main(*sys.argv[1:])
