"""Trains the models of other PyTorch libraries: one loop for all, and one function per library.

None of their code is here. A function builds the library's model, loss and optimizer at the sizes of a config.
"""

import contextlib
import io
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from scripts.benchmarks._checkout import of_checkout
from slm_core.config import Config, Optim
from slm_core.config.layers import layer_specs
from slm_core.data import Batches, prepare
from slm_core.studies.machine import process_peak_bytes
from slm_core.training.schedules import learning_rates


class Parts(NamedTuple):
    """What a library brings: its model, its loss of tokens (int64 [batch, seq_len + 1]), and its optimizer."""

    model: Any
    loss: Callable[[Any], Any]
    optimizer: Any


class TorchPeer:
    """Does the updates of a library in float32 on the CPU, with the batches and the learning rates of the twins.

    Args:
      config: sizes, data and optimizer.
      build: makes the library's parts from the config, the size of the vocabulary and `checkout`.
      checkout: folder of the library's checkout; "" for an installed package.
    """

    def __init__(self, config: Config, build: Callable[[Config, int, str], Parts], checkout: str = ""):
        import torch

        torch.set_num_threads(config.run.threads)
        torch.manual_seed(config.seed)
        dataset = prepare(config.data)
        with contextlib.redirect_stdout(io.StringIO()):  # some libraries print what they build
            self.model, self.loss, self.optimizer = build(config, dataset.vocab_size, checkout)
        self.model.train()
        self.clip_norm = config.optim.clip_norm
        self.batches = Batches(dataset, "train", config.data.seq_len, config.train.batch_size, config.seed)
        self.shares = learning_rates(config.optim, config.train.steps) / config.optim.lr
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.step = 0
        self.parameters = sum(p.numel() for p in self.model.parameters())

    def run(self, updates: int) -> list[float]:
        return [self._update() for _ in range(updates)]

    def _update(self) -> float:
        import torch

        share = float(self.shares[min(self.step, len(self.shares) - 1)])
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        loss = self.loss(torch.from_numpy(next(self.batches)).long())
        loss.backward()
        if self.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss.item()

    def peak_memory_bytes(self) -> int:
        return process_peak_bytes()


