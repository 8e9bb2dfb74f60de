"""Lists the small models of the suite: mixtures of options that could break each other, as overrides of one base.

Independent options share a case, because compiling takes most of the time. Names are those of the schema; "model." may
be left out.
"""

from typing import Any

from slm_core.config import Attention, Config, Data, Memory, Model, Optim, Run, Train

Overrides = dict[str, Any]

BASE = Config(
    model=Model(
        d_model=32, n_layers=1, dropout=0.1, attention=Attention(n_heads=4, n_kv_heads=2, kernel="dot_product")
    ),
    data=Data(seq_len=16),
    optim=Optim(lr=3e-3, clip_norm=0.5, warmup_steps=10),
    train=Train(steps=100, batch_size=4, micro_batch_size=2),
    memory=Memory(remat="block"),
    run=Run(device="cpu"),
)
"""The base of every small case. All that training can turn on is on: dropout, accumulation, clipping, recomputation,
warm-up and decay. It has one layer, because compiling takes most of the suite's time."""

_ATTENTION: dict[str, Overrides] = {
    "gqa, window, sinks, cap": {"attention.window": 5, "attention.sinks": True, "attention.softcap": 2.0},
    "gqa, gated heads, whole norm": {
        "n_layers": 2, "attention.gate": "head", "attention.qk_norm": "rmsnorm", "attention.qk_norm_over": "whole",
        "attention.value_residual": True, "attention.bias": True, "attention.output_bias": False,
        "norm.weight": "one_plus", "norm.eps": 1e-2, "attention.scale": 0.1,  # scores of 1 + w are large
    },
    "gqa, gated elements, cosines": {
        "n_layers": 2, "attention.gate": "element", "attention.qk_norm": "l2", "attention.value_residual": True,
        "attention.window": 5, "attention.scale": 3.0, "attention.output_bias": True, "norm.weight": "none",
    },
    "gqa, 6 heads of 6": {
        "d_model": 40, "attention.n_heads": 6, "attention.head_dim": 6, "mlp.hidden": 40, "norm.eps": 1e-2,
    },
    "mla, ranks, window, sinks, cap": {
        "attention.kind": "mla", "attention.kernel": "flash", "attention.q_rank": 12, "attention.kv_rank": 10,
        "attention.head_dim": 6, "attention.rope_dim": 4, "attention.v_dim": 5, "attention.window": 5,
        "attention.sinks": True, "attention.softcap": 2.0, "position.fraction": 0.5,
    },
    "mla, gated elements, norm, bias": {
        "n_layers": 2, "attention.kind": "mla", "attention.kernel": "fused", "attention.gate": "element",
        "attention.qk_norm": "rmsnorm", "attention.value_residual": True, "attention.window": 5,
        "attention.bias": True, "attention.output_bias": False, "norm.weight": "one_plus",
    },
    "mla, alibi, gated heads, cosines": {
        "attention.kind": "mla", "attention.gate": "head", "attention.qk_norm": "l2",
        "attention.qk_norm_over": "whole", "attention.q_rank": 12, "position.kind": "alibi",
    },
    "mla, t5, scale": {"attention.kind": "mla", "attention.scale": 0.5, "position.kind": "t5"},
    "diff, window, sinks, cap": {
        "attention.kind": "differential", "attention.kernel": "flash", "attention.window": 5, "attention.sinks": True,
        "attention.softcap": 2.0, "attention.gate": "head", "attention.qk_norm": "l2",
        "attention.qk_norm_over": "whole", "attention.bias": True, "attention.n_kv_heads": 1,
    },
    "diff, gated elements, norm": {
        "n_layers": 2, "attention.kind": "differential", "attention.kernel": "fused", "attention.gate": "element",
        "attention.qk_norm": "rmsnorm", "attention.value_residual": True, "attention.window": 5,
        "attention.head_dim": 6, "attention.scale": 0.5, "attention.output_bias": True,
    },
    "diff, t5, multi-head": {
        "attention.kind": "differential", "attention.n_kv_heads": None, "position.kind": "t5", "position.buckets": 6,
        "position.max_distance": 10,
    },
    "diff, alibi, window": {
        "attention.kind": "differential", "attention.window": 5, "position.kind": "alibi",
    },
}  # fmt: skip

