"""Trains one of the twins a few updates at a time, to measure its speed."""

from collections.abc import Callable

from slm_core.config import Config
from slm_core.data import Batches, prepare
from slm_core.protocols import Engine
from slm_core.training.schedules import learning_rates


class TwinTrainee:
    """Does the updates of `slm_core.training.loop`, without files and display."""

    def __init__(self, config: Config, build: Callable[[Config, int], Engine]):
        dataset = prepare(config.data)
        self.engine = build(config, dataset.vocab_size)
        self.batches = Batches(dataset, "train", config.data.seq_len, config.train.batch_size, config.seed)
        self.learning_rates = learning_rates(config.optim, config.train.steps)
        self.step = 0
        state = self.engine.export_state()
        self.parameters = sum(value.size for name, value in state.items() if name.startswith("params/"))

    def run(self, updates: int) -> list[float]:
        losses, pending = [], None
        for _ in range(updates):
            lr = float(self.learning_rates[min(self.step, len(self.learning_rates) - 1)])
            metrics = self.engine.train_step(next(self.batches), lr, self.step)
            self.step += 1
            if pending is not None:
                losses.append(self.engine.fetch(pending)["loss"])
            pending = metrics
        return [*losses, self.engine.fetch(pending)["loss"]]

    def peak_memory_bytes(self) -> int:
        return self.engine.peak_memory_bytes()
