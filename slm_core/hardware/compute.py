"""Chooses the compute dtype that `precision.compute=auto` stands for, and says why."""

from collections.abc import Callable

from slm_core.config import Config
from slm_core.config.layers import layer_specs
from slm_core.errors import UserError
from slm_core.hardware.devices import Device, Shapes

BFLOAT16_CAPABILITY = (8, 0)
"""First NVIDIA compute capability with bfloat16 in hardware (Ampere)."""

_ROWS = 512
"""Tokens of a timed matrix product: enough to fill a small card, and few enough to take milliseconds."""


def choose_compute(config: Config, vocab_size: int, device: Device, fits: Callable[[str], bool]) -> tuple[str, str]:
    """Chooses the compute dtype, and returns its name and the reason.

    Args:
      device: its matrix products are timed only if it is a GPU without bfloat16.
      fits: says of a dtype whether the run fits its memory limit if it computes in it.

    Raises:
      UserError: the config asks for bfloat16 on a GPU that would only emulate it.
    """
    given = config.precision.compute
    if given == "bfloat16" and device.platform == "gpu" and not device.bfloat16:
        raise UserError(
            f"precision.compute=bfloat16: {device.name} ({device.version}) does not have it in hardware: "
            "set precision.compute=float16, float32 or auto"
        )
    if given != "auto":
        return given, "given"
    if config.precision.params == "float64":
        return "float64", "parameters are float64"
    if device.platform == "cpu":
        return "float32", "a CPU gains nothing from fewer bits"
    if device.bfloat16:
        return "bfloat16", f"{device.version} has it in hardware"
    if not fits("float32"):  # nothing is timed, because timing takes memory as well
        return "float16", f"{device.version} has no bfloat16, and float32 would not fit"
    shapes = matmul_shapes(config, vocab_size)
    half, single = (device.matmul_seconds(dtype, shapes) for dtype in ("float16", "float32"))
    times = f"{device.version} has no bfloat16; matrix products of a layer and the head take {half * 1e3:.2f} ms in "
    times += f"float16, {single * 1e3:.2f} ms in float32"
    return "float16" if half <= single else "float32", times


def matmul_shapes(config: Config, vocab_size: int) -> Shapes:
    """Returns products like those of some tokens with the matrices of a layer and of the head."""
    width, layer = config.model.d_model, layer_specs(config.model)[0]
    inner = layer.mlp.hidden * (layer.mlp.top_k + layer.mlp.shared_experts if layer.mlp.kind == "moe" else 1)
    mlp = [] if layer.mlp.kind == "none" else [(_ROWS, width, inner), (_ROWS, inner, width)]
    mixer = (_ROWS, width, 4 * width)  # queries, keys, values and output
    return [mixer, *mlp, (_ROWS, width, vocab_size)]