_MIXERS: dict[str, Overrides] = {
    "linear, convolution, 3 heads": {
        "mixer.kind": "linear", "mixer.n_heads": 3, "mixer.key_dim": 6, "mixer.value_dim": 5, "mixer.convolution": 3,
        "mixer.chunk": 4,
    },
    "retention, chunks, learned": {"mixer.kind": "retention", "mixer.chunk": 4, "position.kind": "learned"},
    "gla, chunks, rank": {"mixer.kind": "gla", "mixer.chunk": 4, "mixer.decay_rank": 3, "mixer.value_dim": 12},
    "delta, chunks, no convolution": {"mixer.kind": "delta", "mixer.chunk": 4, "mixer.convolution": 0},
    "kda, chunks, wide keys": {"mixer.kind": "kda", "mixer.chunk": 8, "mixer.key_dim": 12},
    "mamba2, chunks, large state": {"mixer.kind": "mamba2", "mixer.chunk": 4, "mixer.key_dim": 20, "mixer.n_heads": 2},
    "gated_delta, shared keys, no MLP": {
        "n_layers": 2, "mixer.kind": "gated_delta", "mixer.key_heads": 2, "mixer.convolution_bias": True,
        "mixer.chunk": 4, "norm.eps": 1e-2, "mlp.kind": "none",
    },
    "mamba2, groups, no MLP in turns": {
        "n_layers": 2, "mixer.kind": "mamba2", "mixer.key_heads": 2, "mixer.convolution_bias": True,
        "norm.placement": "output", "norm.eps": 1e-2, "pattern": "mlp.kind=none | .", "memory.remat": "block",
    },
    "hybrid": {  # outputs of a head are small at first, and its norm would make their rounding large
        "n_layers": 4, "pattern": "mixer.kind=gated_delta,mixer.chunk=4 | mixer.kind=gla | .", "norm.eps": 1e-2,
    },
}  # fmt: skip

_APART = {"data.document_mask": True}
_DOCUMENTS: dict[str, Overrides] = {
    "documents, two layers": {"n_layers": 2, "attention.value_residual": True, "memory.loss_chunk": 7} | _APART,
    "documents, flash, everything": {
        "attention.kernel": "flash", "attention.window": 5, "attention.softcap": 2.0, "attention.sinks": True,
        "position.kind": "t5",
    } | _APART,
    "documents, fused, alibi": {"attention.kernel": "fused", "position.kind": "alibi"} | _APART,
    "documents, mla, learned": {
        "attention.kind": "mla", "attention.kernel": "flash", "position.kind": "learned",
    } | _APART,
    "documents, diff, sinusoidal": {
        "attention.kind": "differential", "attention.kernel": "fused", "position.kind": "sinusoidal",
    } | _APART,
    "documents, mixers": {  # norm.eps: see "hybrid"
        "n_layers": 4, "norm.eps": 1e-2, "memory.remat": "full", "pattern":
        "mixer.kind=retention,mixer.chunk=4,mixer.convolution=3 | mixer.kind=gated_delta,mixer.chunk=4 | "
        "mixer.kind=gla | .",
    } | _APART,
    "documents, stacked, moe": {"n_layers": 3, "mlp.kind": "moe", "memory.remat": "attention"} | _APART,
}  # fmt: skip

