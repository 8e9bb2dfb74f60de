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
_COLUMNS = 8192
"""Most columns of a timed matrix: the head of a large vocabulary might not fit beside what other processes hold."""
_TIMED = ("float32", "float16", "bfloat16")
_NOISE = 1.1
"""Factor up to which two times count as equal, so that all runs of a study choose alike."""


def choose_compute(config: Config, vocab_size: int, device: Device, fits: Callable[[str], bool]) -> tuple[str, str]:
    """Chooses the compute dtype, and returns its name and the reason.

    Args:
      device: its matrix products are timed if it is a GPU.
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
    half = "bfloat16" if device.bfloat16 else "float16"  # bfloat16 needs no loss scale
    if not fits(half):  # the run will be refused: nothing is timed, because timing takes memory as well
        return half, "nothing fits"
    shapes = [(m, k, min(n, _COLUMNS)) for m, k, n in matmul_shapes(config, vocab_size)]
    seconds = {dtype: device.matmul_seconds(dtype, shapes) for dtype in _TIMED}
    if seconds[half] <= _NOISE * seconds["float32"]:
        return half, _times(seconds, device)
    if fits("float32"):
        return "float32", _times(seconds, device)
    return half, f"float32 would not fit; {_times(seconds, device)}"


def _times(seconds: dict[str, float], device: Device) -> str:
    """Says how long the timed products take in each dtype."""
    names = {dtype: dtype for dtype in seconds} | ({} if device.bfloat16 else {"bfloat16": "emulated bfloat16"})
    each = [f"{seconds[dtype] * 1e3:.2f} ms in {name}" for dtype, name in names.items()]
    return f"matrix products of a layer and the head take {', '.join(each)}"


def matmul_shapes(config: Config, vocab_size: int) -> Shapes:
    """Returns products like those of some tokens with the matrices of a layer and of the head."""
    width, layer = config.model.d_model, layer_specs(config.model)[0]
    inner = layer.mlp.hidden * (layer.mlp.top_k + layer.mlp.shared_experts if layer.mlp.kind == "moe" else 1)
    mlp = [] if layer.mlp.kind == "none" else [(_ROWS, width, inner), (_ROWS, inner, width)]
    mixer = (_ROWS, width, 4 * width)  # queries, keys, values and output
    return [mixer, *mlp, (_ROWS, width, vocab_size)]
