"""Other names of kinds, as papers and other libraries write them, for the hints of error messages."""

_DTYPES = {
    "fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "single": "float32", "fp64": "float64",
    "double": "float64",
}  # fmt: skip

SYNONYMS: dict[str, dict[str, str]] = {
    "attention.kind": {
        "mha": "gqa, and leave model.attention.n_kv_heads unset",
        "multihead": "gqa, and leave model.attention.n_kv_heads unset",
        "softmax": "gqa, and leave model.attention.n_kv_heads unset",
        "mqa": "gqa, and set model.attention.n_kv_heads=1",
        "multiquery": "gqa, and set model.attention.n_kv_heads=1",
        "grouped": "gqa",
        "latent": "mla",
        "diff": "differential",
        "flash": "model.attention.kernel=flash",
        "sdpa": "model.attention.kernel=fused",
        "slidingwindow": "gqa, and set model.attention.window",
        "local": "gqa, and set model.attention.window",
    },
    "attention.kernel": {
        "sdpa": "fused",
        "flashattention": "flash",
        "flash2": "flash",
        "blockwise": "flash",
        "eager": "dot_product",
        "naive": "dot_product",
        "math": "dot_product",
        "dot": "dot_product",
    },
    "attention.qk_norm": {"true": "rmsnorm", "rms": "rmsnorm", "false": "none", "cosine": "l2"},
    "position.kind": {
        "rotary": "rope",
        "absolute": "learned",
        "relative": "t5",
        "sincos": "sinusoidal",
        "fixed": "sinusoidal",
        "nope": "none",
    },
    "norm.kind": {
        "rms": "rmsnorm",
        "ln": "layernorm",
        "layer": "layernorm",
        "dynamictanh": "dyt",
        "tanh": "dyt",
    },
    "norm.placement": {"prenorm": "pre", "postnorm": "post", "peri": "sandwich"},
    "mlp.kind": {
        "silu": "swiglu",
        "swish": "swiglu",
        "glu": "swiglu",
        "gated": "swiglu",
        "ffn": "gelu",
        "dense": "gelu",
        "squaredrelu": "relu2",
        "relusquared": "relu2",
        "mixture": "moe",
        "experts": "moe",
    },
    "optim.kind": {
        "adam": "adamw",
        "adam8bit": "adamw8bit",
        "schedulefree": "schedule_free",
        "momentum": "sgd",
    },
    "optim.schedule": {"cos": "cosine", "const": "constant", "warmupstabledecay": "wsd", "trapezoidal": "wsd"},
    "finetune.kind": {"qlora": "lora, and set finetune.frozen=nf4", "adapter": "lora", "none": "full"},
    "finetune.frozen": {"4bit": "nf4", "8bit": "int8", "bnb4bit": "nf4"},
    "data.source": {"file": "text", "txt": "text", "json": "jsonl", "huggingface": "hf", "hub": "hf"},
    "data.tokenizer": {"bytes": "byte", "utf8": "byte", "character": "char", "gpt2": "file:tokenizer.json"},
    "data.split": {"end": "tail", "last": "tail", "random": "hash"},
    "run.device": {"gpu": "cuda", "nvidia": "cuda"},
    "memory.remat": {"true": "block", "checkpointing": "block", "false": "none"},
    "precision.params": _DTYPES | {name: f"precision.compute={_DTYPES[name]}" for name in ("fp16", "half", "bf16")},
    "precision.compute": _DTYPES,
}
"""{the last two words of a field's name: {another name, in small letters without marks: what to give instead}}."""


def synonym(name: str, value: str) -> str:
    """Returns " (did you mean X?)" if `value` is another name of a choice of this field, or "".

    Args:
      name: the field's dotted name.
      value: as the user wrote it; capitals and the marks - _ . and spaces count for nothing.
    """
    plain = "".join(letter for letter in value.lower() if letter.isalnum())
    meant = SYNONYMS.get(".".join(name.split(".")[-2:]), {}).get(plain)
    return f" (did you mean {meant}?)" if meant else ""