_POSITIONS: dict[str, Overrides] = {
    "rope, part": {"position.fraction": 0.5, "position.theta": 100.0},
    "rope, linear": {"position.scaling": "linear", "position.scaling_factor": 4.0},
    "rope, ntk": {"position.scaling": "ntk", "position.scaling_factor": 4.0, "position.theta": 100.0},
    "rope, yarn": {"position.scaling": "yarn", "position.scaling_factor": 4.0, "position.theta": 100.0},
    "rope, yarn, options": {
        "position.scaling": "yarn", "position.scaling_factor": 4.0, "position.theta": 100.0,
        "position.original_context": 12, "position.beta_fast": 1.0, "position.beta_slow": 0.1,
        "position.truncate": False, "position.attention_factor": 1.3, "attention.qk_norm": "rmsnorm",
    },
    "rope, llama3": {
        "position.scaling": "llama3", "position.scaling_factor": 4.0, "position.theta": 100.0,
        "position.original_context": 12, "position.low_freq_factor": 0.1, "position.high_freq_factor": 1.5,
        "attention.window": 5,
    },
    "alibi, 6 heads, sinks": {
        "position.kind": "alibi", "attention.n_heads": 6, "attention.head_dim": 6, "attention.sinks": True,
    },
    "t5, buckets, window, cap": {
        "position.kind": "t5", "position.buckets": 6, "position.max_distance": 10, "attention.window": 9,
        "attention.softcap": 2.0,
    },
    "sinusoidal, theta, post": {
        "position.kind": "sinusoidal", "position.theta": 100.0, "norm.placement": "post", "embed_scale": 3.0,
    },
    "learned, window": {"position.kind": "learned", "attention.window": 5},
}  # fmt: skip

_WEIGHTS = {"one_plus": "1+w", "none": "no w"}
_LESS: Overrides = {"residual_multiplier": 0.5, "n_layers": 2, "pattern": "mlp.kind=none | ."}
"""Beside norms without weights, so that every placement also has a block without an MLP."""
_NORMS: dict[str, Overrides] = {
    f"{placement}, {kind}, {_WEIGHTS[weight]}": {
        "norm.placement": placement, "norm.kind": kind, "norm.weight": weight,
        **({"norm.bias": True} if kind == "layernorm" else {}),
        **(_LESS if weight == "none" else {}),
    }
    for placement, kinds in {
        "pre": ("layernorm", "rmsnorm"), "post": ("layernorm", "rmsnorm"), "sandwich": ("rmsnorm", "layernorm"),
        "output": ("layernorm", "rmsnorm"), "parallel": ("rmsnorm", "layernorm"),
        "parallel_shared": ("layernorm", "rmsnorm"),
    }.items()
    for kind, weight in zip(kinds, _WEIGHTS, strict=True)
}  # fmt: skip
_NORMS |= {
    "layernorm, biases": {
        "norm.kind": "layernorm", "norm.bias": True, "norm.eps": 1e-2, "attention.bias": True, "mlp.bias": True,
    },
    "dyt, sandwich": {"norm.kind": "dyt", "norm.bias": True, "norm.alpha": 0.8, "norm.placement": "sandwich"},
}  # fmt: skip

