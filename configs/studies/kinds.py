"""Does every kind of the catalogue learn in its paper's own setting? One variant per kind, beside the default."""

from slm_core.config import Config
from slm_core.config.fields import field_table, with_values
from slm_core.config.validation import drop_unread, validate
from slm_core.errors import UserError

ALONE: dict[str, dict] = {
    "optim.kind=schedule_free": {"optim.schedule": "constant"},
    **{
        f"model.position.scaling={kind}": {"model.position.scaling_factor": 2.0}
        for kind in ("linear", "ntk", "yarn", "llama3")
    },
}
"""What a kind needs beside it to be valid at all."""


def get_study() -> dict:
    variants: dict[str, dict] = {"default": {}}
    for name, info in field_table().items():
        section = name.partition(".")[0]
        if section in ("model", "optim") and name != "model.attention.kernel":
            for kind in info.option.choices:
                fields: dict = {name: kind} | ALONE.get(f"{name}={kind}", {})
                if kind != info.default and _valid(fields):
                    variants[f"{name.removeprefix('model.')}={kind}"] = fields
    return {
        "question": "Does every kind of the catalogue learn, and how far is it from the default?",
        "variants": variants,
        "overrides": {"train.steps": 300, "train.batch_size": 8},
        "seeds": 1,
        "frameworks": "torch",
    }


def _valid(fields: dict) -> bool:
    """Returns whether a kind can be trained alone. Some need another kind that reads their field."""
    try:
        config, _ = drop_unread(Config(), with_values(Config(), fields), fields)
        validate(config, fields)
    except UserError:
        return False
    return True
