"""Constants that were read off the plans of one version of XLA: what its compilers keep and need.

`scripts/read_xla_constants.py` reads them again with the XLA that is installed. Read them again after each upgrade of
jax, and change them here if a reading is off. The tests of `tests/flax/test_flax_memory.py` then say how good they are.
"""

from typing import NamedTuple

MEASURED_WITH = "jax 0.10.2"
"""The version whose plans were read. The card is an NVIDIA GPU of compute capability 7.5 (`slm_flax.memory.CARD`)."""


class Compiler(NamedTuple):
    """The constants of one of XLA's compilers: that for CPUs or that for GPUs.

    Of a layer, in values per token that are kept for the backward pass:

    Args:
      norm: {norm.kind: vectors of the stream's width}: the norm's result, and values that it was computed from.
      mlp: {mlp.kind: vectors of the hidden width}: results of products, and of the activation's steps.
      scores: arrays of all scores that the kernel dot_product keeps: softmax, softmax before the mask, exponentials.
      loop: arrays of queries, and of keys, that flash keeps: as they are, and as its second loop reads them.
      block_keys: arrays of keys, and of values, that fused keeps, as each block of queries has its own slice of them;
        0 on a GPU, because there flash computes in the place of fused.
      softcap: arrays of scores before they are capped.
      qk_norm: arrays of queries, and of keys: as they come, normalised, scaled, rotated.
      latent: arrays of MLA's latents: as they come, and normalised.
      joined: arrays of MLA's keys before their rotary part is joined to them.
      difference: arrays of differential attention's result: both maps, their difference, its norm.
      gate: arrays of attention's result: the gate, before and after its sigmoid, and its other factor.
      mixed: arrays of values: a layer's own and the first layer's, if they are mixed.
      routed_hidden: arrays of a mixture's rows of the hidden width, beside those of `mlp`.
      routed_stream: arrays of a mixture's rows of the stream's width, sorted and weighted.

    Of a whole update:

    Args:
      streams_at_loss: arrays of the stream at the loss: the embedding, the final norm's input and its result.
      logits, logits_in_loop: arrays of all logits at the loss: logits, exponentials, gradients. The second count is
        for an update that loops over micro-batches or layers.
      narrow_streams: arrays of the stream that a layer keeps beside the rest if it computes in a narrow dtype.
      adapted: arrays of the adapters' results in a layer that is computed again; the others are added in place.
      moved: arrays of each trained shape outside of the loop that the optimizer moves before it writes the new one.
      moved_8bit: the same of 8-bit AdamW.
      slices_8bit: slices in full precision that 8-bit AdamW works on.
      workspace: bytes that the library of matrix products takes.
      sums_apart_from: tokens of a micro-batch from which sums are computed apart from their terms; None: never.
    """

    norm: dict[str, float]
    mlp: dict[str, float]
    scores: float
    loop: float
    block_keys: float
    softcap: float
    qk_norm: float
    latent: float
    joined: float
    difference: float
    gate: float
    mixed: float
    routed_hidden: float
    routed_stream: float
    streams_at_loss: float
    logits: float
    logits_in_loop: float
    narrow_streams: float
    adapted: float
    moved: float
    moved_8bit: float
    slices_8bit: float
    workspace: float
    sums_apart_from: int | None


COMPILERS = {
    "cpu": Compiler(
        norm={"rmsnorm": 2, "layernorm": 3, "dyt": 2},
        mlp={"swiglu": 5, "geglu": 6, "clipped_swiglu": 6, "gelu": 4, "relu": 2, "relu2": 2},
        scores=3, loop=2, block_keys=2.5, softcap=1, qk_norm=4, latent=3, joined=0, difference=5, gate=1, mixed=1,
        routed_hidden=1, routed_stream=3, streams_at_loss=3, logits=3, logits_in_loop=2, narrow_streams=3, adapted=1,
        moved=1, moved_8bit=2, slices_8bit=7, workspace=0, sums_apart_from=4096,
    ),
    "gpu": Compiler(
        norm={"rmsnorm": 1, "layernorm": 1, "dyt": 2},
        mlp={"swiglu": 3, "geglu": 4, "clipped_swiglu": 3.5, "gelu": 3, "relu": 2, "relu2": 2},
        scores=2, loop=1, block_keys=0, softcap=0, qk_norm=1.25, latent=2, joined=1, difference=1, gate=2.5, mixed=4,
        routed_hidden=0, routed_stream=2, streams_at_loss=3, logits=2, logits_in_loop=2, narrow_streams=3, adapted=0.5,
        moved=0, moved_8bit=1, slices_8bit=7, workspace=4 * 2**20, sums_apart_from=None,
    ),
}  # fmt: skip
"""{"cpu" or "gpu": constants}. Of `sums_apart_from`, 2048 and 4096 tokens were tried, and no number between them."""
