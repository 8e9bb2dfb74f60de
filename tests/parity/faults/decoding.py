"""The KV cache, and what reads it."""

from faults.fault import Fault, changed, edited

GQA, EXTEND = "slm_torch.layers.gqa:extend", "slm_torch.layers.differential:extend"

FAULTS = {
    "rolling cache one position late": Fault(
        edited(GQA, "start - room", "start - room + 1"), "rolling cache", "dense", "decoding", "layers.0.attention",
    ),
    "rolling cache of the oldest positions": Fault(
        edited(GQA, "value[:, time:]", "value[:, : value.shape[1] - time]"),
        "rolling cache", "dense", "decoding", "layers.0.attention",
    ),
    "keys before the first position seen": Fault(
        edited("slm_torch.layers.dot_product:visible", "position.clamp(max=window - 1)", "position * 0 + window - 1"),
        "rolling cache", "dense", "decoding", "layers.0.attention.attend",
    ),
    "cache that forgets what it just read": Fault(
        edited(EXTEND, "cache[name][:, start : start + time] = value",
               "cache[name][:, start : start + time - 1] = value[:, 1:]"),
        "KV cache", "catalogue", "decoding", "layers.0.attention",
    ),
    "cache that is written one late": Fault(
        edited(EXTEND, "cache[name][:, start : start + time] = value",
               "cache[name][:, start + (time == 1) : start + time + (time == 1)] = value"),
        "KV cache", "catalogue", "decoding", "layers.0.attention",
    ),
    "keys turned as if each call began at 0": Fault(
        edited("model.layers.1.attention.forward", "self.position(k_rope, start, documents)",
               "self.position(k_rope, 0)"),
        "cache of the latent", "catalogue", "decoding", "layers.1.attention",
    ),
    "values of the latent without the first layer's": Fault(
        changed("model.layers.1.attention.empty_cache", lambda original: lambda *arguments: {
            name: value for name, value in original(*arguments).items() if name != "v"}),
        "cache of the latent", "catalogue", "decoding", "layers.1.attention",
    ),
    "logits of the prompt's first token": Fault(
        edited("slm_torch.generate:Decoder._append", "hidden[0, -1]", "hidden[0, 0]"),
        "decoder", "dense", "decoding", "decoder",
    ),
    "calls counted, not tokens": Fault(
        edited("slm_torch.generate:Decoder._append", "self.length += len(tokens)", "self.length += 1"),
        "decoder", "dense", "decoding", "decoder",
    ),
    "the prompt's first token replaced": Fault(
        edited("slm_torch.generate:Decoder.prefill", "self._append(tokens)", "self._append([0, *tokens[1:]])"),
        "decoder", "dense", "decoding", "decoder",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
