"""Sections of the schema: data, optimizer, fine-tuning, and the course of a training run."""

from dataclasses import dataclass

from slm_core.config.option import option


@dataclass(frozen=True)
class Data:
    """The text, its tokens, and what is held out.

    `source` names the kind of text and `path` the text itself; `tokenizer` makes tokens of it. What these fields select
    is prepared once, into a folder inside `dir`. `split` and `val_fraction` say which part is for validation. Training
    cuts the tokens into sequences of `seq_len`, which is also the context of the model.
    """

    source: str = option(
        "stdlib",
        "where the text comes from",
        choices={
            "stdlib": "the source text of the running Python's standard library",
            "text": "a text file, a folder of them, or a glob",
            "jsonl": "JSON lines: a file, a folder or a glob",
            "parquet": "Parquet: a file, a folder or a glob",
            "hf": "a Hugging Face dataset: a Hub name or a local folder (needs the extra: uv sync --extra hf)",
        },
    )
    path: str = option("", "file, folder, glob or dataset name", read_by={"source": ("text", "jsonl", "parquet", "hf")})
    text_field: str = option("text", "column that holds the text", read_by={"source": ("jsonl", "parquet", "hf")})
    subset: str = option("", "configuration name of the dataset", read_by={"source": ("hf",)})
    tokenizer: str = option(
        "byte",
        "how text becomes tokens",
        choices={
            "byte": "UTF-8 bytes, vocabulary 256",
            "char": "the corpus's characters",
            "bpe": "byte-level BPE trained on the corpus (Sennrich 2016)",
            "file:PATH": "a tokenizer.json of the tokenizers library",
        },
    )
    vocab_size: int = option(4096, "size of the trained vocabulary", read_by={"tokenizer": ("bpe",)}, low=257)
    seq_len: int = option(128, "context: tokens per sequence", low=1)
    split: str = option(
        "hash",
        "how validation is held out",
        choices={
            "hash": "by a hash of each document; documents over 256 KiB and a lone text file by blocks of 64 KiB",
            "tail": "the last val_fraction of the text",
        },
    )
    val_fraction: float = option(0.1, "share of the text held out for validation", above=0, below=1)
    dir: str = option("data", "folder of prepared datasets")


@dataclass(frozen=True)
class Optim:
    """The optimizer and the learning rate.

    `kind` is the update rule. The fields that are its own, such as `betas` or `momentum`, are refused under other
    kinds. The learning rate rises to `lr` in `warmup_steps` steps, then follows `schedule`; its last value is
    `min_lr_ratio` * lr for every schedule but `constant`. Gradients are clipped to `clip_norm` before the update.

    `weight_decay` acts on matrices. The `decay_` flags extend it to embeddings, norms and biases.
    """

    kind: str = option(
        "adamw",
        "optimizer; torch:NAME or flax:NAME: one that a user added to that twin alone",
        forms=("torch:NAME", "flax:NAME"),
        choices={
            "adamw": "Adam with decoupled weight decay (Loshchilov 2019)",
            "sgd": "gradient descent with momentum (Sutskever 2013)",
            "lion": "sign of an interpolated momentum (Chen 2023)",
            "muon": "orthogonalised momentum for matrices, AdamW for the rest (Jordan 2024)",
            "adafactor": "second moments factored into rows and columns (Shazeer 2018)",
            "adamw8bit": "AdamW with both moments in 8 bits, by blocks (Dettmers 2021)",
            "schedule_free": "AdamW with averaging instead of a schedule (Defazio 2024); set schedule=constant",
        },
    )
    lr: float = option(1e-3, "peak learning rate", above=0)
    betas: tuple[float, float] = option(
        (0.9, 0.95),
        "decay rates of the first and second moment (lion: of the update and the momentum; schedule_free: the first"
        " interpolates between its two sequences)",
        read_by={"kind": ("adamw", "adamw8bit", "lion", "muon", "schedule_free")},
    )
    eps: float = option(
        1e-8, "added to the square root of the second moment",
        read_by={"kind": ("adamw", "adamw8bit", "muon", "schedule_free")}, above=0,
    )  # fmt: skip
    momentum: float = option(0.95, "decay rate of the momentum", read_by={"kind": ("sgd", "muon")}, low=0, below=1)
    nesterov: bool = option(True, "the gradient is added to the momentum once more", read_by={"kind": ("sgd", "muon")})
    newton_schulz_steps: int = option(5, "iterations that orthogonalise an update", read_by={"kind": ("muon",)}, low=1)
    muon_scale: str = option(
        "rms",
        "size of an orthogonalised update",
        read_by={"kind": ("muon",)},
        choices={
            "rms": "times 0.2 sqrt(larger side): as large as AdamW's, so lr serves both (Liu 2025)",
            "spectral": "times sqrt(max(1, out / in)) (Jordan 2024)",
        },
    )
    decay_power: float = option(
        0.8, "second moments decay at 1 - t^-decay_power", read_by={"kind": ("adafactor",)}, above=0, below=1
    )
    clip_rms: float = option(
        1.0,
        "an update with a larger root mean square is scaled down to this",
        read_by={"kind": ("adafactor",)},
        above=0,
    )
    min_rms: float = option(
        1e-3, "lr is multiplied by the parameter's root mean square, but at least by this",
        read_by={"kind": ("adafactor",)}, above=0,
    )  # fmt: skip
    quantised_block: int = option(256, "values that share one scale", read_by={"kind": ("adamw8bit",)}, low=1)
    quantised_from: int = option(
        4096, "parameters of fewer values keep their moments unquantised", read_by={"kind": ("adamw8bit",)}, low=1
    )
    weight_decay: float = option(0.1, "decoupled decay, multiplied by the learning rate", low=0)
    decay_embeddings: bool = option(False, "weight decay also on embeddings (a tied head counts as one)")
    decay_norms: bool = option(False, "weight decay also on norm weights")
    decay_biases: bool = option(False, "weight decay also on biases")
    clip_norm: float = option(1.0, "gradients with a larger global norm are scaled down to this norm; 0: off", low=0)
    schedule: str = option(
        "cosine",
        "learning rate after warm-up",
        choices={
            "constant": "stays at lr",
            "linear": "straight line to min_lr_ratio * lr",
            "cosine": "half a cosine to min_lr_ratio * lr (Loshchilov 2017)",
            "wsd": "warm-up, stable, then straight line to min_lr_ratio * lr over the last decay_fraction (Hu 2024)",
        },
    )
    warmup_steps: int = option(50, "steps of linear warm-up from 0", low=0)
    min_lr_ratio: float = option(
        0.1, "final learning rate / lr", read_by={"schedule": ("linear", "cosine", "wsd")}, low=0, high=1
    )
    decay_fraction: float = option(
        0.2, "share of the steps spent decaying", read_by={"schedule": ("wsd",)}, above=0, high=1
    )


