"""The hash by which datasets are found."""

import hashlib
import json


def json_hash(*parts: object) -> str:
    """Hashes values that JSON can hold, 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
