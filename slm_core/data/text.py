"""Checks that the text of a source is clean, and the errors for what is not."""

import json
from collections.abc import Iterable

from slm_core.errors import UserError, nearest


def unreadable(name: str, error: Exception) -> UserError:
    """Makes the error for a file that cannot be read."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return UserError(f"data.path: cannot read {name} ({reason}); check the file and its permissions")


def missing_field(field: str, columns: Iterable[object], where: str) -> UserError:
    """Makes the error for a text field that is not there."""
    names = sorted(map(str, columns))
    listed = ", ".join(names[:8]) or "nothing"
    return UserError(f"data.text_field={field!r}: {where} has no such field; it has {listed}{nearest(field, names)}")


def check_utf8(text: bytes, name: str, offset: int) -> None:
    """Raises UserError unless `text`, which starts at byte `offset` of a file, is UTF-8 without NUL."""
    at = text.find(b"\0")
    if at >= 0:
        raise UserError(
            f"data.path: {name} is binary (a NUL at byte {offset + at}); give UTF-8 text or leave the file out"
        )
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"data.path: {name} is not UTF-8 (byte {offset + error.start} is 0x{text[error.start]:02x}); "
            "convert it to UTF-8 or leave the file out"
        ) from None


def record_text(line: bytes, field: str, where: str) -> bytes:
    """Reads the text of one JSON record, as UTF-8. Raises UserError if the record has none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # the second for thousands of brackets
        raise UserError(f"data.path: {where} is not JSON ({error}); give one JSON object per line") from None
    if not isinstance(record, dict):
        raise UserError(f"data.path: {where} is a JSON {type(record).__name__}; give one JSON object per line")
    if field not in record:
        raise missing_field(field, record, where)
    return encode_text(record[field], field, where)


def encode_text(value: object, field: str, where: str) -> bytes:
    """Encodes one record's text as UTF-8; null gives none. Raises UserError if it is not clean text."""
    if value is None:
        return b""
    if not isinstance(value, str):
        raise UserError(f"data.text_field={field!r}: it holds {type(value).__name__} in {where}; name a text field")
    try:
        text = value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"data.path: the text in {where} has half of a surrogate pair; mend or drop the record"
        ) from None
    if b"\0" in text:
        raise UserError(f"data.path: the text in {where} has a NUL character; is it binary? Drop the record")
    return text
