"""Reads the folder of a PEFT adapter: LoRA matrices, and modules that were trained whole.

W + scale B A (Hu et al. 2021, https://arxiv.org/abs/2106.09685); of an embedding, W + scale (B A)^T.
Format: https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from slm_core.errors import UserError
from slm_core.hf.adapter_config import CONFIG, AdapterConfig
from slm_core.hf.folder import ReadBin, read_json, read_tensors
from slm_core.model.weights import Lazy, Weights

FILE, FILE_NAME = "adapter_model", "adapter_model.safetensors"
PREFIX = "base_model.model."
KINDS = ("A.weight", "B.weight", "embedding_A", "embedding_B")


def is_adapter(folder: Path) -> bool:
    """Returns whether a folder has a PEFT adapter."""
    return (folder / CONFIG).is_file()


def base_folder(folder: Path, base: str) -> Path:
    """Returns the folder of the checkpoint that an adapter was trained on.

    Args:
      base: the folder that the user gives; "": the one that the adapter names.

    Raises:
      UserError: there is no such folder.
    """
    named = base or str(read_json(folder / CONFIG).get("base_model_name_or_path") or "")
    for candidate in (Path(named).expanduser(), folder / named):
        if named and (candidate / "config.json").is_file():
            return candidate
    raise UserError(
        f"{folder} is an adapter of {named or 'a checkpoint that it does not name'}, which is not a folder with a"
        " config.json: give that checkpoint's folder with --base"
    )


class Pair(NamedTuple):
    """The two matrices of a module's adapter.

    Args:
      module: its name in the class of transformers.
      rank: rows of A.
      scale: the product is multiplied by it.
      a, b: names of the tensors A, [rank, in], and B, [out, rank]; of an embedding, A is [rank, vocab] and B is
        [width, rank].
      embedding: whether it is an embedding's.
    """

    module: str
    rank: int
    scale: float
    a: str
    b: str
    embedding: bool


@dataclass(frozen=True)
class Adapter:
    """An adapter beside the tensors of its checkpoint.

    Args:
      tensors: what is in the adapter's file.
      pairs: {tensor of the checkpoint: what is added to it}.
      base: the tensors of the checkpoint. Modules that were trained whole have taken the place of theirs.
      whole: names of those modules' tensors.
    """

    tensors: Weights
    pairs: Mapping[str, Pair]
    base: Weights
    whole: tuple[str, ...]

    def matrices(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Reads A and B. Raises UserError if their rank is not the config's."""
        a, b = self.tensors[pair.a], self.tensors[pair.b]
        if a.ndim != 2 or b.ndim != 2 or not len(a) == b.shape[1] == pair.rank:
            raise UserError(
                f"tensors {pair.a} and {pair.b} have the shapes {list(a.shape)} and {list(b.shape)}, and {CONFIG} calls"
                f" for rank {pair.rank}: download the adapter again"
            )
        return a, b


def open_adapter(
    folder: Path, checkpoint: Weights, prefix: str, tied: str = "", read_bin: ReadBin | None = None
) -> Adapter:
    """Opens an adapter.

    Args:
      checkpoint: the tensors of the checkpoint that it was trained on.
      prefix: beginning of the names of tensors, which older checkpoints leave out.
      tied: the name of the embedding, if it is also the head.
      read_bin: reads adapter_model.bin; None: it is refused.

    Raises:
      UserError: the adapter is not a plain LoRA, it changes a tensor that the checkpoint does not have, or its file and
        its config contradict each other.
    """
    config, tensors = AdapterConfig(folder), read_tensors(folder, read_bin, FILE)
    whole, parts = {}, {}
    for name in tensors:
        inner = name.removeprefix(PREFIX).replace(".base_layer.", ".")
        module, _, kind = inner.rpartition(".lora_")
        if not module:
            whole[_known(inner, checkpoint, prefix)] = partial(tensors.__getitem__, name)
        elif kind in KINDS:
            parts.setdefault(module, {})[kind.removesuffix(".weight")] = name
        else:
            raise UserError(f"{folder}: tensor {name} is not of a plain LoRA: merge the adapter with PEFT first")
    pairs = {
        _known(f"{module}.weight", checkpoint, prefix): _pair(folder, config, module, names)
        for module, names in parts.items()
    }
    if tied and _known(tied, checkpoint, prefix) in whole | pairs:
        raise UserError(
            f"{folder}: it changes the embedding {tied} alone, and config.json ties the head to it: merge the adapter"
            " with PEFT first"
        )
    base = Lazy({name: partial(checkpoint.__getitem__, name) for name in checkpoint} | whole)
    return Adapter(tensors, pairs, base, tuple(whole))


def _pair(folder: Path, config: AdapterConfig, module: str, names: Mapping[str, str]) -> Pair:
    embedding = any(kind.startswith("embedding") for kind in names)
    a, b = (names.get(f"embedding_{kind}" if embedding else kind) for kind in "AB")
    if len(names) != 2 or not a or not b:
        raise UserError(f"{folder}: {module} does not have one lora_A and one lora_B: download the adapter again")
    if not config.targets(module):
        raise UserError(
            f"{folder}: {module} has an adapter, but {CONFIG} does not name it in target_modules: PEFT would leave it"
            " out; restore the file"
        )
    return Pair(module, *config.shape(module), a, b, embedding)


def _known(name: str, tensors: Weights, prefix: str) -> str:
    """Returns the name under which a checkpoint has a tensor. Older checkpoints leave its beginning out."""
    for known in (name, name.removeprefix(prefix)):
        if known in tensors:
            return known
    raise UserError(f"the adapter changes {name}, which the checkpoint does not have: give another --base")


def merged(adapter: Adapter, inputs_first: tuple[str, ...] = ()) -> Weights:
    """Returns the tensors of a checkpoint with an adapter merged into them, each made when it is read.

    Args:
      inputs_first: ends of the names of matrices that are stored as [in, out].

    Raises:
      UserError: when it is read, a product has another shape than its tensor.
    """
    changed = {name: partial(_sum, name, adapter, name.endswith(inputs_first)) for name in adapter.pairs}
    return Lazy({name: partial(adapter.base.__getitem__, name) for name in adapter.base} | changed)


def _sum(name: str, adapter: Adapter, transposed: bool) -> np.ndarray:
    pair, array = adapter.pairs[name], adapter.base[name]
    a, b = adapter.matrices(pair)
    added = pair.scale * (b @ a)
    if transposed or pair.embedding:
        added = added.T
    if added.shape != array.shape:
        raise UserError(
            f"the adapter adds {list(added.shape)} to tensor {name}, which has the shape {list(array.shape)}: give"
            " another --base"
        )
    return (array + added).astype(array.dtype)
