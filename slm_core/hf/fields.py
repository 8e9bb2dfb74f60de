"""Reads the config.json of a Hugging Face checkpoint, field by field."""

from collections.abc import Mapping
from typing import Any

from slm_core.errors import UserError

NEUTRAL = {
    "_name_or_path", "_sliding_window_pattern", "architectures", "attention_dropout",
    "attention_probs_dropout_prob", "attention_softmax_in_fp32", "attn_pdrop", "auto_map", "aux_loss_alpha",
    "bias_dropout_fusion", "bos_token_id", "cache_implementation", "classifier_dropout", "dtype", "emb_pdrop",
    "embd_pdrop", "eos_token_id", "ep_size", "experts_per_token", "gradient_checkpointing", "hidden_dropout",
    "hidden_dropout_prob", "id2label", "init_config", "init_device", "initial_context_length", "initializer_range",
    "is_decoder", "is_encoder_decoder", "is_llama_config", "label2id", "layer_norm_elementwise_affine",
    "masked_softmax_fusion", "max_length", "max_window_layers", "model_type", "name_or_path",
    "num_nextn_predict_layers", "offset_alibi", "output_router_logits", "pad_token_id", "pretraining_tp",
    "qk_head_dim", "reorder_and_upcast_attn", "resid_pdrop", "rope_interleaved", "router_aux_loss_coef",
    "router_jitter_noise", "seq_aux", "skip_bias_add", "skip_bias_add_qkv", "sliding_window_pattern",
    "slow_but_exact", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
    "summary_use_proj", "task_specific_params", "tokenizer_name", "torch_dtype", "transformers_version",
    "unk_token_id", "use_cache", "use_return_dict", "verbose", "vocab_size",
}  # fmt: skip
"""Fields that do not change the function of a model: token ids, training, bookkeeping, and repetitions of others."""


class Fields:
    """A config.json that remembers which fields were read."""

    def __init__(self, values: Mapping[str, Any], family: str):
        self._values = values
        self._family = family
        self._read = set(NEUTRAL)

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a field's value; `default` if it is absent or null."""
        self._read.add(name)
        value = self._values.get(name)
        return default if value is None else value

    def explicit(self, name: str, default: Any) -> Any:
        """Returns a field's value, None if it is null; `default` only if it is absent."""
        self._read.add(name)
        return self._values.get(name, default)

    def need(self, name: str) -> Any:
        """Returns a field's value. Raises UserError if it is absent or null."""
        value = self.get(name)
        if value is None:
            raise UserError(f"config.json has no {name}, which a {self._family} model needs: restore the file")
        return value

    def only(self, name: str, *supported: Any, default: Any = None) -> Any:
        """Returns a field's value. Raises UserError unless it is one that the schema can express."""
        value = self.get(name, supported[0] if default is None else default)
        if value not in supported:
            words = " or ".join(map(repr, supported))
            raise UserError(
                f"config.json: {name}={value!r} of a {self._family} model cannot be expressed: only {words}"
            )
        return value

    def divides(self, part: str, whole: str) -> None:
        """Raises UserError unless one field divides another, as the class demands."""
        if self.need(whole) % self.need(part):
            raise UserError(
                f"config.json: {part}={self.get(part)} does not divide {whole}={self.get(whole)}, as a {self._family}"
                " model needs"
            )

    def section(self, name: str) -> "Fields":
        """Returns a nested object as fields of its own. `unread` does not look into it."""
        return Fields(self.get(name, {}), f"{self._family} {name}")

    def unread(self) -> list[str]:
        """Lists the fields that nothing has read, sorted. They are of a newer version, or of other code."""
        return sorted(name for name, value in self._values.items() if name not in self._read and value is not None)
