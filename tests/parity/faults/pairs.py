"""The tiny models that faults are put into. Together they have every part that a fault breaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parity.cases import BASE, Case
from slm_core.config.fields import with_values
from slm_core.config.validation import drop_unread, validate

FORWARD = ("initial_weights", "logits", "gradients")
TRAINED = ("initial_weights", "update", "loss_curve")
DECODED = (*FORWARD, "update", "loss_curve", "decoding")

WARMUP, UPDATES, HANDED_OVER = 4, 8, 3
"""Updates of a warm-up, a loss curve and a cross-framework resume: enough for a fault, in a twelfth of the time."""


@dataclass(frozen=True)
class Tiny:
    """A model as overrides of BASE; few checks and layers, because compiling takes most of the time.

    Args:
      overrides: fields; "model." may be left out.
      checks: those that its faults can fail, and that a bisection goes through.
      precision: of both twins.
    """

    overrides: Mapping[str, Any]
    checks: tuple[str, ...] = FORWARD
    precision: str = "float64"

    def case(self, name: str) -> Case:
        """Returns the case of a pair of twins."""
        sections = ("optim", "memory", "precision", "train", "data", "finetune")
        full = {f if f.startswith(sections) else f"model.{f}": value for f, value in self.overrides.items()}
        config, _ = drop_unread(BASE, with_values(BASE, {"optim.warmup_steps": WARMUP} | full), full)
        validate(config, full)
        return Case(name, config, checks=self.checks, precisions=(self.precision,), optimized=False)


SMALL = {
    "d_model": 16, "attention.n_heads": 2, "attention.n_kv_heads": 1, "attention.bias": True, "mlp.kind": "relu2",
    "position.kind": "learned", "dropout": 0.0, "train.micro_batch_size": 0, "memory.remat": "none",
}  # fmt: skip
"""Of a model whose optimizer is what matters."""

EXPERTS = {"mlp.kind": "moe", "mlp.experts": 2, "mlp.hidden": 8}
"""Of a model whose optimizer treats matrices of experts one by one."""

HALF = SMALL | {
    "precision.compute": "float16", "precision.loss_scale_growth_interval": 2, "embed_scale": 20_000.0,
    "optim.kind": "sgd", "optim.lr": 0.1,
}  # fmt: skip
"""Of a model in float16, whose stream has squares beyond float16's range."""

