"""Chooses which of the cases run: all, the quick ones, or a few about one component."""

from parity.cases import LOSS_CURVES, PRESETS, Case, registered, section_of, short_name
from parity.fields import choices
from slm_core.config.fields import field_table
from slm_core.errors import UserError, nearest

FEW, FEW_LAYERS = 3, 3
"""The cases that prove one component in about 20 seconds, and their layers, which XLA compiles one by one: at most."""


def select(entries: list[Case], component: str = "", everything: bool = False) -> list[Case]:
    """Returns the cases to run.

    Args:
      entries: all cases.
      component: a registry entry ("rope") or choice ("yarn", "scaling=yarn"): only cases about it. "": any case.
      everything: all of them; else the quick ones, or a FEW small ones about the component, its own case first.

    Raises:
      UserError: no case is about the component.
    """
    if not component:
        return [case for case in entries if everything or case.quick]
    known = {name for case in entries for name in case.about}
    if component not in known:
        listed = ", ".join(sorted(registered()))
        raise UserError(
            f"--component={component} is not a registry entry{nearest(component, known)}: use {listed}, or a"
            " value of another field with choices, such as yarn or qk_norm=l2"
        )
    about = [case for case in entries if component in case.about]
    if everything:
        return about
    value = component.rpartition("=")[2]
    fields = [name for name in field_table() if value in choices(name)]
    preferred = {"base", *(f"{short_name(name)}={value}" for name in fields)}
    home = {section_of(name) for name in fields[:1]}
    small = [case for case in about if case.section not in (LOSS_CURVES, PRESETS)]
    return _few(sorted(small, key=lambda case: (case.name not in preferred, case.section not in home, case.optimized)))


def _few(entries: list[Case]) -> list[Case]:
    """Returns the first case, and those after it that cost little."""
    chosen, layers = [], 0
    for case in entries:
        added = case.config.model.n_layers
        if not chosen or (len(chosen) < FEW and layers + added <= FEW_LAYERS):
            chosen.append(case)
            layers += added
    return chosen
