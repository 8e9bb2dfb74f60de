"""Mistakes that no comparison of small twins shows: in both twins, in `slm_core`, on paths that they do not take.

Each is an edit of the sources. A test of another kind must find it: one that compares with an outside source, with a
truth in float64, or with what the specification says.
"""

from dataclasses import dataclass

OUTSIDE = "tests/outside/test_formulas.py"
"""Compares each formula with what others wrote."""
RANDOM = "tests/outside/test_random_numbers.py"
EXTREMES = "tests/conformance/test_extremes.py"
NARROW = "tests/parity/test_narrow.py"
"""Lists the functions that a model computes in 16 bits."""


@dataclass(frozen=True)
class Unseen:
    """A mistake.

    Args:
      edits: (file, text that it has once, text in its place), ...
      test: the file of tests that must fail.
      only: a part of the names of its tests, to run those alone.
    """

    edits: tuple[tuple[str, str, str], ...]
    test: str
    only: str = ""

    @property
    def files(self) -> list[str]:
        """The files that it breaks."""
        return list(dict.fromkeys(file for file, _, _ in self.edits))


def both(file: str, torch: tuple[str, str], flax: tuple[str, str] | None = None) -> tuple[tuple[str, str, str], ...]:
    """Returns the edits of a file of each twin; without `flax`, the same one in both."""
    return (f"slm_torch/{file}", *torch), (f"slm_flax/{file}", *(flax or torch))


PATHS = {
    "no scale in JAX's causal attention": Unseen(
        (("slm_flax/layers/fused.py", "(q, k, v, is_causal=True, scale=scale)", "(q, k, v, is_causal=True)"),),
        "tests/flax/test_kernels.py", "fused",
    ),
    "a prompt padded past the end of the context": Unseen(
        (("slm_flax/generate.py", "min(power_of_two(len(tokens)), self.context - self.length)",
          "power_of_two(len(tokens))"),),
        "tests/conformance/test_evaluator.py", "end_of_the_context",
    ),
    "stacked layers in the order of their names, from the 11th on": Unseen(
        (("slm_flax/stack.py",
          """return [f"{name[: match.start(1)]}{layer}{name[match.end(1) :]}" for layer in layers]""",
          """return sorted(f"{name[: match.start(1)]}{layer}{name[match.end(1) :]}" for layer in layers)"""),),
        "tests/flax/test_stack.py", "many_layers",
    ),
    "a document's first position that forgets the state that it continues": Unseen(
        (("slm_torch/layers/documents.py", "(1, 0))", "(1, 0), value=True)"),),
        "tests/conformance/test_recurrence.py", "chunks_are_the_formula",
    ),
    "a large 8-bit parameter without its last slice": Unseen(
        (("slm_flax/optim/adamw8bit.py", "lax.fori_loop(0, whole, ", "lax.fori_loop(0, whole - 1, "),),
        "tests/conformance/test_optimizers.py", "slices",
    ),
}  # fmt: skip

REPORTED = {
    "PyTorch evaluates what is minimised": Unseen(
        (("slm_torch/loss.py", "return Scores(token_losses(logits, targets).sum(),",
          "return Scores(sums(logits, targets, 1e-2).objective,"),),
        "tests/conformance/test_evaluator.py", "torch",
    ),
    "Flax evaluates what is minimised": Unseen(
        (("slm_flax/loss.py", "return Scores(token_losses(logits, targets).sum(),",
          "return Scores(sums(logits, targets, 1e-2).objective,"),),
        "tests/conformance/test_evaluator.py", "flax",
    ),
    "bits per byte in nats": Unseen(
        (("slm_core/inference/evaluation.py", "self.nats / math.log(2) / self.text_bytes",
          "self.nats / self.text_bytes"),),
        "tests/core/inference/test_evaluation.py",
    ),
    "a mean of the batches' means": Unseen(
        (("slm_core/inference/evaluation.py", "Evaluation(total.nats + piece.nats, total.tokens + piece.tokens,",
          "Evaluation(total.nats + piece.nats / piece.tokens, total.tokens + 1,"),),
        "tests/core/inference/test_evaluation.py",
    ),
}  # fmt: skip

STABILITY = {
    "PyTorch's log-softmax without the maximum": Unseen(
        (("slm_torch/loss.py", "logs = torch.log_softmax(logits, dim=-1)",
          "logs = logits - logits.exp().sum(-1, keepdim=True).log()"),),
        EXTREMES, "losses",
    ),
    "Flax's log-sum-exp without the maximum": Unseen(
        (("slm_flax/loss.py", "jnp.where(targets == IGNORE, 0, jax.nn.logsumexp(logits, axis=-1) - target_logits)",
          "jnp.where(targets == IGNORE, 0, jnp.log(jnp.exp(logits).sum(-1)) - target_logits)"),),
        EXTREMES, "losses",
    ),
    "JAX's flash attention without the maximum": Unseen(
        (("slm_flax/layers/flash.py", "top = s.max(-1, keepdims=True)", "top = 0 * s.max(-1, keepdims=True)"),),
        EXTREMES, "scores",
    ),
    "a router's softmax without the maximum": Unseen(
        (("slm_torch/layers/moe.py", "torch.softmax(logits, -1)", "logits.exp() / logits.exp().sum(-1, True)"),),
        EXTREMES, "routers",
    ),
    "a bias correction that loses float32's digits": Unseen(
        (("slm_flax/optim/adamw.py",
          "-jnp.expm1(count.astype(like.dtype) * (math.log(base) if base else -math.inf))",
          "1 - jnp.asarray(base, like.dtype) ** count"),),
        "tests/conformance/test_optimizers.py", "flax",
    ),
}  # fmt: skip

