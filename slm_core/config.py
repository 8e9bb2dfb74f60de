"""The schema: every field that a run can set, its type, default, meaning and the kinds that read it.

One frozen dataclass a section. Presets in `configs/` return `ml_collections.ConfigDict`s made from these classes by
`to_config_dict`; `from_config_dict` turns them back and `slm_core.validate.validate` checks them.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any


def option(
    default: Any,
    doc: str,
    *,
    choices: dict[str, str] | None = None,
    read_by: dict[str, tuple[str, ...]] | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
) -> Any:
    """Declares one config field.

    Args:
      default: the value when nothing sets it.
      doc: meaning and unit, one line; shown by `--help`.
      choices: the valid values of a kind-like field, each with one line of meaning.
      read_by: {selector field of the same section: values of it under which this field is read}; absent means always.
      low, above, high, below: inclusive minimum, exclusive minimum, inclusive maximum, exclusive maximum.
    """
    metadata = dict(doc=doc, choices=choices, read_by=read_by, low=low, above=above, high=high, below=below)
    return dataclasses.field(default=default, metadata=metadata)


DTYPES = {
    "float64": "for proofs",
    "float32": "full precision",
    "bfloat16": "needs hardware with bfloat16 (NVIDIA compute capability 8.0 or later) to be fast",
    "float16": "half the memory; trained with dynamic loss scaling",
}


@dataclass(frozen=True)
class Attention:
    kind: str = option("gqa", "attention mechanism", choices={"gqa": "grouped-query attention (Ainslie 2023)"})
    kernel: str = option(
        "fused",
        "how softmax attention is computed",
        choices={
            "dot_product": "written out in tensor operations (Vaswani 2017)",
            "fused": "the framework's own kernel",
        },
    )
    n_heads: int = option(4, "query heads", low=1)
    n_kv_heads: int | None = option(None, "key/value heads; unset: n_heads (multi-head); 1: multi-query", low=1)
    head_dim: int | None = option(None, "width of a head; unset: d_model / n_heads", low=1)
    qk_norm: str = option(
        "none",
        "normalisation of queries and keys before the position is applied",
        choices={"none": "no normalisation", "rmsnorm": "RMSNorm over each head, one weight vector (Dehghani 2023)"},
    )
    window: int = option(0, "sliding window: tokens that a query sees, itself included; 0: all before it", low=0)
    softcap: float = option(0.0, "cap * tanh(scores / cap) before the softmax (Gemma 2); 0: off", low=0)
    bias: bool = option(False, "biases in the query, key, value and output projections")


@dataclass(frozen=True)
class Position:
    kind: str = option(
        "rope",
        "how the model knows the order of tokens",
        choices={
            "rope": "rotary embedding of queries and keys (Su 2021)",
            "learned": "a learned vector a position, added to the embedding (Radford 2018)",
            "sinusoidal": "fixed sines and cosines, added to the embedding (Vaswani 2017)",
            "none": "no position: the causal mask alone orders tokens (Kazemnejad 2023)",
        },
    )
    theta: float = option(
        10_000.0, "base of the geometric series of wavelengths", read_by={"kind": ("rope", "sinusoidal")}, above=0
    )
    fraction: float = option(
        1.0, "share of head_dim that is rotated (GPT-NeoX: 0.25)", read_by={"kind": ("rope",)}, above=0, high=1
    )
    scaling: str = option(
        "none",
        "how positions beyond the trained context are mapped",
        read_by={"kind": ("rope",)},
        choices={"none": "as trained", "linear": "positions divided by scaling_factor (Chen 2023)"},
    )
    scaling_factor: float = option(1.0, "context extension factor", read_by={"scaling": ("linear",)}, above=0)


@dataclass(frozen=True)
class Norm:
    kind: str = option(
        "rmsnorm",
        "normalisation of the residual stream",
        choices={"layernorm": "mean and variance (Ba 2016)", "rmsnorm": "root mean square (Zhang 2019)"},
    )
    eps: float = option(1e-5, "added to the variance or mean square", above=0)
    bias: bool = option(False, "a bias beside the weight", read_by={"kind": ("layernorm",)})
    placement: str = option(
        "pre",
        "where the norms of a block stand",
        choices={
            "pre": "x + f(norm(x)), and a final norm (Xiong 2020)",
            "post": "norm(x + f(x)), no final norm (Vaswani 2017)",
        },
    )


@dataclass(frozen=True)
class Mlp:
    kind: str = option(
        "swiglu",
        "feed-forward layer",
        choices={"gelu": "down(gelu(up(x))) (Hendrycks 2016)", "swiglu": "down(silu(gate(x)) * up(x)) (Shazeer 2020)"},
    )
    gelu: str = option(
        "erf",
        "which GELU",
        read_by={"kind": ("gelu",)},
        choices={"erf": "exact, by the error function", "tanh": "GPT-2's tanh approximation"},
    )
    hidden: int | None = option(
        None, "inner width; unset: 4 d_model (gelu), 8/3 d_model rounded up to a multiple of 32 (swiglu)", low=1
    )
    bias: bool = option(False, "biases in its linear layers")


@dataclass(frozen=True)
class Model:
    d_model: int = option(128, "width of the residual stream", low=1)
    n_layers: int = option(5, "blocks", low=1)
    tie_embeddings: bool = option(True, "the output head reuses the embedding matrix")
    dropout: float = option(
        0.0, "probability of zeroing an element after the embedding, attention and the MLP", low=0, below=1
    )
    logit_softcap: float = option(0.0, "cap * tanh(logits / cap) (Gemma 2); 0: off", low=0)
    embed_scale: float = option(1.0, "multiplies the token embedding (Gemma: sqrt(d_model))", above=0)
    init_std: float = option(0.02, "standard deviation of initial matrices and embeddings", above=0)
    depth_scaled_init: bool = option(True, "projections into the residual stream start at init_std / sqrt(2 n_layers)")
    pattern: str = option(
        "",
        "overrides of model fields a layer, tiled over the stack: '5*attention.window=256 | .' (configs/README.md)",
    )
    attention: Attention = dataclasses.field(default_factory=Attention)
    position: Position = dataclasses.field(default_factory=Position)
    norm: Norm = dataclasses.field(default_factory=Norm)
    mlp: Mlp = dataclasses.field(default_factory=Mlp)


@dataclass(frozen=True)
class Data:
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
    seq_len: int = option(128, "context: tokens a sequence", low=1)
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
    kind: str = option("adamw", "optimizer", choices={"adamw": "Adam with decoupled weight decay (Loshchilov 2019)"})
    lr: float = option(1e-3, "peak learning rate", above=0)
    betas: tuple[float, float] = option((0.9, 0.95), "decay rates of the first and second moment")
    eps: float = option(1e-8, "added to the square root of the second moment", above=0)
    weight_decay: float = option(0.1, "decoupled decay, multiplied by the learning rate", low=0)
    decay_embeddings: bool = option(False, "weight decay also on embeddings (a tied head counts as one)")
    decay_norms: bool = option(False, "weight decay also on norm weights")
    decay_biases: bool = option(False, "weight decay also on biases")
    clip_norm: float = option(1.0, "global gradient norm is scaled down to this; 0: off", low=0)
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
class Train:
    steps: int = option(600, "updates", low=1)
    batch_size: int = option(16, "sequences an update", low=1)
    micro_batch_size: int = option(0, "sequences held in memory at once, gradients accumulate; 0: batch_size", low=0)
    eval_every: int = option(100, "steps between evaluations; the last step always evaluates; 0: only there", low=0)
    eval_batches: int = option(20, "validation batches an evaluation, at most", low=1)
    checkpoint_every: int = option(200, "steps between checkpoints; the last step always saves; 0: only there", low=0)
    keep_checkpoints: int = option(2, "newest checkpoints kept", low=1)
    log_every: int = option(10, "steps between lines of metrics", low=1)
    sample_every: int = option(200, "steps between text samples; the last step always samples; 0: never", low=0)
    sample_tokens: int = option(200, "tokens a text sample", low=1)


@dataclass(frozen=True)
class Precision:
    params: str = option(
        "float32",
        "parameters and optimizer state",
        choices={k: DTYPES[k] for k in ("float64", "float32")},
    )
    compute: str = option(
        "auto",
        "matrix products and activations (softmax, norm statistics and the loss are float32 or wider)",
        choices=DTYPES | {"auto": "float32 on a CPU; on a GPU what its hardware is good at"},
    )
    loss_scale_init: float = option(65536.0, "first loss scale", read_by={"compute": ("float16", "auto")}, above=0)
    loss_scale_growth_interval: int = option(
        2000, "finite steps before the loss scale doubles", read_by={"compute": ("float16", "auto")}, low=1
    )
    loss_scale_backoff: float = option(
        0.5, "loss scale is multiplied by this after a skipped step", read_by={"compute": ("float16", "auto")},
        above=0, below=1,
    )  # fmt: skip
    loss_scale_max: float = option(
        16777216.0, "the loss scale never grows beyond", read_by={"compute": ("float16", "auto")}, above=0
    )


@dataclass(frozen=True)
class Memory:
    budget_gb: float = option(6.0, "GPU memory that the run may take, in GB of 1e9 bytes; 0: all", low=0)
    remat: str = option(
        "none",
        "what is recomputed in the backward pass instead of stored",
        choices={"none": "nothing", "block": "every block (Chen 2016)"},
    )
    loss_chunk: int = option(0, "tokens whose logits are held at once; 0: all", low=0)


@dataclass(frozen=True)
class Run:
    dir: str = option("models", "folder of runs")
    name: str = option("", "folder of this run inside run.dir; empty: made from the preset, twin and overrides")
    resume: bool = option(True, "continue an interrupted run of this name; False: start a new one beside it")
    device: str = option(
        "auto",
        "where to compute",
        choices={"auto": "a GPU where there is one", "cpu": "the CPU", "cuda": "an NVIDIA GPU"},
    )
    compile: bool = option(False, "torch.compile (the Flax twin always compiles)")
    threads: int = option(0, "CPU threads; 0: one a core", low=0)
    tensorboard: bool = option(True, "also write TensorBoard events")


@dataclass(frozen=True)
class Config:
    seed: int = option(0, "seed of initial weights, data order, dropout and sampling", low=0, high=2**32 - 1)
    model: Model = dataclasses.field(default_factory=Model)
    data: Data = dataclasses.field(default_factory=Data)
    optim: Optim = dataclasses.field(default_factory=Optim)
    train: Train = dataclasses.field(default_factory=Train)
    precision: Precision = dataclasses.field(default_factory=Precision)
    memory: Memory = dataclasses.field(default_factory=Memory)
    run: Run = dataclasses.field(default_factory=Run)
