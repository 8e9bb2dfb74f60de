"""Trains the model of another JAX library. None of its code is here."""

import numpy as np

from scripts.benchmarks._checkout import of_checkout
from slm_core.config import Config
from slm_core.data import Batches, prepare
from slm_core.studies.machine import process_peak_bytes
from slm_core.training.schedules import warmup_steps


class NanoDO:
    """Does the updates of nanoDO (https://github.com/google-deepmind/nanodo) in float32 on the CPU.

    The model, the optimizer and its schedule are nanoDO's, the batches those of the twins. nanoDO's own step imports
    TensorFlow, to log and to read data. So the step is written here; the loss is its call of optax.
    """

    def __init__(self, config: Config, checkout: str):
        import jax
        import optax

        from slm_flax.device import prepare_device

        prepare_device(config)
        model_module, optimizer_module = (
            of_checkout("nanodo", checkout, f"nanodo.{x}") for x in ("model", "optimizer")
        )
        dataset = prepare(config.data)
        model = model_module.TransformerDo(model_module.DoConfig(**_sizes(config, dataset.vocab_size)))
        optimizer = optimizer_module.get_optimizer(_optimizer_settings(config))
        self.batches = Batches(dataset, "train", config.data.seq_len, config.train.batch_size, config.seed)
        example = np.zeros((1, config.data.seq_len), np.int32)
        self.params = jax.jit(model.init)(jax.random.key(config.seed), example)["params"]
        self.state = jax.jit(optimizer.init)(self.params)
        self.parameters = sum(p.size for p in jax.tree.leaves(self.params))

        def loss(params, tokens):
            logits = model.apply({"params": params}, tokens[:, :-1])
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

        def update(params, state, tokens):
            value, gradients = jax.value_and_grad(loss)(params, tokens)
            changes, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, changes), state, value

        self.update = jax.jit(update, donate_argnums=(0, 1))

    def run(self, updates: int) -> list[float]:
        losses, pending = [], []
        for _ in range(updates):
            self.params, self.state, loss = self.update(self.params, self.state, next(self.batches))
            pending.append(loss)
            if len(pending) > 1:  # a loss is fetched while the next update runs
                losses.append(float(pending.pop(0)))
        return losses + [float(loss) for loss in pending]

    def peak_memory_bytes(self) -> int:
        return process_peak_bytes()


def _sizes(config: Config, vocab_size: int) -> dict:
    model = config.model
    return dict(
        D=model.d_model, H=model.attention.n_heads, L=config.data.seq_len, N=model.n_layers, V=vocab_size,
        F=4 * model.d_model,
    )  # fmt: skip


def _optimizer_settings(config: Config):
    import ml_collections

    optim = config.optim
    return ml_collections.ConfigDict(
        {
            "optimizer": "adamw",
            "init_learning_rate": 0.0,
            "peak_learning_rate": optim.lr,
            "final_learning_rate": optim.lr * optim.min_lr_ratio,
            "num_train_steps": config.train.steps,
            "warmup_steps": warmup_steps(optim, config.train.steps),
            "decay_type": "cosine",
            "b1": optim.betas[0],
            "b2": optim.betas[1],
            "eps": optim.eps,
            "weight_decay": optim.weight_decay,
            "weight_decay_exclusion_names": ["scale"],  # of the norms
            "clip_by_global_norm": optim.clip_norm,
        }
    )