HALF = {
    "PyTorch's scores in 16 bits": Unseen(
        (("slm_torch/numerics.py", "return a.to(wide(a.dtype)) @ b.to(wide(b.dtype))",
          "return (a @ b).to(wide(a.dtype))"),),
        EXTREMES, "half_precisions",
    ),
    "JAX's scores in 16 bits": Unseen(
        (("slm_flax/numerics.py", "jnp.matmul(a, b, preferred_element_type=wide(a.dtype))",
          "(a @ b).astype(wide(a.dtype))"),),
        EXTREMES, "half_precisions",
    ),
    "both twins' softmax in 16 bits": Unseen(
        both("layers/dot_product.py",
             ("scores = wide_product(q, k.mT) * scale", "scores = (q @ k.mT) * scale"),
             ("scores = wide_product(q, k.mT) * scale", "scores = (q @ k.mT) * scale")),
        EXTREMES, "half_precisions",
    ),
    "both twins' RMSNorm in 16 bits": Unseen(
        both("layers/rmsnorm.py",
             ("self.normalised(x.to(wide(x.dtype)))", "self.normalised(x)"),
             ("self.normalised(x.astype(wide(x.dtype)))", "self.normalised(x)")),
        NARROW, "rmsnorm",
    ),
    "JAX's decay of Kimi Delta Attention in 16 bits": Unseen(
        (("slm_flax/layers/kda.py",
          "self.decay_up_proj(self.decay_down_proj(x)).astype(dtype) + self.step_bias[...])",
          "self.decay_up_proj(self.decay_down_proj(x)) + self.step_bias[...].astype(x.dtype)).astype(dtype)"),),
        NARROW, "kda",
    ),
}  # fmt: skip

BOTH = {
    "the bias of the logits multiplied": Unseen(
        both("model.py",
             ("""        if self.logit_factor != 1:
            logits = logits * self.logit_factor
        if self.head_bias is not None:
            logits = logits + self.head_bias.to(logits.dtype)
""",
              """        if self.head_bias is not None:
            logits = logits + self.head_bias.to(logits.dtype)
        if self.logit_factor != 1:
            logits = logits * self.logit_factor
"""),
             ("""        if self.logit_factor != 1:
            logits = logits * self.logit_factor
        if self.head_bias is not None:
            logits = logits + self.head_bias[...].astype(logits.dtype)
""",
              """        if self.head_bias is not None:
            logits = logits + self.head_bias[...].astype(logits.dtype)
        if self.logit_factor != 1:
            logits = logits * self.logit_factor
""")),
        "tests/conformance/test_layers.py", "logits_are_the_formula",
    ),
    "the value residual of the layer before": Unseen(
        both("model.py", ("gives_values=mixed and i == 0", "gives_values=mixed")),
        "tests/conformance/test_layers.py", "value_residual",
    ),
    "the residual multiplier on the whole stream": Unseen(
        both("model.py", ("x + self.residual_multiplier * y", "self.residual_multiplier * (x + y)")),
        "tests/parity/test_oracle.py",
    ),
    "muP's rate in the weight decay": Unseen(
        (("slm_torch/optim/base.py", '"weight_decay": decay / multiplier', '"weight_decay": decay'),
         ("slm_flax/optim/base.py", "-lr * groups[name].decay * params[name]",
          "-lr * groups[name].lr_multiplier * groups[name].decay * params[name]")),
        "tests/conformance/test_optimizers.py",
    ),
    "differential attention's lambda of layers counted from 1": Unseen(
        both("layers/differential.py", ("math.exp(-0.3 * index)", "math.exp(-0.3 * (index + 1))")),
        OUTSIDE,
    ),
    "experts that are busy chosen more": Unseen(
        both("trainer.py", ("p.sub_(p.grad.sign(), alpha=steps[name])", "p.add_(p.grad.sign(), alpha=steps[name])"),
             ("params[name] - step * jnp.sign(grads[name])", "params[name] + step * jnp.sign(grads[name])")),
        "tests/conformance/test_optimizers.py", "balance",
    ),
    "a group of experts by its best score": Unseen(
        both("layers/moe.py", ("grouped.topk(2).values.sum(-1)", "grouped.topk(1).values.sum(-1)"),
             ("jax.lax.top_k(grouped, 2)[0].sum(-1)", "jax.lax.top_k(grouped, 1)[0].sum(-1)")),
        "tests/conformance/test_moe.py",
    ),
    "Newton and Schulz's other coefficients": Unseen(
        both("optim/muon.py", ("EPS = (3.4445, -4.7750, 2.0315)", "EPS = (3.0, -16 / 5, 6 / 5)")),
        OUTSIDE,
    ),
    "schedule-free averages weighed by the count": Unseen(
        both("optim/schedule_free.py",
             ("torch._foreach_lerp_(y, z, c)", "torch._foreach_lerp_(y, z, 1 / int(self.shared['count']))"),
             ("updates[name] = c * (z - y)", "updates[name] = (z - y) / new.count")),
        OUTSIDE,
    ),
}  # fmt: skip

