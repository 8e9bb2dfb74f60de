"""The parameters that decay, and those that no optimizer sees."""

import pytest

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.model import mup
from slm_core.model.initialization import Spec
from slm_core.model.parameter_groups import DECAYS, balance_steps, parameter_groups, weight_decay


def test_an_optimizer_without_a_power_is_refused_under_mup(monkeypatch):
    monkeypatch.delitem(mup.POWERS, "lion")
    config = with_values(Config(), {"optim.kind": "lion", "model.mup_base_width": 64})
    with pytest.raises(UserError, match="^model.mup_base_width=64: no rule says how optim.kind=lion .*add its line"):
        parameter_groups({"weight": Spec("matrix")}, config)


def test_weight_decay_goes_by_role():
    """Weight decay by role; a scalar never decays; no optimizer sees a balance or what is frozen."""
    specs = {role: Spec(role) for role in DECAYS} | {"balance": Spec("balance", step=0.25)}
    every = {f"optim.decay_{kind}": True for kind in ("embeddings", "norms", "biases")}
    for overrides, decayed in (({}, {"matrix", "head"}), (every, set(DECAYS) - {"scalar", "balance", "frozen"})):
        config = with_values(Config(), overrides)
        groups = parameter_groups(specs, config)
        assert groups.keys() == specs.keys() - {"balance", "frozen"}
        assert {role for role, group in groups.items() if group.decay} == decayed
        assert {group.decay for group in groups.values()} == {0.0, config.optim.weight_decay}
        assert not weight_decay("balance", config.optim)
    assert balance_steps(specs) == {"balance": 0.25}
