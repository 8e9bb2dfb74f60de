"""Imports and exports Hugging Face checkpoints: folders of config.json and safetensors. No framework is needed.

A family is one file in `families`. It says how its config fields and tensors correspond to ours.
"""

from slm_core.errors import UserError, nearest
from slm_core.hf.families.bloom import BLOOM
from slm_core.hf.families.deepseek_v3 import DEEPSEEK_V3
from slm_core.hf.families.gemma2 import GEMMA2
from slm_core.hf.families.gemma3 import GEMMA3
from slm_core.hf.families.gpt2 import GPT2
from slm_core.hf.families.gpt_neox import GPT_NEOX
from slm_core.hf.families.gpt_oss import GPT_OSS
from slm_core.hf.families.llama import LLAMA
from slm_core.hf.families.mistral import MISTRAL
from slm_core.hf.families.mixtral import MIXTRAL
from slm_core.hf.families.mpt import MPT
from slm_core.hf.families.olmo2 import OLMO2
from slm_core.hf.families.qwen3 import QWEN3
from slm_core.hf.families.qwen3_moe import QWEN3_MOE
from slm_core.hf.families.smollm3 import SMOLLM3
from slm_core.hf.family import Family

FAMILIES = {
    family.model_type: family
    for family in (
        LLAMA, MISTRAL, QWEN3, SMOLLM3, OLMO2, GEMMA2, GEMMA3, MIXTRAL, QWEN3_MOE, DEEPSEEK_V3, GPT_OSS, GPT2,
        GPT_NEOX, BLOOM, MPT,
    )
}  # fmt: skip
"""{model_type: Family}. An export takes the first family that can express the config."""


def family_of(model_type: str) -> Family:
    """Looks up the family of a model_type. Raises UserError if there is none."""
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(
            f"model_type={model_type!r} is not a family here{nearest(model_type, FAMILIES)}: use one of {known}"
        )
    return FAMILIES[model_type]
