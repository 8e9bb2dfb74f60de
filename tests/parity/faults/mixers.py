"""Recurrent mixers: what decays, what is erased, what is written, and the state that decoding continues."""

from faults.fault import Fault, changed, edited
from slm_core.model.initialization import Spec

LINEAR, RETENTION, GLA, MAMBA2 = (f"model.layers.{i}.mixer" for i in range(4))
DELTA, GATED_DELTA, KDA = (f"model.layers.{i}.mixer" for i in range(3))
SEGMENT, SCALAR, CHANNEL = (
    "slm_torch.layers.recurrence:Segment", "slm_torch.layers.decay:ScalarDecay", "slm_torch.layers.decay:ChannelDecay",
)  # fmt: skip

FAULTS = {
    "linear attention that is not divided by its sum": Fault(
        edited(f"{LINEAR}.forward", "y[..., :-1] / (y[..., -1:] + EPSILON)", "y[..., :-1]"),
        "linear", "mixers", "logits", "layers.0.mixer",
    ),
    "every head of retention forgets like the first": Fault(
        changed(f"{RETENTION}.log_decay", lambda rates: rates[:1].expand(len(rates))),
        "retention", "mixers", "logits", "layers.1.mixer",
    ),
    "retention turns each call from position 0": Fault(
        edited(f"{RETENTION}.forward", "at_positions(t, start, x.shape[1], documents)",
               "at_positions(t, 0, x.shape[1], documents)"),
        "retention", "mixers", "decoding", "layers.1.mixer",
    ),
    "decay without the temperature": Fault(
        edited(f"{GLA}.forward", "logsigmoid(logits.to(wide(x.dtype))) / TEMPERATURE",
               "logsigmoid(logits.to(wide(x.dtype)))"),
        "gla", "mixers", "logits", "layers.2.mixer",
    ),
    "gate before the norm of a head": Fault(
        edited(f"{GLA}.forward", "self.head_norm(y) * silu(self.by_head(self.g_proj(x)))",
               "self.head_norm(y * silu(self.by_head(self.g_proj(x))))"),
        "gla", "mixers", "logits", "layers.2.mixer",
    ),
    "values of Mamba-2 without the step": Fault(
        edited(f"{MAMBA2}.forward", "step * v", "v"), "mamba2", "mixers", "logits", "layers.3.mixer",
    ),
    "norm of Mamba-2 before the gate": Fault(
        edited(f"{MAMBA2}.forward", "self.output_norm((y.flatten(-2) * silu(self.z_proj(x).to(dtype))).to(x.dtype))",
               "self.output_norm(y.flatten(-2).to(x.dtype)) * silu(self.z_proj(x))"),
        "mamba2", "mixers", "logits", "layers.3.mixer",
    ),
    "keys of any length": Fault(
        edited(f"{DELTA}.replaced", "self.k_norm(k)", "k"), "delta", "deltas", "logits", "layers.0.mixer",
    ),
    "erases by the written key, whose rate then counts twice": Fault(
        edited(f"{DELTA}.replaced",
               "self.recur(q * self.key_dim**-0.5, write, v, cache, documents, log_decay=log_decay, erase=k)",
               "self.recur(q * self.key_dim**-0.5, write, v, cache, documents, log_decay=log_decay, erase=write)"),
        "delta", "deltas", "logits", "layers.0.mixer",
    ),
    "gated delta rule with the gate's sigmoid": Fault(
        edited(f"{GATED_DELTA}.forward", "y * silu(self.by_head(self.g_proj(x)))",
               "y * self.by_head(self.g_proj(x)).sigmoid()"),
        "gated_delta", "deltas", "logits", "layers.1.mixer",
    ),
    "decay without the bias of its step": Fault(
        edited(f"{GATED_DELTA}.forward", "softplus(self.a_proj(x).to(dtype) + self.step_bias)",
               "softplus(self.a_proj(x).to(dtype) + 0 * self.step_bias)"),
        "gated_delta", "deltas", "logits", "layers.1.mixer",
    ),
    "all channels of a head forget alike": Fault(
        edited(f"{KDA}.forward", "self.by_head(steps)", "self.by_head(steps).mean(-1, keepdim=True)"),
        "kda", "deltas", "logits", "layers.2.mixer",
    ),
    "a hybrid's attention in the mixer's order of heads": Fault(
        edited("model.layers.3.attention.forward", "self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))",
               "self.k_proj(x).unflatten(-1, (self.head_dim, self.kv_heads)).mT"),
        "attention", "deltas", "logits", "layers.3.attention",
    ),
    "taps from the newest to the oldest": Fault(
        edited("slm_torch.layers.short_convolution:short_convolution", "enumerate(weight.to(dtype))",
               "enumerate(weight.to(dtype).flip(0))"),
        "mixer.convolution", "mixers", "logits", "layers.0.mixer.q_conv",
    ),
    "each chunk begins with nothing": Fault(
        edited(f"{SEGMENT}.outputs", "self.x_start[:, :, 0] @ states", "self.x_start[:, :, 0] @ states * 0"),
        "mixer.chunk", "mixers", "logits", "layers.0.mixer",
    ),
    "state decayed once too often": Fault(
        edited(f"{SCALAR}.__init__", "g.cumsum(1).exp()", "(g.cumsum(1) + g[:, :1]).exp()"),
        "recurrent state", "mixers", "logits", "layers.1.mixer",
    ),
    "later halves decayed from the chunk's start": Fault(
        edited(f"{CHANNEL}.products", "later @ earlier.mT", "later @ earlier.mT * 0.99"),
        "recurrent state", "mixers", "logits", "layers.2.mixer",
    ),
    "gradient of the erased by the untransposed matrix": Fault(
        edited(f"{SEGMENT}._solve", "lower.mT if transposed else lower", "lower.mT.tril(-1) if transposed else lower"),
        "recurrent state", "deltas", "gradients", "layers.2.mixer",
    ),
    "gradient of a decay without what the next chunk reads": Fault(
        edited(f"{SCALAR}.gradients", "dsums[:, -1] += dto_end.sum(-1)", "dsums[:, -1] += 0 * dto_end.sum(-1)"),
        "recurrent state", "mixers", "gradients", "layers.3.mixer",
    ),
    "gradient of a state that does not decay": Fault(
        edited(f"{SEGMENT}._next", "transition.mT if backward else transition", "transition"),
        "recurrent state", "deltas", "gradients", "layers.2.mixer",
    ),
    "decoding goes on from the prompt's first state": Fault(
        edited(f"{GLA}.recur", "cache[STATE] = last", "cache[STATE] = state"),
        "recurrent state", "mixers", "decoding", "layers.2.mixer",
    ),
    "tail of the convolution one position late": Fault(
        edited(f"{LINEAR}.q_conv.forward", "cache[name] = tail", "cache[name] = tail.roll(1, 1)"),
        "tail of the convolution", "mixers", "decoding", "layers.0.mixer.q_conv",
    ),
    "each key for every other head": Fault(
        edited(f"{GATED_DELTA}._shared", "x[..., None, :].expand(-1, -1, -1, self.sharing, -1).flatten(-3, -2)",
               "x.repeat(1, 1, self.sharing, 1)"),
        "mixer.key_heads", "deltas", "logits", "layers.1.mixer",
    ),
    "norm of Mamba-2 over all groups": Fault(
        changed(f"{MAMBA2}.output_norm.groups", lambda groups: 1),
        "mixer.key_heads", "mixers", "logits", "layers.3.mixer.output_norm",
    ),
    "bias of the convolution forgotten": Fault(
        edited("slm_torch.layers.short_convolution:short_convolution", "bias.to(dtype)", "0 * bias.to(dtype)"),
        "mixer.convolution_bias", "mixers", "logits", "layers.3.mixer.q_conv",
    ),
    "rates that begin alike": Fault(
        changed("slm_torch.layers.mamba2:LOG_RATE", lambda original: Spec("scalar", constant=1.0)),
        "init of rates", "mixers", "initial_weights", "layers.3.mixer",
    ),
}  # fmt: skip
"""{what is wrong: the fault}."""
