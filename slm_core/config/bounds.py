"""The largest values of fields: more than a small model can use, and little enough that nothing hangs or overflows."""

WIDTH = 2**16
"""Features of a layer, heads, ranks, the two sides of a matrix."""

LAYERS = 2**8
"""Blocks of a model."""

EXPERTS = 2**10
"""Experts of a layer."""

TOKENS = 2**20
"""Tokens of a sequence, a vocabulary or a batch."""

STEPS = 10**7
"""Updates of a run. The table of learning rates has one number per update."""

SCALE = 1_000_000
"""Factors, and 1 / SCALE the smallest of those that something is divided by."""

SEED = 2**32 - 1
"""Seeds."""
