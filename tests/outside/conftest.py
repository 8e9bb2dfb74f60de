"""The twin under test, as in the conformance suite."""

from tests.conformance.conftest import twin

__all__ = ["twin"]
