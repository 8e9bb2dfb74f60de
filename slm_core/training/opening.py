"""Builds the engine of a run, with the settings that the run's first process resolved."""

from collections.abc import Callable

from slm_core.config import Config
from slm_core.config.fields import with_values
from slm_core.errors import UserError
from slm_core.planner.resolve import differences
from slm_core.protocols import Engine
from slm_core.runs.folder import RunFolder


def open_engine(build: Callable[[Config], Engine], config: Config, run: RunFolder) -> Engine:
    """Builds the run's engine, and records in the run's config.json what was resolved on this device.

    A resumed run keeps what its first process resolved. If that does not fit today's memory, the memory settings are
    resolved anew and the dtype alone is kept.
    """
    recorded = run.resolved or {}
    dtype = {name: value for name, value in recorded.items() if name == "precision.compute"}
    try:
        engine = build(with_values(config, recorded))
    except UserError:
        if dtype == recorded:
            raise
        engine = build(with_values(config, dtype))
        print("what the run resolved when it began does not fit here now: it is resolved anew")
    resolved = differences(config, engine.config)
    if resolved != run.resolved:
        run.record(resolved)
    return engine
