"""Sections of the schema: data, optimizer, fine-tuning, and the course of a training run."""

from dataclasses import dataclass

from slm_core.config.bounds import SCALE, SEED, STEPS, TOKENS, WIDTH
from slm_core.config.option import option

TEXTS = ("stdlib", "text", "jsonl", "parquet", "hf")
"""The values of data.source that are text."""


def _task(*tasks: str) -> dict[str, tuple[str, ...]]:
    return {"task": tasks}


@dataclass(frozen=True)
class Data:
    """The text, its tokens, and what is held out; or a synthetic task.

    `source` names the kind of text and `path` the text itself; `tokenizer` makes tokens of it. What these fields select
    is prepared once, into a folder inside `dir`. `split` and `val_fraction` say which part is for validation. Training
    cuts the tokens into sequences of `seq_len`, which is also the context of the model. A sequence may hold several
    documents: `document_mask` and `packing` say what becomes of them.

    With `source=task` there is no text: the sequences of `task` are made as they are needed, and the loss is that of
    their answers alone. `task_symbols` and `task_items` are sizes, whose meaning each task has in its file.
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
            "task": "a synthetic task, made from data.task_seed; only its answers are learnt and measured",
        },
    )
    path: str = option("", "file, folder, glob or dataset name", read_by={"source": ("text", "jsonl", "parquet", "hf")})
    text_field: str = option("text", "column that holds the text", read_by={"source": ("jsonl", "parquet", "hf")})
    subset: str = option("", "configuration name of the dataset", read_by={"source": ("hf",)})
    tokenizer: str = option(
        "byte",
        "how text becomes tokens",
        read_by={"source": TEXTS},
        choices={
            "byte": "UTF-8 bytes, vocabulary 256",
            "char": "the corpus's characters",
            "bpe": "byte-level BPE trained on the corpus (Sennrich 2016)",
            "file:PATH": "a tokenizer.json of the tokenizers library",
        },
    )
    vocab_size: int = option(
        4096, "size of the trained vocabulary", read_by={"tokenizer": ("bpe",)}, low=257, high=TOKENS
    )
    seq_len: int = option(128, "context: tokens per sequence", low=1, high=TOKENS)
    split: str = option(
        "hash",
        "how validation is held out",
        read_by={"source": TEXTS},
        choices={
            "hash": "by a hash of each document; documents over 256 KiB and a lone text file by blocks of 64 KiB",
            "tail": "the last val_fraction of the text",
        },
    )
    val_fraction: float = option(
        0.1, "share of the text held out for validation", read_by={"source": TEXTS}, above=0, below=1
    )
    document_mask: bool = option(
        False,
        "documents of a sequence are kept apart: attention, mixers, positions and the loss stop where one ends",
        read_by={"source": TEXTS},
    )
    packing: str = option(
        "stream",
        "where training sequences begin; validation is always cut as a stream",
        read_by={"source": TEXTS},
        choices={
            "stream": "where the one before ended, whatever is there",
            "documents": "with a document; the rest of a document that a sequence cuts is left out",
        },
    )
    dir: str = option("data", "folder of prepared datasets", read_by={"source": TEXTS})
    task: str = option(
        "mqar",
        "what the model is asked",
        read_by={"source": ("task",)},
        choices={
            "copying": "say a string again after a delay (Arjovsky 2016)",
            "selective_copying": "find the symbols among blanks, and say them again (Gu 2023)",
            "induction": "say what followed the current token before (Olsson 2022)",
            "repetition": "say again what was said before, from any place on (Olsson 2022)",
            "mqar": "say the values of several keys: multi-query associative recall (Arora 2023)",
            "in_context_recall": "say the value that a key had before, pair after pair (MAD, Poli 2024)",
            "noisy_recall": "the same between tokens that mean nothing (MAD, Poli 2024)",
            "compression": "keep a random string, and say the symbol of any place (after MAD, Poli 2024)",
            "memorization": "know the values of keys by heart (MAD, Poli 2024)",
            "modular_addition": "complete a + b = c modulo p; training sees a part of the table (Power 2022)",
            "parity": "say whether a string of bits has an odd number of ones (Hahn 2020)",
            "dyck": "say the kind of each closing bracket (Hewitt 2020)",
            "grammar": "give verbs the number of a subject that is far away (Linzen 2016)",
        },
    )
    task_symbols: int = option(
        64,
        "different symbols: of recall half keys and half values, of modular_addition the modulus, of dyck kinds of"
        " brackets, of grammar nouns",
        read_by=_task(
            "copying", "selective_copying", "induction", "repetition", "mqar", "in_context_recall", "noisy_recall",
            "compression", "memorization", "modular_addition", "dyck", "grammar",
        ),
        low=1, high=WIDTH,
    )  # fmt: skip
    task_items: int = option(
        8,
        "things to remember: symbols to copy, questions of induction, the longest part of repetition, keys of a"
        " sequence, bits of parity, the depth of dyck and grammar",
        read_by=_task(
            "copying", "selective_copying", "induction", "repetition", "mqar", "in_context_recall", "noisy_recall",
            "compression", "parity", "dyck", "grammar",
        ),
        low=1, high=TOKENS,
    )  # fmt: skip
    task_noise: float = option(0.2, "share of noise between the pairs", read_by=_task("noisy_recall"), low=0, below=1)
    task_train_fraction: float = option(
        0.5, "share of all questions that training asks; validation asks the others",
        read_by=_task("modular_addition"), above=0, below=1,
    )  # fmt: skip
    task_train_size: int = option(
        0,
        "sequences that training repeats; 0: no sequence comes twice",
        read_by={"source": ("task",)},
        low=0,
        high=STEPS,
    )
    task_seed: int = option(
        0,
        "seed of the sequences; the run's own seed decides their order",
        read_by={"source": ("task",)},
        low=0,
        high=SEED,
    )


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
    lr: float = option(1e-3, "peak learning rate", above=0, high=SCALE)
    betas: tuple[float, float] = option(
        (0.9, 0.95),
        "decay rates of the first and second moment (lion: of the update and the momentum; schedule_free: the first"
        " interpolates between its two sequences)",
        read_by={"kind": ("adamw", "adamw8bit", "lion", "muon", "schedule_free")},
    )
    eps: float = option(
        1e-8, "added to the square root of the second moment",
        read_by={"kind": ("adamw", "adamw8bit", "muon", "schedule_free")}, low=1e-30, high=1,
    )  # fmt: skip
    momentum: float = option(0.95, "decay rate of the momentum", read_by={"kind": ("sgd", "muon")}, low=0, below=1)
    nesterov: bool = option(True, "the gradient is added to the momentum once more", read_by={"kind": ("sgd", "muon")})
    newton_schulz_steps: int = option(
        5, "iterations that orthogonalise an update", read_by={"kind": ("muon",)}, low=1, high=100
    )
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
        high=SCALE,
    )
    min_rms: float = option(
        1e-3, "lr is multiplied by the parameter's root mean square, but at least by this",
        read_by={"kind": ("adafactor",)}, above=0, high=SCALE,
    )  # fmt: skip
    quantised_block: int = option(
        256, "values that share one scale", read_by={"kind": ("adamw8bit",)}, low=1, high=TOKENS
    )
    quantised_from: int = option(
        4096,
        "parameters of fewer values keep their moments unquantised",
        read_by={"kind": ("adamw8bit",)},
        low=1,
        high=2**40,
    )
    weight_decay: float = option(0.1, "decoupled decay, multiplied by the learning rate", low=0, high=SCALE)
    decay_embeddings: bool = option(False, "weight decay also on embeddings (a tied head counts as one)")
    decay_norms: bool = option(False, "weight decay also on norm weights")
    decay_biases: bool = option(False, "weight decay also on biases")
    clip_norm: float = option(
        1.0, "gradients with a larger global norm are scaled down to this norm; 0: off", low=0, high=SCALE
    )
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
    warmup_steps: int | None = option(
        None, "steps of linear warm-up from 0; unset: 50, but at most half of train.steps", low=0, high=STEPS
    )
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
    rank: int = option(8, "inner width of an adapter", read_by={"kind": ("lora",)}, low=1, high=WIDTH)
    alpha: float = option(
        16.0, "an adapter's output is multiplied by alpha / rank", read_by={"kind": ("lora",)}, above=0, high=SCALE
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
    parts change memory, and the result only by rounding. `minutes` chooses `steps` by the time that the run's own
    updates, evaluations and samples take on this machine. The `_every` fields count steps between evaluations,
    checkpoints, lines of metrics, their details and text samples.
    """

    steps: int = option(600, "updates", low=1, high=STEPS)
    minutes: float = option(
        0.0, "the run lasts about so long: a short measurement chooses train.steps; 0: train.steps", low=0, high=1e5
    )
    batch_size: int = option(16, "sequences per update", low=1, high=TOKENS)
    micro_batch_size: int = option(
        0,
        "sequences held in memory at once, gradients accumulate; 0: as many as memory.limit_gb allows",
        low=0,
        high=TOKENS,
    )
    eval_every: int = option(
        100, "steps between evaluations; the last step always evaluates; 0: only there", low=0, high=STEPS
    )
    eval_batches: int = option(20, "validation batches per evaluation, at most", low=1, high=STEPS)
    checkpoint_every: int = option(
        200, "steps between checkpoints; the last step always saves; 0: only there", low=0, high=STEPS
    )
    keep_checkpoints: int = option(2, "newest checkpoints kept", low=1, high=STEPS)
    keep_best: bool = option(
        False,
        "also keep the checkpoint of the evaluation with the lowest loss; an evaluation that is better than all before"
        " saves one",
    )
    log_every: int = option(10, "steps between lines of metrics", low=1, high=STEPS)
    log_details_every: int = option(
        0,
        "steps between norms of each parameter, its gradient and each layer's activations; the first and the last step"
        " too; 0: never",
        low=0,
        high=STEPS,
    )
    sample_every: int = option(
        200, "steps between text samples; the last step always samples; 0: never", low=0, high=STEPS
    )
    sample_tokens: int = option(200, "tokens per text sample", low=1, high=TOKENS)