SHARED = {
    "the end of a text, never drawn for validation": Unseen(
        (("slm_core/data/pipeline.py", "dtype=np.int64) * total // count", "dtype=np.int64) * (total // count)"),),
        "tests/core/data/test_pipeline.py", "can_be_drawn",
    ),
    "a dropout mask that is the same at every update": Unseen(
        (("slm_core/model/dropout.py", "fold(mix(seed & MASK), step & MASK)", "fold(mix(seed & MASK), 0)"),), RANDOM,
    ),
    "the same dropout mask in every row": Unseen(
        (("slm_core/model/dropout.py", "+ first_row * time * features", "+ 0 * first_row"),), RANDOM,
    ),
    "initial values by the seed alone": Unseen(
        (("slm_core/model/initialization.py", 'f"{seed}/{name}"', 'f"{seed}"'),), RANDOM,
    ),
    "a cosine that stops one update early": Unseen(
        (("slm_core/training/schedules.py", "max(0, steps - 1 - rising), decay_steps)",
          "max(0, steps - 2 - rising), decay_steps)"),),
        OUTSIDE, "schedule",
    ),
    "warm-up from a rate of 0": Unseen(
        (("slm_core/training/schedules.py", "warmup = (k + 1.0) / (rising + 1.0)", "warmup = k / (rising + 1.0)"),),
        OUTSIDE, "schedule",
    ),
    "the nucleus without the token that fills it": Unseen(
        (("slm_core/inference/sampling.py", "np.searchsorted(mass, top_p * mass[-1]) + 1",
          "max(1, np.searchsorted(mass, top_p * mass[-1]))"),),
        OUTSIDE,
    ),
    "top-k after top-p": Unseen(
        (("slm_core/inference/sampling.py", "mass = np.cumsum(weights[kept])", "mass = np.cumsum(weights[order])"),),
        OUTSIDE,
    ),
    "a long document's held-out blocks one too many": Unseen(
        (("slm_core/data/split.py", "math.floor(start + self.fraction) > math.floor(start)",
          "math.floor(start + self.fraction) >= math.floor(start)"),),
        "tests/core/data/test_split.py",
    ),
    "NF4's outermost quantile": Unseen(
        (("slm_core/quantization/formats.py", "furthest = (29 / 30 + 31 / 32) / 2", "furthest = 31 / 32"),), OUTSIDE,
    ),
    "the scales of nf4 quantised with their mean": Unseen(
        (("slm_core/quantization/formats.py", "quantise(largest - mean, GROUP, DYNAMIC)",
          "quantise(largest, GROUP, DYNAMIC)"),),
        "tests/core/quantization/test_formats.py",
    ),
    "a standard deviation of muP without its root": Unseen(
        (("slm_core/model/mup.py", "(base / model.d_model) ** 0.5 if base", "(base / model.d_model) if base"),),
        OUTSIDE,
    ),
    "muP's power of Adam for embeddings": Unseen(
        (("slm_core/model/mup.py", '"adamw": (1.0, 0.0)', '"adamw": (1.0, 1.0)'),), "tests/torch/test_mup.py",
    ),
    "ALiBi's slopes of twelve heads in their own geometric series": Unseen(
        (("slm_core/model/positions.py", "power = 2 ** int(math.log2(heads))", "power = heads"),), OUTSIDE, "alibi",
    ),
    "T5's buckets rounded to the nearest": Unseen(
        (("slm_core/model/positions.py", "np.floor(growth * (buckets - exact))",
          "np.round(growth * (buckets - exact))"),),
        OUTSIDE, "bucket",
    ),
    "YaRN's ramp the other way": Unseen(
        (("slm_core/model/positions.py", "unscaled * (1 - ramp) + unscaled / position.scaling_factor * ramp",
          "unscaled * ramp + unscaled / position.scaling_factor * (1 - ramp)"),),
        OUTSIDE, "yarn",
    ),
    "NTK's exponent without the two": Unseen(
        (("slm_core/model/positions.py", "width / (width - 2) if", "width / width if"),), OUTSIDE, "ntk",
    ),
    "Llama 3's wavelengths against the whole context": Unseen(
        (("slm_core/model/positions.py", "turns = original_context(position, context) * unscaled",
          "turns = context * unscaled"),),
        OUTSIDE, "llama3",
    ),
}  # fmt: skip

UNSEEN = {
    "paths that small models do not take": PATHS,
    "what is reported": REPORTED,
    "stability": STABILITY,
    "half precisions": HALF,
    "both twins": BOTH,
    "`slm_core`": SHARED,
}
"""{kind of mistake: {what is wrong: the fault}}."""
