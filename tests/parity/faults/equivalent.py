"""Generated mutants that compute the same numbers, or numbers that no test can tell apart, and why."""

EQUIVALENT: dict[str, tuple[str, ...]] = {
    "the same axis, counted from the other end": (
        "quantization.blockwise Quantiser.quantise: -1 -> +1",
        "layers.differential DifferentialAttention.forward: -2 -> +2",
        "layers.flash Tiles.bias_gradient: -1 -> +1",
        "layers.flash Tiles.scores: -1 -> +1",
        "layers.gqa GroupedQueryAttention.forward: -2 -> +2",
        "layers.mla LatentAttention.forward: -2 -> +2",
        "layers.moe MixtureOfExperts.auxiliary_loss: -1 -> +1",
        "layers.moe MixtureOfExperts.route: -1 -> +1",
        "layers.moe MixtureOfExperts.weights: -1 -> +1",
        "layers.moe in_best_groups: -1 -> +1",
        "layers.qk_norm QKNorm.forward: -2 -> +2",
        "loss _TokenLosses.forward: -1 -> +1",
        "loss sums: -1 -> +1",
    ),
    "a bound that no index reaches": (
        "layers.dot_product dot_product: bias.shape[1] - 1 -> bias.shape[1] + 1",
        "layers.fused _mask: bias.shape[1] - 1 -> bias.shape[1] + 1",
    ),
    "a short cut if the rate is 0": ("layers.dropout Dropout.forward: 0 -> 1",),
    "the same 32 bits": (
        "layers.dropout _signed: 2 ** 31 -> 2 * 31",
        "layers.dropout _signed: 2 -> 3",
        "layers.dropout _signed: 31 -> 32",
        "layers.dropout _signed: 32 -> 33",
        "layers.dropout _signed: value - 2 ** 32 -> value + 2 ** 32",
        "layers.dropout _signed: value >= 2 ** 31 -> value > 2 ** 31",
        "layers.dropout keep_mask: -2 ** 31 -> +2 ** 31",
    ),
    "another answer for one hash of 2^32": (
        "layers.dropout keep_mask: hashed ^ flip >= _signed(threshold(rate) ^ 2 ** 31)"
        " -> hashed ^ flip > _signed(threshold(rate) ^ 2 ** 31)",
    ),
    "a mask that hides nothing, a tile that sees nothing, or a kernel that does the same": (
        "layers.flash Tiles._distances: start + rows.start - columns.stop + 1 -> start + rows.start - columns.stop - 1",
        "layers.flash Tiles._distances: start + rows.start -> start - rows.start",
        "layers.flash Tiles._meet: 0 -> 1",
        "layers.flash Tiles._meet: largest >= 0 -> largest > 0",
        "layers.flash Tiles._meet: smallest < self.options.window -> smallest <= self.options.window",
        "layers.flash Tiles.scores: 0 -> 1",
        "layers.flash Tiles.scores: smallest < 0 -> smallest <= 0",
        "layers.flash _Flash.backward: 3 -> 4",
        "layers.fused fused: 0 -> 1",
        "layers.fused fused: if lacking: -> if not lacking:",
        "layers.fused fused: time == keys -> time != keys",
    ),
    "kept for the backward pass or computed again: the same numbers, in memory that its own tests measure": (
        "remat again: if remat == 'attention': -> if not remat == 'attention':",
        "remat again: if remat not in ('attention', 'block', 'full') or not torch.is_grad_enabled():"
        " -> if not (remat not in ('attention', 'block', 'full') or not torch.is_grad_enabled()):",
        "remat again: remat == 'attention' -> remat != 'attention'",
        "remat again: remat not in ('attention', 'block', 'full') or not torch.is_grad_enabled()"
        " -> remat not in ('attention', 'block', 'full') and (not torch.is_grad_enabled())",
        "remat run: if remat != 'full': -> if not remat != 'full':",
        "remat run: remat != 'full' -> remat == 'full'",
    ),
    "the state of a generator that draws no dropout": ("remat again: False -> True",),
    "keys that a kernel shares, or that are repeated for it: the same numbers": (
        "layers.fused fused: heads != kv_heads -> heads == kv_heads",
        "layers.fused fused: heads != kv_heads and (not shared) -> heads != kv_heads or not shared",
        "layers.fused fused: heads != kv_heads and _shares_keys(q, mask) -> heads != kv_heads or _shares_keys(q, mask)",
        "layers.fused fused: if heads != kv_heads and (not shared): -> if not (heads != kv_heads and (not shared)):",
        "layers.fused _shares_keys: True -> False",
        "layers.fused _shares_keys: half and mask is None and"
        " (torch.cuda.get_device_capability(q.device) >= FLASH_CAPABILITY)"
        " -> half or mask is None or torch.cuda.get_device_capability(q.device) >= FLASH_CAPABILITY",
        "layers.fused _shares_keys: if q.device.type == 'cpu': -> if not q.device.type == 'cpu':",
        "layers.fused _shares_keys: q.device.type == 'cpu' -> q.device.type != 'cpu'",
        "layers.fused _shares_keys: torch.cuda.get_device_capability(q.device) >= FLASH_CAPABILITY"
        " -> torch.cuda.get_device_capability(q.device) > FLASH_CAPABILITY",
    ),
    "keys repeated on a GPU, which the kernels' own tests compare": ("layers.fused fused: 1 -> 2",),
    "the scale of zeros and the least of scales, whose bits the quantiser's own tests compare": (
        "quantization.blockwise Quantiser.quantise: 1 -> 2",
        "quantization.blockwise Quantiser.quantise: largest < low -> largest <= low",
    ),
    "how much is worked on at once": ("optim.adamw8bit AdamW8bit.update: 1 -> 2",),
    "an adapter has both of its matrices or none": (
        "layers.lora FrozenLinear.product: self.lora_a is None or self.lora_b is None"
        " -> self.lora_a is None and self.lora_b is None",
    ),
    "a product of the longer side: the same matrix, later": (
        "optim.muon orthogonal: -1 -> +1",
        "optim.muon orthogonal: 1 -> 2",
        "optim.muon orthogonal: u.shape[-2] > u.shape[-1] -> u.shape[-2] >= u.shape[-1]",
    ),
    "a flag of checks, of speed, of gradients that nobody asks for, or of the order of equals": (
        "quantization.blockwise Quantiser.quantise: True -> False",
        "layers.moe ExpertLinear.forward: True -> False",
        "layers.moe MixtureOfExperts.route: True -> False",
        "layers.moe in_best_groups: True -> False",
        "layers.moe rows_by_expert: True -> False",
        "loss loss_sums: False -> True",
        "loss loss_sums: True -> False",
        "model Transformer.forward: True -> False",
        "optim.adafactor Adafactor.update: True -> False",
        "optim.adamw8bit AdamW8bit.update_blocks: True -> False",
        "optim.muon Muon.update: True -> False",
        "trainer Engine.evaluated: False -> True",
        "trainer Engine.state_entries: True -> False",
    ),
    "an auxiliary loss without a gradient, which nothing reads": ("layers.moe MixtureOfExperts.forward: 0.0 -> 1.0",),
    "1e-20 beside scores far larger": (
        "layers.moe MixtureOfExperts.auxiliary_loss: scores.sum(-1, keepdim=True) + TINY"
        " -> scores.sum(-1, keepdim=True) - TINY",
        "layers.moe MixtureOfExperts.weights: weights.sum(-1, keepdim=True) + TINY"
        " -> weights.sum(-1, keepdim=True) - TINY",
    ),
    "a short cut if a factor, a scale or a number of groups is 1": (
        "layers.moe MixtureOfExperts.route: 1 -> 2",
        "layers.moe MixtureOfExperts.weights: 1 -> 2",
        "model Block.add: 1 -> 2",
        "model Transformer.forward: 1 -> 2",
        "model Transformer.logits: 1 -> 2",
        "trainer LossScaler.update: 1 -> 2",
        "trainer Engine._update: 1 -> 2",
    ),
    "every group has a multiplier": ("trainer Engine._update: 1.0 -> 2.0",),
    "every group has the schedule's rate": ("optim.schedule_free ScheduleFree.update: 0 -> 1",),
    "a group without parameters": (
        "optim.base param_groups: 0.0 -> 1.0",
        "optim.base param_groups: 1.0 -> 2.0",
    ),
    "the first group is the embedding's, whose multiplier is 1; tests/conformance/test_optimizers.py has another": (
        "optim.schedule_free ScheduleFree.update: first['lr'] / first['lr_multiplier']"
        " -> first['lr'] * first['lr_multiplier']",
    ),
    "one group holds every expert": ("layers.moe MixtureOfExperts.route: self.groups > 1 -> self.groups >= 1",),
    "both are 1 at the bound": ("trainer clip_factor: norm > limit -> norm >= limit",),
}
"""{why: mutants, as `faults.generated` names them}."""
