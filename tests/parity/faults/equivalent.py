"""Generated mutants that compute the same numbers, or numbers that no test can tell apart, and why."""

from tests.generated_mutants import Reasons

EQUIVALENT: dict[str, Reasons] = {
    "torch": {
        "the same axis, counted from the other end": (
            "layers.differential DifferentialAttention.forward: -2 -> +2",
            "layers.flash Tiles.scores: -1 -> +1",
            "layers.flash Tiles.bias_gradient: -1 -> +1",
            "quantization.blockwise Quantiser.quantise: -1 -> +1",
            "loss sums: -1 -> +1",
            "loss scores: -1 -> +1",
            "loss piece_scores: -1 -> +1",
            "loss _TokenLosses.forward: -1 -> +1",
            "layers.gqa GroupedQueryAttention.forward: -2 -> +2",
            "layers.mamba2 Mamba2.forward: -2 -> +2",
            "layers.mla LatentAttention.forward: -2 -> +2",
            "layers.moe MixtureOfExperts.auxiliary_loss: -1 -> +1",
            "layers.moe MixtureOfExperts.auxiliary_loss: -1 -> +1",
            "layers.moe MixtureOfExperts.route: -1 -> +1",
            "layers.moe MixtureOfExperts.weights: -1 -> +1",
            "layers.moe in_best_groups: -1 -> +1",
            "layers.qk_norm QKNorm.forward: -2 -> +2",
            "layers.recurrent Recurrent.output: -2 -> +2",
            "layers.retention Retention.forward: -1 -> +1",
        ),
        "a bound that no index reaches": (
            "layers.dot_product dot_product: bias.shape[1] - 1 -> bias.shape[1] + 1",
            "layers.fused _mask: bias.shape[1] - 1 -> bias.shape[1] + 1",
        ),
        "a short cut if the rate is 0": ("layers.dropout Dropout.forward: 0 -> 1",),
        "another answer for one hash of 2^32": (
            "layers.dropout keep_mask: hashed ^ flip >= _signed(threshold(rate) ^ 2 ** 31)"
            " -> hashed ^ flip > _signed(threshold(rate) ^ 2 ** 31)",
        ),
        "the same 32 bits": (
            "layers.dropout keep_mask: -2 ** 31 -> +2 ** 31",
            "layers.dropout _signed: value >= 2 ** 31 -> value > 2 ** 31",
            "layers.dropout _signed: value - 2 ** 32 -> value + 2 ** 32",
            "layers.dropout _signed: 2 ** 31 -> 2 * 31",
            "layers.dropout _signed: 2 -> 3",
            "layers.dropout _signed: 31 -> 32",
            "layers.dropout _signed: 32 -> 33",
        ),
        "documents are never decoded: their queries and keys begin at position 0": (
            "layers.dot_product dot_product: start - keys_start -> start + keys_start",
            "layers.flash Tiles.scores: rows.start + self.options.start -> rows.start - self.options.start",
            "layers.flash Tiles.scores: rows.stop + self.options.start -> rows.stop - self.options.start",
            "layers.fused _mask: start - keys_start -> start + keys_start",
        ),
        "a mask that hides nothing, a tile that sees nothing, or a kernel that does the same": (
            "layers.flash Tiles.scores: smallest < 0 -> smallest <= 0",
            "layers.flash Tiles.scores: 0 -> 1",
            "layers.flash Tiles.scores: 0 -> 1",
            "layers.flash Tiles._meet: smallest < self.options.window -> smallest <= self.options.window",
            "layers.fused fused: time == keys -> time != keys",
            "layers.fused fused: 0 -> 1",
        ),
        "keys that a kernel shares, or that are repeated for it: the same numbers": (
            "layers.fused fused: heads != kv_heads and _shares_keys(q, mask)"
            " -> heads != kv_heads or _shares_keys(q, mask)",
            "layers.fused fused: heads != kv_heads -> heads == kv_heads",
            "layers.fused fused: heads != kv_heads -> heads == kv_heads",
            "layers.fused fused: if heads != kv_heads and (not shared):"
            " -> if not (heads != kv_heads and (not shared)):",
            "layers.fused fused: heads != kv_heads and (not shared) -> heads != kv_heads or not shared",
            "layers.fused _shares_keys: if q.device.type == 'cpu': -> if not q.device.type == 'cpu':",
            "layers.fused _shares_keys: q.device.type == 'cpu' -> q.device.type != 'cpu'",
            "layers.fused _shares_keys: True -> False",
            "layers.fused _shares_keys: half and mask is None and (torch.cuda.get_device_capability(q.device) >="
            " FLASH_CAPABILITY)"
            " -> half or mask is None or torch.cuda.get_device_capability(q.device) >= FLASH_CAPABILITY",
            "layers.fused _shares_keys: torch.cuda.get_device_capability(q.device) >= FLASH_CAPABILITY"
            " -> torch.cuda.get_device_capability(q.device) > FLASH_CAPABILITY",
        ),
        "both halves have one size": ("layers.decay _later: 0 -> 1",),
        "a copy has the same numbers": ("layers.scan _Scan.forward: True -> False",),
        "a CPU has one place for single numbers and for arrays": (
            "optim.base create_state: array.ndim or p in fused -> array.ndim and p in fused",
        ),
        "a user's optimizer is in one twin, so there is no proof in float64: all of its state is float32": (
            "optim.base create_state: part == 'count' -> part != 'count'",
        ),
        "kept for the backward pass or computed again: the same numbers, in memory that its own tests measure": (
            "remat again: if remat == 'attention': -> if not remat == 'attention':",
            "remat again: remat == 'attention' -> remat != 'attention'",
            "remat again: if remat not in ('attention', 'block', 'full') or not torch.is_grad_enabled():"
            " -> if not (remat not in ('attention', 'block', 'full') or not torch.is_grad_enabled()):",
            "remat again: remat not in ('attention', 'block', 'full') or not torch.is_grad_enabled()"
            " -> remat not in ('attention', 'block', 'full') and (not torch.is_grad_enabled())",
            "remat run: if remat != 'full': -> if not remat != 'full':",
            "remat run: remat != 'full' -> remat == 'full'",
        ),
        "the state of a generator that draws no dropout": ("remat again: False -> True",),
        "both are 1 at the bound": ("trainer clip_factor: norm > limit -> norm >= limit",),
        "every group has a multiplier": ("trainer Engine._update: 1.0 -> 2.0",),
        "a short cut if a factor or a scale is 1": (
            "model Block.add: 1 -> 2",
            "model Transformer.forward: 1 -> 2",
            "model Transformer.logits: 1 -> 2",
            "trainer Engine._update: 1 -> 2",
            "trainer LossScaler.update: 1 -> 2",
            "layers.moe MixtureOfExperts.weights: 1 -> 2",
        ),
        "a flag of checks, of speed, or of gradients that nobody asks for": (
            "layers.decay ChannelDecay.gradients: True -> False",
            "quantization.blockwise Quantiser.quantise: True -> False",
            "loss batch_scores: True -> False",
            "loss batch_scores: True -> False",
            "loss loss_sums: True -> False",
            "loss loss_sums: False -> True",
            "loss loss_sums: True -> False",
            "loss token_scores: True -> False",
            "loss token_scores: True -> False",
            "model Transformer.forward: True -> False",
            "trainer Engine.evaluated: False -> True",
            "trainer Engine.non_finite_parameter: True -> False",
            "layers.moe ExpertLinear.forward: True -> False",
            "layers.moe in_best_groups: True -> False",
            "layers.moe rows_by_expert: True -> False",
            "layers.recurrence _Recurrence.backward: True -> False",
            "layers.recurrence _Recurrence.backward: True -> False",
            "layers.recurrence Segment._by_time: True -> False",
            "layers.recurrent Recurrent.qkv: True -> False",
            "optim.adafactor Adafactor.update: True -> False",
            "optim.adamw8bit AdamW8bit.update_blocks: True -> False",
            "optim.adamw8bit AdamW8bit.update_blocks: True -> False",
            "optim.muon Muon.update: True -> False",
        ),
        "keys repeated on a GPU, which the kernels' own tests compare": ("layers.fused fused: 1 -> 2",),
        "an adapter has both of its matrices or none": (
            "layers.lora FrozenLinear.product: self.lora_a is None or self.lora_b is None"
            " -> self.lora_a is None and self.lora_b is None",
        ),
        "an auxiliary loss without a gradient, which nothing reads": (
            "layers.moe MixtureOfExperts.forward: 0.0 -> 1.0",
        ),
        "1e-20 beside scores far larger": (
            "layers.moe MixtureOfExperts.auxiliary_loss: scores.sum(-1, keepdim=True) + TINY"
            " -> scores.sum(-1, keepdim=True) - TINY",
            "layers.moe MixtureOfExperts.weights: weights.sum(-1, keepdim=True) + TINY"
            " -> weights.sum(-1, keepdim=True) - TINY",
        ),
        "how much is worked on at once, or in chunks of which size: the same numbers": (
            "layers.recurrence recurrence: 1 -> 2",
            "layers.recurrence recurrence: 1 -> 2",
            "layers.recurrence recurrence: time - 1 -> time + 1",
            "layers.recurrence _places: 1 -> 2",
            "layers.recurrence _places: 1 -> 2",
            "layers.recurrence _places: v.device.type == 'cpu' -> v.device.type != 'cpu'",
            "layers.recurrence _places: 2 -> 3",
            "optim.adamw8bit AdamW8bit.update: 1 -> 2",
        ),
        "a group without parameters": ("optim.base param_groups: 1.0 -> 2.0",),
        "a product of the longer side: the same matrix, later": (
            "optim.muon orthogonal: u.shape[-2] > u.shape[-1] -> u.shape[-2] >= u.shape[-1]",
            "optim.muon orthogonal: -1 -> +1",
            "optim.muon orthogonal: 1 -> 2",
        ),
    },
}
"""{twin: reasons}."""
