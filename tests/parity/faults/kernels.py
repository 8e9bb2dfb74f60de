"""Kernels: softmax attention written out, in tiles, and the framework's own."""

from faults.fault import Fault, edited

FLASH = "slm_torch.layers.flash"
ATTEND = "layers.0.attention.attend"
OWN_KERNEL = "scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=shared)"

FAULTS = {
    "softmax over queries": Fault(
        edited("model.layers.0.attention.attend.kernel", "torch.softmax(scores, dim=-1)",
               "torch.softmax(scores, dim=-2)"),
        "dot_product", "dense", "logits", ATTEND,
    ),
    "the bias of the next distance": Fault(
        edited("model.layers.2.attention.attend.kernel", "distance.clamp", "(distance + 1).clamp"),
        "dot_product", "catalogue", "logits", "layers.2.attention.attend",
    ),
    "no gradient through the largest score's weight": Fault(
        edited("model.layers.0.attention.attend.kernel", "torch.softmax(scores, dim=-1)",
               "torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True).detach()"),
        "dot_product", "dense", "gradients", ATTEND,
    ),
    "what was mixed before not rescaled": Fault(
        edited(f"{FLASH}:_Flash.forward", "mixed *= torch.exp(so_far - both)", "pass"),
        "flash", "zoo", "logits", ATTEND,
    ),
    "the running sum not carried on": Fault(
        edited(f"{FLASH}:_Flash.forward", "so_far = both", "so_far = added"),
        "flash", "zoo", "logits", ATTEND,
    ),
    "the tile at the window's end left out": Fault(
        edited(f"{FLASH}:Tiles._meet", "smallest < self.options.window", "smallest < self.options.window - 1"),
        "flash", "zoo", "logits", ATTEND,
    ),
    "the mask of a tile one to the left": Fault(
        edited(f"{FLASH}:Tiles.scores", "x = self.largest - largest", "x = self.largest - largest + 1"),
        "flash", "zoo", "logits", ATTEND,
    ),
    "no mask in tiles that the diagonal crosses": Fault(
        edited(f"{FLASH}:Tiles.scores", "self.biased or smallest < 0 or 0 < self.options.window <= largest",
               "self.biased or 0 < self.options.window <= largest"),
        "flash", "zoo", "logits", "layers.3.attention.attend",
    ),
    "the mean of dy not subtracted": Fault(
        edited(f"{FLASH}:_Flash.backward", "(dout @ value.mT).to(dtype).sub_(_tile(mean, rows))",
               "(dout @ value.mT).to(dtype)"),
        "flash", "zoo", "gradients", "layers.3.attention.attend",
    ),
    "the gradient of queries not scaled": Fault(
        edited(f"{FLASH}:_Flash.backward", "ds.mul_(ctx.options.scale)", "ds"),
        "flash", "zoo", "gradients", "layers.3.attention.attend",
    ),
    "the gradient of keys of the last tile only": Fault(
        edited(f"{FLASH}:_Flash.backward", "dkey += ds.mT @ query", "dkey = ds.mT @ query"),
        "flash", "zoo", "gradients", "layers.3.attention.attend",
    ),
    "the cap's slope forgotten": Fault(
        edited(f"{FLASH}:_Flash.backward", "ds *= slope", "pass"),
        "flash", "zoo", "gradients", ATTEND,
    ),
    "the gradient of sinks of the other sign": Fault(
        edited(f"{FLASH}:_Flash.backward", "-(torch.exp(sinks - log_sum) * mean).sum((0, 1)).to(sinks.dtype)",
               "(torch.exp(sinks - log_sum) * mean).sum((0, 1)).to(sinks.dtype)"),
        "flash", "zoo", "gradients", ATTEND,
    ),
    "the gradient of the bias one distance late": Fault(
        edited(f"{FLASH}:Tiles.add_diagonals", "skewed.sum(1)[:, :-1]", "skewed.sum(1)[:, :-1].roll(1, -1)"),
        "flash", "zoo", "gradients", ATTEND,
    ),
    "no mask where there is a window": Fault(
        edited("model.layers.1.attention.attend.kernel",
               "start == keys_start == 0 and time == keys and not window and bias is None and documents is None",
               "start == keys_start == 0 and time == keys and bias is None and documents is None"),
        "fused", "zoo", "logits", "layers.1.attention.attend",
    ),
    "the framework's own scale": Fault(
        edited("model.layers.1.attention.attend.kernel", OWN_KERNEL, OWN_KERNEL.replace("scale=scale, ", "")),
        "fused", "zoo", "logits", "layers.1.attention.attend",
    ),
    "kv heads repeated in the wrong order": Fault(
        edited("model.layers.1.attention.attend.kernel",
               f"y = {OWN_KERNEL}",
               "k, v = (x.repeat(1, heads // kv_heads, 1, 1) for x in (k, v))\n"
               "kv_heads = heads\n"
               f"y = {OWN_KERNEL}"),
        "fused", "zoo", "logits", "layers.1.attention.attend",
    ),
    "a boolean mask where there is a bias": Fault(
        edited("slm_torch.layers.fused:_mask", "bias is None", "True"),
        "fused", "zoo", "logits", "layers.4.attention.attend",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