_MLPS: dict[str, Overrides] = {
    "gelu, tanh, biases": {"mlp.kind": "gelu", "mlp.gelu": "tanh", "mlp.bias": True, "mlp.hidden": 40},
    "geglu, tanh, biases": {"mlp.kind": "geglu", "mlp.gelu": "tanh", "mlp.bias": True},
    "clipped_swiglu, biases, clipped": {  # an MLP that reads a large stream without a norm: inputs reach the bounds
        "mlp.kind": "clipped_swiglu", "mlp.bias": True, "norm.placement": "output", "embed_scale": 12.0,
    },
    "relu2, biases, parallel": {"mlp.kind": "relu2", "mlp.bias": True, "norm.placement": "parallel"},
    "moe, shared, sigmoid, balance": {
        "n_layers": 2, "mlp.kind": "moe", "mlp.experts": 8, "mlp.groups": 4, "mlp.top_groups": 2, "mlp.top_k": 3,
        "mlp.shared_experts": 1, "mlp.router": "sigmoid", "mlp.balance_loss": 0.0, "mlp.balance_bias": 0.01,
        "mlp.bias": True, "mlp.routed_scale": 1.5, "mlp.hidden": 24,
    },
    "moe, clipped_swiglu, router bias": {
        "mlp.kind": "moe", "mlp.expert": "clipped_swiglu", "mlp.experts": 4, "mlp.groups": 2, "mlp.bias": True,
        "mlp.router_bias": True,
    },
    "moe, gelu, z-loss, not to 1": {
        "mlp.kind": "moe", "mlp.expert": "gelu", "mlp.experts": 4, "mlp.top_k": 3, "mlp.renormalise": False,
        "mlp.router_z_loss": 0.01, "mlp.balance_loss": 0.1, "memory.loss_chunk": 7, "norm.placement": "sandwich",
    },
    "moe, relu2, one of 5": {
        "mlp.kind": "moe", "mlp.expert": "relu2", "mlp.experts": 5, "mlp.top_k": 1, "mlp.renormalise": False,
        "mlp.shared_experts": 2, "mlp.shared_gate": True,
    },
    "moe, geglu, biased, muP": {
        "mlp.kind": "moe", "mlp.expert": "geglu", "mlp.bias": True, "mlp.balance_bias": 0.01, "mup_base_width": 16,
    },
}  # fmt: skip

_MODEL: dict[str, Overrides] = {
    "base": {},
    "two layers": {"n_layers": 2},
    "remat, all but products": {  # a first layer of another kind, then two that repeat, of two layers each
        "n_layers": 5, "attention.value_residual": True, "pattern": "attention.window=5 | .",
        "memory.remat": "attention",
    },
    "remat, mixture": {"n_layers": 3, "mlp.kind": "moe", "mlp.balance_bias": 0.01, "memory.remat": "attention"},
    "remat, groups": {  # two groups of two, and one left over
        "n_layers": 5, "attention.kind": "differential", "memory.remat": "full",
    },
    "remat, groups, adafactor": {"n_layers": 4, "optim.kind": "adafactor", "memory.remat": "full"},
    "everything off": {
        "dropout": 0.0, "memory.remat": "none", "train.micro_batch_size": 0, "optim.clip_norm": 0.0,
        "optim.warmup_steps": 0, "optim.weight_decay": 0.0,
    },
    "untied, capped head, bias": {"tie_embeddings": False, "head_bias": True, "logit_softcap": 3.0},
    "embedding, init": {"embed_scale": 5.5, "init_std": 0.1, "depth_scaled_init": False},
    "embedding norm, post, learned": {
        "embed_scale": 5.5, "embed_norm": True, "position.kind": "learned", "norm.placement": "post",
        "norm.kind": "layernorm", "norm.bias": True, "norm.eps": 1e-2,
    },
    "multipliers, z-loss, chunks": {
        "n_layers": 2, "residual_multiplier": 0.3, "logit_multiplier": 0.25, "head_bias": True, "logit_softcap": 3.0,
        "z_loss": 0.01, "memory.loss_chunk": 7,
    },
    "muP, chunks": {"mup_base_width": 16, "memory.loss_chunk": 7, "z_loss": 0.01, "tie_embeddings": False},
    "pattern, windows": {
        "n_layers": 2,
        "pattern": "attention.window=5 | position.kind=none,attention.n_kv_heads=1,mlp.kind=gelu,norm.eps=1e-3",
    },
    "pattern, attention kinds": {
        "n_layers": 3,
        "pattern": "attention.kind=mla,attention.q_rank=12,attention.window=5 | position.kind=alibi | "
        "attention.kind=differential,attention.sinks=True,position.kind=t5",
    },
    "pattern, kernels, norms": {
        "n_layers": 3,
        "norm.placement": "output",
        "pattern": "attention.kernel=flash,attention.window=5,attention.sinks=1 | attention.kernel=fused,norm.kind=dyt"
        " | norm.kind=layernorm,norm.bias=True,mlp.kind=relu2,position.scaling=linear,position.scaling_factor=2",
    },
    "pattern, moe": {"n_layers": 3, "pattern": "mlp.kind=moe,mlp.balance_bias=0.01 | . | mlp.kind=moe,mlp.top_k=1"},
}  # fmt: skip

