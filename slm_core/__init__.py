"""Everything that both twins share: configuration, data, the training loop, run folders and initial weights.

Nothing here imports torch or jax.
"""
