"""Which attention, with which positions? Five kinds by four positions, equal in parameters, on text."""

ATTENTION = {
    "multi-head": {"model.attention.n_kv_heads": 8},
    "grouped, 4": {"model.attention.n_kv_heads": 4},
    "grouped, 2": {"model.attention.n_kv_heads": 2},
    "multi-query": {"model.attention.n_kv_heads": 1},
    "latent": {"model.attention.kind": "mla"},
}
POSITIONS = {"RoPE": "rope", "learned": "learned", "ALiBi": "alibi", "none": "none"}
VARIANTS = {
    f"{attention}, {name}": fields | {"model.position.kind": position}
    for name, position in POSITIONS.items()
    for attention, fields in ATTENTION.items()
}


def get_study() -> dict:
    return {
        "question": "Which attention, with which positions, learns text best at one million parameters?",
        "variants": VARIANTS,
        # A thousand tokens per update: 200 runs take an hour and a half on two cores.
        "overrides": {"model.attention.n_heads": 8, "train.steps": 300, "train.batch_size": 8},
        "match": "parameters",
    }