def transformers(config: Config, vocab_size: int, checkout: str) -> Parts:
    """Hugging Face transformers (https://github.com/huggingface/transformers): its Llama, which computes its loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = config.model
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=model.d_model,
            intermediate_size=layer_specs(model)[0].mlp.hidden,
            num_hidden_layers=model.n_layers,
            num_attention_heads=model.attention.n_heads,
            max_position_embeddings=config.data.seq_len,
            rms_norm_eps=model.norm.eps,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )

    def loss(tokens):
        targets = tokens[:, 1:].contiguous()
        return llama(tokens[:, :-1], labels=targets, shift_labels=targets).loss

    return Parts(llama, loss, _adamw(llama, config.optim))


def litgpt(config: Config, vocab_size: int, checkout: str) -> Parts:
    """litgpt (https://github.com/Lightning-AI/litgpt): its GPT, loss and optimizer, as in its pre-training."""
    from litgpt.config import Config as GPTConfig  # pyrefly: ignore[missing-import]  # of the group peers
    from litgpt.model import GPT  # pyrefly: ignore[missing-import]
    from litgpt.utils import chunked_cross_entropy, instantiate_torch_optimizer  # pyrefly: ignore[missing-import]

    model, optim = config.model, config.optim
    gpt: Any = GPT(
        GPTConfig(
            block_size=config.data.seq_len,
            **_gpt_sizes(config, vocab_size),
            padded_vocab_size=vocab_size,
            intermediate_size=layer_specs(model)[0].mlp.hidden,
            norm_class_name="RMSNorm",
            norm_eps=model.norm.eps,
            mlp_class_name="LLaMAMLP",
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
        )
    )
    gpt.apply(gpt._init_weights)
    gpt.transformer.wte.weight = gpt.lm_head.weight  # as its option train.tie_embeddings does
    optimizer = instantiate_torch_optimizer("AdamW", gpt.parameters(), **_settings(optim), fused=False)

    def loss(tokens):
        return chunked_cross_entropy(gpt(tokens[:, :-1].contiguous()), tokens[:, 1:].contiguous())

    return Parts(gpt, loss, optimizer)


def x_transformers(config: Config, vocab_size: int, checkout: str) -> Parts:
    """x-transformers (https://github.com/lucidrains/x-transformers): its decoder, and its wrapper with the loss."""
    from x_transformers import (  # pyrefly: ignore[missing-import]  # of the group peers
        AutoregressiveWrapper,
        Decoder,
        TransformerWrapper,
    )

    model, layer = config.model, layer_specs(config.model)[0]
    decoder = Decoder(
        dim=model.d_model,
        depth=model.n_layers,
        heads=model.attention.n_heads,
        attn_dim_head=layer.attention.head_dim,
        attn_flash=True,
        rotary_pos_emb=True,
        rotary_emb_dim=layer.attention.head_dim,
        use_rmsnorm=True,
        ff_glu=True,
        ff_swish=True,
        ff_no_bias=True,
        ff_mult=Fraction(layer.mlp.hidden, model.d_model),  # exact: the library rounds dim * ff_mult down
    )
    length = config.data.seq_len
    transformer = TransformerWrapper(
        num_tokens=vocab_size, max_seq_len=length, attn_layers=decoder, tie_embedding=True, use_abs_pos_emb=False
    )
    net = AutoregressiveWrapper(transformer)
    return Parts(net, net, _adamw(net, config.optim))


def nanogpt(config: Config, vocab_size: int, checkout: str) -> Parts:
    """nanoGPT (https://github.com/karpathy/nanoGPT): its GPT, which computes its loss, and its optimizer."""
    module = of_checkout("nanogpt", checkout, "model")
    optim = config.optim
    gpt = module.GPT(
        module.GPTConfig(
            block_size=config.data.seq_len,
            **_gpt_sizes(config, vocab_size),
            dropout=0.0,
            bias=False,
        )
    )
    optimizer = gpt.configure_optimizers(optim.weight_decay, optim.lr, optim.betas, "cpu")
    return Parts(gpt, lambda tokens: gpt(tokens[:, :-1], tokens[:, 1:].contiguous())[1], optimizer)


def nanochat(config: Config, vocab_size: int, checkout: str) -> Parts:
    """nanochat (https://github.com/karpathy/nanochat): its GPT, which computes its loss, and its Muon with AdamW."""
    import torch

    os.environ["NANOCHAT_DTYPE"] = "float32"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else its import loads kernels for a GPU
    module = of_checkout("nanochat", checkout, "nanochat.gpt")
    with torch.device("meta"):  # its weights are made by init_weights
        gpt = module.GPT(
            module.GPTConfig(
                sequence_len=config.data.seq_len,
                **_gpt_sizes(config, vocab_size),
                n_kv_head=config.model.attention.n_heads,
                window_pattern="L",
            )
        )
    gpt.to_empty(device="cpu")
    gpt.init_weights()
    optimizer = gpt.setup_optimizer(weight_decay=config.optim.weight_decay)
    return Parts(gpt, lambda tokens: gpt(tokens[:, :-1], tokens[:, 1:].contiguous()), optimizer)


def _gpt_sizes(config: Config, vocab_size: int) -> dict[str, int]:
    """Returns the sizes under the names that nanoGPT gave them, and that others took over."""
    model = config.model
    return dict(vocab_size=vocab_size, n_layer=model.n_layers, n_head=model.attention.n_heads, n_embd=model.d_model)


def _settings(optim: Optim) -> dict[str, Any]:
    return dict(lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay)


def _adamw(model: Any, optim: Optim) -> Any:
    """Makes PyTorch's AdamW in one kernel, with decay of matrices alone, as the Trainer of transformers does."""
    import torch

    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, **_settings(optim), fused=True)
