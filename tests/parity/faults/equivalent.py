"""Generated mutants that compute the same numbers, or numbers that no test can tell apart, and why."""

EQUIVALENT: dict[str, tuple[str, ...]] = {
    "the same axis, counted from the other end": (
        "layers.differential DifferentialAttention.forward: -2 -> +2",
        "layers.flash Tiles.bias_gradient: -1 -> +1",
        "layers.flash Tiles.scores: -1 -> +1",
        "layers.gqa GroupedQueryAttention.forward: -2 -> +2",
        "layers.mla LatentAttention.forward: -2 -> +2",
        "layers.moe MixtureOfExperts.penalty: -1 -> +1",
        "layers.moe MixtureOfExperts.route: -1 -> +1",
        "layers.moe MixtureOfExperts.weights: -1 -> +1",
        "layers.moe in_best_groups: -1 -> +1",
        "layers.qk_norm QKNorm.forward: -2 -> +2",
        "loss sums: -1 -> +1",
    ),
    "a bound that no index reaches": (
        "layers.dot_product dot_product: bias.shape[1] - 1 -> bias.shape[1] + 1",
        "layers.fused _mask: bias.shape[1] - 1 -> bias.shape[1] + 1",
    ),
    "a short cut where the rate is 0": ("layers.dropout Dropout.forward: 0 -> 1",),
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
    "the scale of zeros, whose bits the quantiser's own tests compare": ("dynamic Quantiser.quantise: 1 -> 2",),
    "a flag of checks, of speed, of gradients that nobody asks for, or of the order of equals": (
        "dynamic Quantiser.quantise: True -> False",
        "layers.moe ExpertLinear.forward: True -> False",
        "layers.moe MixtureOfExperts.route: True -> False",
        "layers.moe in_best_groups: True -> False",
        "layers.moe rows_by_expert: True -> False",
        "loss loss_sums: False -> True",
        "loss loss_sums: True -> False",
        "model Transformer.forward: False -> True",
        "optim.adafactor Adafactor.update: True -> False",
        "optim.adamw8bit AdamW8bit.update: True -> False",
        "optim.base Optimizer.decay: True -> False",
        "optim.muon Muon.update: True -> False",
        "trainer Engine.evaluated: False -> True",
        "trainer Engine.export_state: True -> False",
    ),
    "1e-20 beside scores far larger": (
        "layers.moe MixtureOfExperts.penalty: scores.sum(-1, keepdim=True) + TINY"
        " -> scores.sum(-1, keepdim=True) - TINY",
        "layers.moe MixtureOfExperts.weights: weights.sum(-1, keepdim=True) + TINY"
        " -> weights.sum(-1, keepdim=True) - TINY",
    ),
    "a short cut where a factor, a scale or a number of groups is 1": (
        "layers.moe MixtureOfExperts.route: 1 -> 2",
        "layers.moe MixtureOfExperts.weights: 1 -> 2",
        "model Block.add: 1 -> 2",
        "model Transformer.forward: 1 -> 2",
        "model Transformer.logits: 1 -> 2",
        "scaler LossScaler.update: 1 -> 2",
        "trainer Engine._update: 1 -> 2",
    ),
    "one group holds every expert": ("layers.moe MixtureOfExperts.route: self.groups > 1 -> self.groups >= 1",),
    "both are 1 at the bound": ("optim.clipping clip_factor: norm > limit -> norm >= limit",),
}
"""{why: mutants, as `faults.generated` names them}."""
