"""Documents of packed sequences: the mask, the positions, the states and the loss at their borders."""

from faults.fault import Fault, edited

LOSS = "slm_torch.loss"
GATED, RETENTION = "layers.3.mixer", "layers.4.mixer"

FAULTS = {
    "documents not kept apart": Fault(
        edited(f"{LOSS}:read", "numbered(begins_document(tokens)) if model.document_mask else None", "None"),
        "documents", "documents", "logits", "loss",
    ),
    "the third document joined to the second": Fault(
        edited(f"{LOSS}:numbered", "begins.cumsum(1)", "begins.cumsum(1).clamp(max=1)"),
        "documents", "documents", "logits", "loss",
    ),
    "a document begins one token late": Fault(
        edited(f"{LOSS}:read", "numbered(begins_document(tokens))", "numbered(begins_document(tokens).roll(1, 1))"),
        "documents", "documents", "logits", "loss",
    ),
    "no mask of documents in tiles": Fault(
        edited("slm_torch.layers.flash:Tiles.scores",
               "self._by_head(s, rows).masked_fill_(other[:, None], MASKED)", "pass"),
        "documents", "documents", "logits", "layers.0.attention.attend",
    ),
    "no mask of documents in the framework's kernel": Fault(
        edited("slm_torch.layers.fused:_mask",
               "mask = mask & same_document(documents, time, start - keys_start)[:, None]", "pass"),
        "documents", "documents", "logits", "layers.1.attention.attend",
    ),
    "no mask of documents in written-out attention": Fault(
        edited("model.layers.2.attention.attend.kernel",
               "mask = mask & same_document(documents, q.shape[-2], start - keys_start)[:, None, None]", "pass"),
        "documents", "documents", "logits", "layers.2.attention.attend",
    ),
    "the second map sees all documents": Fault(
        edited("model.layers.5.attention.forward",
               "self.attend_2(q[:, :, self.heads :], k[:, :, self.kv_heads :], v, start, keys_start, documents)",
               "self.attend_2(q[:, :, self.heads :], k[:, :, self.kv_heads :], v, start, keys_start)"),
        "documents", "documents", "logits", "layers.5.attention",
    ),
    "a state not reset": Fault(
        edited("model.layers.3.mixer.recur", "documents.numbers", "torch.zeros_like(documents.numbers)"),
        "documents", "documents", "logits", GATED,
    ),
    "a convolution sees over a border": Fault(
        edited("model.layers.3.mixer.k_conv.forward", "documents.numbers", "torch.zeros_like(documents.numbers)"),
        "documents", "documents", "logits", f"{GATED}.k_conv",
    ),
    "positions not begun anew": Fault(  # which only a position on the embedding shows: the others are relative
        edited(f"{LOSS}:numbered", "place - first", "place"),
        "positions in documents", "documents", "logits", "loss",
    ),
    "retention's keys not turned anew with its queries": Fault(
        edited("model.layers.4.mixer.forward", "torch.cat(turned(k, cos, sin), -1)",
               "torch.cat(turned(k, self.cos[: k.shape[1], None], self.sin[: k.shape[1], None]), -1)"),
        "positions in documents", "documents", "logits", RETENTION,
    ),
    "the first token of a document is a target": Fault(
        edited(f"{LOSS}:target_ids", "tokens.clamp(min=IGNORE)",
               "torch.where(begins_document(tokens), input_ids(tokens), tokens.clamp(min=IGNORE))"),
        "first token of a document", "documents", "gradients", "loss",
    ),
    "the first token of a document read as another": Fault(
        edited(f"{LOSS}:input_ids", "torch.maximum(tokens, unscored(tokens)).clamp(min=0) % FIRST",
               "torch.maximum(tokens, unscored(tokens)).clamp(min=0) % (FIRST - 1)"),
        "first token of a document", "documents", "logits", "loss",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
