"""Low-rank adapters (LoRA, Hu 2021) on any run, imported or trained: configs/finetune.py:models/NAME."""

from dataclasses import replace

from ml_collections import ConfigDict

from slm_core.config import Attention, Config, Data, Finetune, Model, Optim, Train
from slm_core.config.conversion import to_config_dict
from slm_core.config.fields import with_values
from slm_core.config.presets import choose
from slm_core.errors import UserError
from slm_core.model.compare import differences
from slm_core.runs.saved import SavedRun, load_run
from slm_core.training.finetuning import tokenizer_field

CONTEXT = 1024
"""Tokens per sequence, at most. A base keeps its own length if a shorter one would make its model another function."""


def tiny() -> Config:
    """llama.py:tiny, its initial weights frozen in 4 bits: for tests (115,008 parameters and 19,456 in adapters)"""
    return Config(
        model=Model(d_model=64, n_layers=2, attention=Attention(n_heads=4, n_kv_heads=2)),
        data=Data(seq_len=32),
        optim=Optim(lr=3e-3, warmup_steps=5),
        finetune=Finetune(kind="lora", frozen="nf4"),
        train=Train(
            steps=30, batch_size=4, eval_every=10, eval_batches=2, checkpoint_every=10, log_every=5,
            sample_every=0, sample_tokens=32,
        ),
    )  # fmt: skip


def of_run(base: SavedRun) -> Config:
    """Adapters of rank 8 beside every linear layer in the blocks of a run, whose matrices are frozen in 4 bits.

    The adapters of a run that was imported with some go on, and its matrices stay floating.
    """
    has_adapters = base.imported is not None and base.config.finetune.kind == "lora"
    finetune = base.config.finetune if has_adapters else Finetune(kind="lora", frozen="nf4")
    return Config(
        model=base.config.model,
        data=Data(source="text", tokenizer=tokenizer_field(base) or "byte", seq_len=_seq_len(base.config)),
        optim=Optim(lr=2e-4, warmup_steps=20, weight_decay=0.0),
        finetune=replace(finetune, base=str(base.folder)),
        train=Train(steps=500, batch_size=16, eval_every=50, checkpoint_every=100, sample_every=100),
    )


def _seq_len(base: Config) -> int:
    length = base.data.seq_len
    shorter = with_values(base, {"data.seq_len": min(CONTEXT, length)})
    fixed = base.model.position.kind == "learned" or differences(shorter, base)
    return length if fixed else shorter.data.seq_len


VARIANTS = {"tiny": tiny}


def get_config(variant: str = "") -> ConfigDict:
    """Makes the config of a variant: "tiny", or the folder of the run to start from."""
    if not variant:
        raise UserError(
            "name the run to start from: configs/finetune.py:models/NAME; scripts/convert.py --import=FOLDER"
            " --run=models/NAME makes a run of a Hugging Face checkpoint"
        )
    if variant in VARIANTS:
        return to_config_dict(choose(VARIANTS, variant))
    return to_config_dict(of_run(load_run(variant)))