CONFIGS: dict[str, Tiny] = {
    "dense": Tiny(
        {
            "n_layers": 2, "embed_scale": 3.0, "embed_norm": True, "logit_multiplier": 0.5, "logit_softcap": 3.0,
            "head_bias": True, "z_loss": 0.01, "residual_multiplier": 0.7, "attention.window": 5,
            "attention.bias": True, "attention.softcap": 2.0, "attention.qk_norm": "rmsnorm",
            "attention.value_residual": True,
            "attention.gate": "head", "attention.scale": 0.4, "norm.kind": "layernorm", "norm.bias": True,
            "mlp.kind": "gelu", "mlp.bias": True, "optim.clip_norm": 0.05, "memory.loss_chunk": 20,
            "memory.remat": "full",
        },
        DECODED,
    ),
    "mixers": Tiny(
        {
            "n_layers": 4, "mixer.chunk": 4, "dropout": 0.0, "train.micro_batch_size": 0, "memory.remat": "none",
            "pattern": "mixer.kind=linear,mixer.convolution=3 | mixer.kind=retention"
            " | mixer.kind=gla,mixer.decay_rank=3"
            " | mixer.kind=mamba2,mixer.key_heads=2,mixer.convolution_bias=True",
        },
        (*FORWARD, "decoding"),
    ),
    "deltas": Tiny(
        {
            "n_layers": 4, "mixer.chunk": 4, "mixer.key_dim": 4, "dropout": 0.0, "train.micro_batch_size": 0,
            "memory.remat": "none",
            "pattern": "mixer.kind=delta | mixer.kind=gated_delta,mixer.key_heads=2 | mixer.kind=kda | mlp.kind=none",
        },
    ),
    "catalogue": Tiny(
        {
            "n_layers": 3, "tie_embeddings": False, "position.kind": "learned", "norm.weight": "one_plus",
            "norm.placement": "sandwich", "attention.n_kv_heads": 4, "attention.value_residual": True,
            "memory.remat": "attention",
            "pattern": "attention.kind=differential,position.kind=alibi |"
            " attention.kind=mla,attention.q_rank=12,attention.qk_norm=rmsnorm,position.kind=rope,"
            "position.scaling=yarn,position.scaling_factor=4,position.theta=100,mlp.kind=moe,mlp.balance_bias=0.01 |"
            " position.kind=t5,position.buckets=6,position.max_distance=10,attention.window=5,attention.sinks=true",
        },
        (*FORWARD, "update", "decoding"),
    ),
    "zoo": Tiny(
        {
            "n_layers": 6, "tie_embeddings": False, "norm.placement": "output",
            "position.kind": "sinusoidal", "position.theta": 100.0,
            "pattern": "attention.kernel=flash,attention.window=6,attention.sinks=1,attention.softcap=2,"
            "position.kind=t5,mlp.kind=relu2 |"
            " attention.kernel=fused,attention.window=5,attention.scale=0.4,position.kind=rope,position.scaling=ntk,"
            "position.scaling_factor=4,norm.kind=layernorm,norm.bias=1,mlp.kind=geglu,"
            "mlp.gelu=tanh |"
            " attention.qk_norm=l2,attention.gate=element,norm.weight=none,"
            "position.kind=rope,position.scaling=llama3,position.scaling_factor=4,position.theta=100,"
            "position.original_context=12,position.low_freq_factor=0.1,position.high_freq_factor=1.5,"
            "mlp.kind=clipped_swiglu |"
            " attention.kernel=flash,norm.kind=dyt,position.kind=rope,"
            "position.scaling=linear,position.scaling_factor=4,position.fraction=0.5,mlp.kind=swiglu |"
            "  attention.kernel=fused,norm.kind=dyt,norm.bias=1,position.kind=alibi,"
            "mlp.kind=gelu,mlp.gelu=tanh |"
            " position.kind=none,attention.qk_norm=rmsnorm,attention.qk_norm_over=whole,"
            "attention.bias=1,attention.output_bias=0,mlp.kind=relu",
        },
        (*FORWARD, "decoding"),
    ),
    "rotations": Tiny(
        {
            "n_layers": 2, "position.scaling": "yarn", "position.scaling_factor": 4.0, "position.theta": 100.0,
            "position.original_context": 12, "position.beta_fast": 1.0, "position.beta_slow": 0.1,
            "position.truncate": False, "position.attention_factor": 1.3, "norm.placement": "post",
            "attention.kernel": "fused",
            "pattern": ". | attention.kind=mla,attention.qk_norm=l2",
        }
    ),
    "mixtures": Tiny(
        {
            "n_layers": 5, "mlp.kind": "moe", "mlp.hidden": 24, "norm.placement": "parallel",
            "pattern": "mlp.expert=gelu,mlp.experts=4,mlp.top_k=3,mlp.renormalise=0,mlp.router_z_loss=0.01,"
            "mlp.balance_loss=0.1 |"
            " mlp.expert=relu2,mlp.router=sigmoid,mlp.shared_experts=1,mlp.bias=1,mlp.routed_scale=1.5 |"
            " mlp.expert=geglu,mlp.experts=8,mlp.groups=4,mlp.top_groups=2,mlp.top_k=3 |"
            " mlp.expert=clipped_swiglu,mlp.experts=4,mlp.router_bias=1,mlp.bias=1 |"
            " mlp.expert=relu,mlp.experts=4,mlp.shared_experts=2,mlp.shared_gate=1",
        }
    ),
    "stacks": Tiny(  # a layer, then three that repeat: a group of two, and one of one
        SMALL | {
            "n_layers": 4, "dropout": 0.1, "attention.kind": "differential", "attention.value_residual": True,
            "memory.remat": "full",
        },
        (*FORWARD, "update"),
    ),
    "documents": Tiny(
        {
            "n_layers": 6, "data.document_mask": True, "position.kind": "learned",
            "pattern": "attention.kernel=flash | attention.kernel=fused,position.kind=alibi,attention.window=9 |"
            " attention.kind=mla,position.kind=rope | mixer.kind=gated_delta,mixer.chunk=4,mixer.convolution=3 |"
            " mixer.kind=retention,mixer.chunk=4 | attention.kind=differential,position.kind=t5",
        }
    ),
    "dyt": Tiny({"n_layers": 1, "norm.kind": "dyt", "norm.bias": True, "norm.alpha": 0.8}),
    "adamw": Tiny(
        SMALL | {
            "optim.betas": (0.8, 0.99), "optim.eps": 1e-4, "optim.weight_decay": 0.3, "optim.decay_embeddings": True,
            "optim.decay_norms": True, "optim.decay_biases": True, "optim.schedule": "wsd",
            "optim.decay_fraction": 0.5, "mup_base_width": 8, "depth_scaled_init": True,
        },
        TRAINED,
    ),
    "adamw8bit": Tiny(
        SMALL | {
            "optim.kind": "adamw8bit", "optim.lr": 3e-4, "optim.quantised_block": 48, "optim.quantised_from": 200,
            "mup_base_width": 8,
        },
        TRAINED,
    ),
    "sgd": Tiny(
        SMALL | {"optim.kind": "sgd", "optim.lr": 0.1, "optim.clip_norm": 100.0, "optim.schedule": "linear"}, TRAINED
    ),
    "lion": Tiny(
        SMALL | {
            "optim.kind": "lion", "optim.lr": 3e-4, "mup_base_width": 8, "norm.placement": "parallel_shared",
            "memory.remat": "block",
            "attention.bias": False,  # that of keys has a gradient of rounding alone, whose sign is chance
        },
        (*FORWARD, "update", "loss_curve"),
    ),
    "muon": Tiny(  # whose AdamW treats one parameter, the embedding, unlike all others
        SMALL | EXPERTS | {
            "optim.kind": "muon", "mup_base_width": 8, "position.kind": "rope", "optim.decay_embeddings": True,
        },
        TRAINED,
    ),
    "spectral": Tiny(
        SMALL | {"optim.kind": "muon", "optim.muon_scale": "spectral", "optim.nesterov": False}, TRAINED
    ),
    "adafactor": Tiny(
        SMALL | EXPERTS | {
            "optim.kind": "adafactor", "mup_base_width": 8, "optim.clip_rms": 0.9, "optim.min_rms": 0.05,
        },
        TRAINED,
    ),
    "schedule_free": Tiny(
        SMALL | {"optim.kind": "schedule_free", "optim.schedule": "constant", "mup_base_width": 8},
        (*TRAINED, "decoding"),
    ),
    "lora": Tiny(
        SMALL | {"finetune.kind": "lora", "finetune.rank": 3, "finetune.targets": r".*\.(q|v|up)_proj"},
        (*FORWARD, "update"),
    ),
    "int8": Tiny(SMALL | {"finetune.kind": "lora", "finetune.frozen": "int8"}),
    "nf4": Tiny(  # with a block that is not full, and a matrix of an odd width
        SMALL | {"finetune.kind": "lora", "finetune.frozen": "nf4", "mlp.hidden": 9}
    ),
    "half": Tiny(
        HALF | {"precision.loss_scale_init": 2.0**24, "precision.loss_scale_backoff": 1e-8}, TRAINED, "float16"
    ),
    "capped": Tiny(
        HALF | {"precision.loss_scale_init": 8.0, "precision.loss_scale_max": 32.0}, (*TRAINED, "resume"), "float16"
    ),
}  # fmt: skip
