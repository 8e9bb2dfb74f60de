"""Finds a checkpoint: a folder or file on this machine, or a name on the Hugging Face Hub."""

import re
from pathlib import Path

from slm_core.errors import UserError

FILES = [
    "*.json", "*.safetensors", "tokenizer.model", "merges.txt", "vocab.txt", "*.jinja",
]  # fmt: skip
"""Patterns of the files that an import reads."""


def find_checkpoint(source: str, revision: str) -> Path:
    """Returns the path of a checkpoint. A name OWNER/MODEL is downloaded into the cache of huggingface_hub.

    Args:
      source: a path, or a name on the Hub.
      revision: branch, tag or commit; read for a name alone.

    Raises:
      UserError: the path is not there; or the name is not on the Hub, or the Hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return path
    return _download(source, revision)


def _download(name: str, revision: str) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=FILES))
    except errors.RepositoryNotFoundError:
        reason, remedy = "it is not a public model of the Hub", "give another name, or log in with hf auth login"
    except errors.RevisionNotFoundError:
        reason, remedy = f"it has no revision {revision}", "give another --revision"
    except (OSError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as error:
        kind = type(error).__name__
        reason, remedy = f"the Hub cannot be reached ({kind})", "download the folder elsewhere, and give its path"
    raise UserError(f"--import={name} is not a folder here, and {reason}: {remedy}") from None
