"""Checks that the fields of a model fit each other."""

from slm_core.config import Config, Model
from slm_core.config.layers import layer_specs, resolve
from slm_core.config.pattern import Entry, layer_entries, overridden
from slm_core.config.widths import rotated, value_shape
from slm_core.errors import UserError


def check_model(config: Config) -> None:
    """Checks every layer, then the whole model; raises UserError for the first relation that does not hold."""
    model = config.model
    seen: set[str] = set()
    for layer, entry in enumerate(layer_entries(model)):
        if entry.text not in seen:
            seen.add(entry.text)
            for check in _LAYER_CHECKS:
                check(overridden(model, entry), _where(entry, layer))
    _check_values_fit(model)
    if model.position.kind == "sinusoidal" and model.d_model % 2:
        raise UserError(
            f"model.d_model={model.d_model} must be even for model.position.kind=sinusoidal (sine and cosine)"
        )


def _where(entry: Entry, layer: int) -> str:
    return f"layer {layer} (model.pattern entry '{entry.text}'): " if entry.values else ""


def _check_mixer(model: Model, where: str) -> None:
    mixer = model.mixer
    if mixer.kind != "attention" and mixer.chunk & (mixer.chunk - 1):
        below = 1 << (mixer.chunk.bit_length() - 1)
        raise UserError(f"{where}model.mixer.chunk={mixer.chunk} is not a power of two: use {below} or {2 * below}")
    open_widths = mixer.key_dim is None or mixer.value_dim is None
    if mixer.kind != "attention" and open_widths and model.d_model % mixer.n_heads:
        raise UserError(
            f"{where}model.mixer.n_heads={mixer.n_heads} does not divide model.d_model={model.d_model}:"
            f" use {nearest_divisor(model.d_model, mixer.n_heads)} heads, or set model.mixer.key_dim and value_dim"
        )
    if mixer.kind != "attention" and mixer.key_heads is not None and mixer.n_heads % mixer.key_heads:
        raise UserError(
            f"{where}model.mixer.key_heads={mixer.key_heads} does not divide n_heads={mixer.n_heads}:"
            f" use {nearest_divisor(mixer.n_heads, mixer.key_heads)}"
        )
    if mixer.kind != "attention" and mixer.convolution_bias and not resolve(model).mixer.convolution:
        raise UserError(
            f"{where}model.mixer.convolution_bias=True is of a convolution, and there is none:"
            " set model.mixer.convolution above 0"
        )
    if mixer.kind == "retention" and (key_dim := mixer.key_dim or model.d_model // mixer.n_heads) % 2:
        raise UserError(
            f"{where}model.mixer.key_dim={key_dim} is odd, and retention turns pairs of features: use {key_dim + 1}"
        )


def _check_heads(model: Model, where: str) -> None:
    if model.mixer.kind != "attention":
        return
    attention = model.attention
    parts = attention.n_heads * (2 if attention.kind == "differential" else 1)
    if attention.head_dim is None and model.d_model % parts:
        maps = " with two maps per head" if attention.kind == "differential" else ""
        raise UserError(
            f"{where}model.attention.n_heads={attention.n_heads}{maps} does not divide model.d_model={model.d_model}:"
            f" use {nearest_divisor(model.d_model // (parts // attention.n_heads), attention.n_heads)} heads, or set"
            " model.attention.head_dim"
        )
    if attention.n_kv_heads is not None and attention.n_heads % attention.n_kv_heads:
        raise UserError(
            f"{where}model.attention.n_kv_heads={attention.n_kv_heads} does not divide n_heads={attention.n_heads}:"
            f" use {nearest_divisor(attention.n_heads, attention.n_kv_heads)}"
        )


def _check_rotation(model: Model, where: str) -> None:
    position = model.position
    if position.kind != "rope" or model.mixer.kind != "attention":
        return
    model = resolve(model)
    turning = rotated(model)
    if turning < 2 or turning % 2:
        field = "rope_dim" if model.attention.kind == "mla" else "head_dim"
        raise UserError(
            f"{where}model.position.fraction={position.fraction} rotates {turning} of {getattr(model.attention, field)}"
            f" elements of a head: rope turns pairs, so make round(fraction * {field}) even and at least 2"
        )
    if position.scaling == "llama3" and position.low_freq_factor >= position.high_freq_factor:
        raise UserError(
            f"{where}model.position.low_freq_factor={position.low_freq_factor} must be less than"
            f" high_freq_factor={position.high_freq_factor}"
        )
    if position.scaling == "yarn" and position.beta_slow >= position.beta_fast:
        raise UserError(
            f"{where}model.position.beta_slow={position.beta_slow} must be less than beta_fast={position.beta_fast}"
        )
    if position.scaling == "yarn" and position.theta == 1:
        raise UserError(f"{where}model.position.theta=1 gives every pair the same wavelength: set it above 1 for yarn")


def _check_buckets(model: Model, where: str) -> None:
    position = model.position
    if position.kind == "t5" and position.max_distance <= position.buckets // 2:
        raise UserError(
            f"{where}model.position.max_distance={position.max_distance} must be more than half of"
            f" buckets={position.buckets}: that half holds one distance per bucket"
        )


def _check_experts(model: Model, where: str) -> None:
    mlp = model.mlp
    if mlp.kind == "moe" and mlp.top_k > mlp.experts:
        raise UserError(f"{where}model.mlp.top_k={mlp.top_k} must be at most experts={mlp.experts}")
    if mlp.kind == "moe" and mlp.shared_gate and not mlp.shared_experts:
        raise UserError(f"{where}model.mlp.shared_gate=True has nothing to weigh: set model.mlp.shared_experts above 0")
    if mlp.kind != "moe" or mlp.groups == 1:
        return
    if mlp.experts % mlp.groups or mlp.experts < 2 * mlp.groups:
        raise UserError(
            f"{where}model.mlp.groups={mlp.groups} must divide experts={mlp.experts} into groups of two or more"
        )
    if mlp.top_groups > mlp.groups:
        raise UserError(f"{where}model.mlp.top_groups={mlp.top_groups} must be at most groups={mlp.groups}")
    reachable = mlp.top_groups * mlp.experts // mlp.groups
    if mlp.top_k > reachable:
        raise UserError(
            f"{where}model.mlp.top_k={mlp.top_k} must be at most {reachable}, the experts of"
            f" top_groups={mlp.top_groups} of groups={mlp.groups}"
        )


_LAYER_CHECKS = (_check_mixer, _check_heads, _check_rotation, _check_buckets, _check_experts)


def _check_values_fit(model: Model) -> None:
    """Checks that layers whose values are mixed with the first layer's have values of its shape."""
    layers = layer_specs(model)
    later = any(layer.attention.value_residual and layer.mixer.kind == "attention" for layer in layers[1:])
    if layers[0].attention.value_residual and not later:
        remedy = "set model.n_layers above 1" if len(layers) == 1 else "it needs attention in a layer after the first"
        raise UserError(f"model.attention.value_residual=True mixes later layers' values: {remedy}")
    if layers[0].mixer.kind != "attention" and any(layer.attention.value_residual for layer in layers):
        raise UserError(
            f"model.attention.value_residual=True mixes in the first layer's values, and model.mixer.kind="
            f"{layers[0].mixer.kind} of the first layer has none: begin model.pattern with attention"
        )
    first = value_shape(layers[0].attention)
    for i, layer in enumerate(layers):
        shape = value_shape(layer.attention)
        if layer.attention.value_residual and shape != first:
            raise UserError(
                f"model.attention.value_residual=True: layer {i} has {shape[0]} value heads of width {shape[1]}, the"
                f" first layer {first[0]} of width {first[1]}: give both the same, or turn value_residual off in that"
                " layer"
            )


def nearest_divisor(number: int, target: int) -> int:
    """Returns the divisor of `number` that is closest to `target`."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: abs(d - target))