_OPTIMIZERS: dict[str, Overrides] = {
    "adamw, options": {
        "optim.betas": (0.8, 0.99), "optim.eps": 1e-4, "optim.weight_decay": 0.3, "optim.decay_embeddings": True,
        "optim.decay_norms": True, "optim.decay_biases": True, "optim.lr": 1e-2, "attention.bias": True,
        "mup_base_width": 16, "head_bias": True,
    },
    "adamw8bit, options": {
        "optim.kind": "adamw8bit", "optim.quantised_block": 96, "optim.quantised_from": 1000, "optim.eps": 1e-4,
        "optim.betas": (0.8, 0.99), "optim.lr": 3e-4, "attention.bias": True, "mup_base_width": 16,
    },
    "adamw8bit, layers": {  # three that Flax stacks into one
        "optim.kind": "adamw8bit", "optim.quantised_from": 256, "optim.lr": 3e-4, "n_layers": 3,
    },
    "sgd, plain momentum": {
        "optim.kind": "sgd", "optim.momentum": 0.8, "optim.nesterov": False, "optim.lr": 0.1,
        "optim.weight_decay": 0.01, "mup_base_width": 16, "train.micro_batch_size": 0, "head_bias": True,
    },
    "lion, options": {
        "optim.kind": "lion", "optim.betas": (0.8, 0.98), "optim.lr": 3e-4, "optim.weight_decay": 0.5,
        "optim.decay_norms": True, "mup_base_width": 16,
    },
    "muon, spectral": {
        "optim.kind": "muon", "optim.muon_scale": "spectral", "optim.newton_schulz_steps": 3, "optim.momentum": 0.8,
        "optim.nesterov": False, "optim.betas": (0.8, 0.99), "optim.eps": 1e-4, "mup_base_width": 16,
        "attention.bias": True, "tie_embeddings": False,
    },
    "muon, moe": {"optim.kind": "muon", "mlp.kind": "moe", "mlp.balance_bias": 0.01, "train.micro_batch_size": 0},
    "adafactor, options": {
        "optim.kind": "adafactor", "optim.decay_power": 0.6, "optim.clip_rms": 0.3, "optim.min_rms": 0.05,
        "optim.lr": 1e-2, "optim.decay_embeddings": True, "attention.bias": True, "mup_base_width": 16,
    },
    "adafactor, moe": {"optim.kind": "adafactor", "mlp.kind": "moe", "mlp.balance_bias": 0.01},
    "schedule_free, options": {
        "optim.kind": "schedule_free", "optim.schedule": "constant", "optim.betas": (0.8, 0.99), "optim.eps": 1e-4,
        "optim.weight_decay": 0.3, "optim.decay_biases": True, "attention.bias": True, "mup_base_width": 16,
    },
    "wsd, options": {"optim.schedule": "wsd", "optim.decay_fraction": 0.5, "optim.min_lr_ratio": 0.2},
}  # fmt: skip