@dataclass(frozen=True)
class Finetune:
    """Sets what training starts from, and what it changes.

    Without `base`, training starts from initial weights. `kind=lora` freezes all of them, and every linear layer whose
    name matches `targets` gets an adapter of inner width `rank`: y = W x + (alpha / rank) B A x. `frozen` says in which
    format the matrices W are stored.
    """

    base: str = option(
        "", "folder of the run whose weights training starts from, imported or trained; empty: initial weights"
    )
    kind: str = option(
        "full",
        "what is trained",
        choices={
            "full": "every parameter",
            "lora": "low-rank adapters beside frozen matrices, and nothing else (Hu 2021)",
        },
    )
    targets: str = option(
        r"layers\..*_proj",
        "regular expression for the whole name of the linear layers that get an adapter",
        read_by={"kind": ("lora",)},
    )
    rank: int = option(8, "inner width of an adapter", read_by={"kind": ("lora",)}, low=1)
    alpha: float = option(
        16.0, "an adapter's output is multiplied by alpha / rank", read_by={"kind": ("lora",)}, above=0
    )
    frozen: str = option(
        "float",
        "how the frozen matrices of the linear layers are stored",
        read_by={"kind": ("lora",)},
        choices={
            "float": "in precision.params",
            "int8": "8 bits, one scale per output channel (Dettmers 2022)",
            "nf4": "4 bits, normal quantiles, blocks of 64 with quantised scales (Dettmers 2023)",
        },
    )


@dataclass(frozen=True)
class Train:
    """Length, batches, evaluation, checkpoints, samples.

    Each of `steps` updates reads `batch_size` sequences, in parts of `micro_batch_size` whose gradients are summed: the
    parts change memory, and the result only by rounding. The `_every` fields count steps between evaluations,
    checkpoints, lines of metrics, their details and text samples.
    """

    steps: int = option(600, "updates", low=1)
    batch_size: int = option(16, "sequences per update", low=1)
    micro_batch_size: int = option(
        0, "sequences held in memory at once, gradients accumulate; 0: as many as memory.limit_gb allows", low=0
    )
    eval_every: int = option(100, "steps between evaluations; the last step always evaluates; 0: only there", low=0)
    eval_batches: int = option(20, "validation batches per evaluation, at most", low=1)
    checkpoint_every: int = option(200, "steps between checkpoints; the last step always saves; 0: only there", low=0)
    keep_checkpoints: int = option(2, "newest checkpoints kept", low=1)
    log_every: int = option(10, "steps between lines of metrics", low=1)
    log_details_every: int = option(
        0,
        "steps between norms of each parameter, its gradient and each layer's activations; the first and the last step"
        " too; 0: never",
        low=0,
    )
    sample_every: int = option(200, "steps between text samples; the last step always samples; 0: never", low=0)
    sample_tokens: int = option(200, "tokens per text sample", low=1)
