"""Which attention, with which positions? Five kinds by four positions, equal in parameters."""

ATTENTION = {
    "multi-head": {"model.attention.n_kv_heads": 4},
    "grouped, 2": {"model.attention.n_kv_heads": 2},
    "multi-query": {"model.attention.n_kv_heads": 1},
    "latent": {"model.attention.kind": "mla"},
}
POSITIONS = ("rope", "learned", "alibi", "none")


def get_study() -> dict:
    variants = {
        f"{attention}, {position}": fields | {"model.position.kind": position}
        for position in POSITIONS
        for attention, fields in ATTENTION.items()
    }
    return {
        "question": "Which attention, with which positions, learns best at one million parameters?",
        "variants": variants,
        "overrides": {"train.steps": 300},
        "match": "parameters",
    }