_LORA: dict[str, Overrides] = {
    "lora, nf4, every layer": {
        "finetune.kind": "lora", "finetune.frozen": "nf4", "finetune.targets": r"layers\..*|head", "finetune.rank": 3,
        "finetune.alpha": 5.0, "n_layers": 2, "tie_embeddings": False, "attention.gate": "head", "attention.bias": True,
        "attention.n_heads": 3, "attention.n_kv_heads": 1, "attention.head_dim": 10, "mlp.bias": True,
        "head_bias": True,
    },
    "lora, int8, attention": {
        "finetune.kind": "lora", "finetune.frozen": "int8", "finetune.targets": r".*\.q_up_proj|.*(v_up|o)_proj",
        "finetune.rank": 4, "finetune.alpha": 2.0, "n_layers": 2, "attention.kind": "mla", "attention.q_rank": 12,
        "mup_base_width": 16, "optim.kind": "muon",
    },
    "lora, moe": {
        "finetune.kind": "lora", "finetune.frozen": "nf4", "mlp.kind": "moe", "mlp.experts": 5, "mlp.shared_experts": 1,
        "mlp.shared_gate": True, "mlp.balance_bias": 0.01, "memory.remat": "none", "train.micro_batch_size": 0,
    },
    "lora, averaged": {
        "finetune.kind": "lora", "optim.kind": "schedule_free", "optim.schedule": "constant", "memory.loss_chunk": 7,
    },
}  # fmt: skip

OPTIONS: dict[str, dict[str, Overrides]] = {
    "model": _MODEL,
    "mixers": _MIXERS,
    "documents": _DOCUMENTS,
    "attention": _ATTENTION,
    "positions": _POSITIONS,
    "norms": _NORMS,
    "MLPs": _MLPS,
    "optimizers and schedules": _OPTIMIZERS,
    "fine-tuning": _LORA,
}
"""{section: {name: overrides of BASE}}. A choice or number that none of these sets gets a case by itself."""

MEMORY_SETTINGS: Overrides = {
    "n_layers": 3, "memory.remat": "full", "memory.loss_chunk": 20, "finetune.kind": "lora", "finetune.frozen": "nf4",
    "finetune.rank": 3, "finetune.alpha": 2.0,
}  # fmt: skip
"""All that saves memory, together in one float16 case."""

KERNEL_OPTIONS: dict[str, Overrides] = {
    "long, everything": {  # more than two blocks of a blockwise kernel
        "data.seq_len": 300, "attention.window": 140, "attention.softcap": 2.0, "attention.sinks": True,
        "position.kind": "t5",
    },
    "multi-query, window": {"attention.n_kv_heads": 1, "attention.window": 5},
    "sinks, cap, alibi": {"attention.sinks": True, "attention.softcap": 2.0, "position.kind": "alibi"},
    "multi-head, t5": {"attention.n_kv_heads": None, "position.kind": "t5"},
    "long": {"data.seq_len": 300},
    "long, alibi, window": {"data.seq_len": 300, "attention.window": 140, "position.kind": "alibi"},
}  # fmt: skip
"""{name: options that every attention kernel must support}."""

NEEDS: dict[str, Overrides] = {
    # If rounding changes a code, its moment changes by a hundredth.
    "adamw8bit": {"optim.lr": 3e-4, "optim.quantised_from": 256},
    "lion": {"optim.lr": 3e-4},  # signs flip with rounding, and each flip moves a weight by 2 lr
    "schedule_free": {"optim.schedule": "constant"},
}
"""{choice: overrides that it needs to train well in the case that it gets by itself}."""

QUICK = {"base", "two layers", "adamw, options", "fused, multi-query, window", "fused, multi-head, t5"}
"""Cases that run by default, beside one for each component, one for each half precision and the small presets. The
mutation tests also run the suite, on models with most options on."""

FLOAT32_TOO = {"base", "fused, multi-query, window", "fused, multi-head, t5"}
"""Those of QUICK that also run in float32 by default. JAX's fused attention has no float64."""

OPTIMIZED = {
    "two layers", "pattern, windows", "pattern, attention kinds", "pattern, moe", "muP, chunks",
    "flash, long, everything",
    "remat, mixture", "remat, groups, adafactor", "documents, mixers", "adamw8bit, layers", "lora, nf4, every layer",
}  # fmt: skip
"""Cases that XLA compiles with the optimizations of a run, which takes up to five times as long. Each way to save
memory is in one of them, because optimizations could undo it."""
