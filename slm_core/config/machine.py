"""Sections of the schema: precision, memory, and the run's folder and device."""

from dataclasses import dataclass

from slm_core.config.bounds import SCALE, STEPS, TOKENS
from slm_core.config.option import option

DTYPES = {
    "float64": "for proofs",
    "float32": "full precision",
    "bfloat16": "needs hardware with bfloat16 (NVIDIA compute capability 8.0 or later) to be fast",
    "float16": "half the memory; trained with dynamic loss scaling",
}


@dataclass(frozen=True)
class Precision:
    """Number formats and loss scaling.

    `params` is the format that parameters and optimizer state are kept in, `compute` the format of the arithmetic,
    which cannot be wider. The `loss_scale` fields apply only when the arithmetic is float16: a loss times the scale
    keeps small gradients above float16's smallest number. An update with a gradient that is not finite is skipped, and
    lowers the scale.
    """

    params: str = option(
        "float32",
        "type of parameters and optimizer state",
        choices={k: DTYPES[k] for k in ("float64", "float32")},
    )
    compute: str = option(
        "auto",
        "type of matrix products and activations (softmax, norm statistics and the loss are float32 or wider)",
        choices=DTYPES | {"auto": "float32 on a CPU; on a GPU the type that a short measurement on it chooses"},
    )
    loss_scale_init: float = option(
        65536.0, "first loss scale", read_by={"compute": ("float16", "auto")}, above=0, high=2.0**50
    )
    loss_scale_growth_interval: int = option(
        2000, "finite steps before the loss scale doubles", read_by={"compute": ("float16", "auto")}, low=1, high=STEPS
    )
    loss_scale_backoff: float = option(
        0.5, "loss scale is multiplied by this after a skipped step", read_by={"compute": ("float16", "auto")},
        above=0, below=1,
    )  # fmt: skip
    loss_scale_max: float = option(
        16777216.0,
        "the loss scale never grows beyond this",
        read_by={"compute": ("float16", "auto")},
        above=0,
        high=2.0**50,
    )
    max_skipped_in_a_row: int = option(
        50, "skipped updates in a row that stop the run", read_by={"compute": ("float16", "auto")}, low=1, high=STEPS
    )


@dataclass(frozen=True)
class Memory:
    """Sets what is traded for memory.

    The run may take a limited part of the device's memory. `remat` and `loss_chunk` save some of it by computing values
    again or in parts: gradients are the same but for rounding, and a step takes longer. Unset or `auto`, they and
    `train.micro_batch_size` are chosen by the planner before the run.
    """

    limit_gb: float = option(
        6.0,
        "memory limit: how much of the device's memory the run may take, in GB of 1e9 bytes; 0: all that is free",
        low=0,
        high=SCALE,
    )
    remat: str = option(
        "auto",
        "values that the backward pass computes again instead of storing them",
        choices={
            "auto": "as few as memory.limit_gb allows",
            "none": "none",
            "attention": "the cheap ones of a block: norms, activations, attention; products with weights are stored",
            "block": "all of a block, from its input",
            "full": "all of about sqrt(n_layers) blocks, from the input of the first, and again of each (Chen 2016)",
        },
    )
    loss_chunk: int | None = option(
        None, "tokens whose logits are in memory at once; 0: all; unset: all if memory.limit_gb allows it, else 1024",
        low=0, high=TOKENS,
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """The run's folder and its device.

    A run lives in `dir`/`name`. `device`, `compile` and `threads` change speed, and results only by rounding.

    `resume_from` and `branch` say what a new run starts from: the newest checkpoint of another run, of either twin.
    With `resume_from` alone the new run goes on with the same settings. With `branch` it may have others, such as
    another learning rate or text (docs/resuming.md).
    """

    dir: str = option("models", "folder that holds the runs")
    name: str = option("", "folder of this run inside run.dir; empty: made from the preset, twin and overrides")
    resume: bool = option(True, "continue an interrupted run of this name; False: start a new one beside it")
    resume_from: str = option(
        "", "run folder of either twin, whose newest checkpoint this run continues; it may be this run's own folder"
    )
    branch: str = option(
        "",
        "name of a new run that starts from the newest checkpoint of run.resume_from, or else of run.name, and may have"
        " other settings",
    )
    device: str = option(
        "auto",
        "where to compute",
        choices={"auto": "a GPU if there is one", "cpu": "the CPU", "cuda": "an NVIDIA GPU"},
    )
    compile: bool = option(False, "torch.compile (the Flax twin always compiles)")
    threads: int = option(0, "CPU threads; 0: one per core", low=0, high=1024)
    async_saving: bool = option(
        True,
        "training goes on while a checkpoint is written, from a copy of parameters and optimizer state in the host's"
        " memory; False: it waits, and there is no copy",
    )
    tensorboard: bool = option(True, "also write TensorBoard events")
    tracker: str = option(
        "none",
        "another tracker that gets the same numbers",
        choices={
            "none": "none",
            "trackio": "Trackio, on this machine (needs the extra: uv sync --extra trackio)",
            "wandb": "Weights & Biases, offline unless WANDB_MODE says otherwise (uv sync --extra wandb)",
        },
    )
