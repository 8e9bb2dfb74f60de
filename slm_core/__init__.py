"""What both twins share: configuration, data, the loop, the run folder and the numerics' specification.

Nothing here imports torch or jax.
"""
