"""Which compute dtype `precision.compute=auto` stands for, and why."""

from slm_core.config import Precision

BFLOAT16_CAPABILITY = (8, 0)
"""First NVIDIA compute capability with bfloat16 in hardware (Ampere)."""


def choose_compute(precision: Precision, capability: tuple[int, int] | None) -> tuple[str, str]:
    """Returns the compute dtype's name and the reason.

    Args:
      precision: the section of the config.
      capability: the GPU's NVIDIA compute capability, or None on a CPU.
    """
    if precision.compute != "auto":
        return precision.compute, "as configured"
    if precision.params == "float64":
        return "float64", "parameters are float64"
    if capability is None:
        return "float32", "a CPU gains nothing from fewer bits"
    version = ".".join(map(str, capability))
    if capability >= BFLOAT16_CAPABILITY:
        return "bfloat16", f"compute capability {version} has it in hardware"
    return "float32", f"compute capability {version} has no bfloat16; float16 saves memory where that counts"
