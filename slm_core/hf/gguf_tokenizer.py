"""Makes the tokenizer inside a GGUF file, of kind gpt2 (byte-level BPE) or llama (SentencePiece's BPE).

Sources: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md for the keys; llama.cpp's llama-vocab.cpp for how
each value of tokenizer.ggml.pre splits text, and what a file without a key means.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_core.data.tokenizers import Library, save_tokenizer

if TYPE_CHECKING:
    import tokenizers

PREFIX = "tokenizer.ggml."
UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6
"""Values of token_type, beside that of a usual token."""
SPACE = "\u2581"
"""Takes the place of a space in SentencePiece's tokens."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_SLASH_END = _END.replace(r"[\r\n]*", r"[\r\n/]*")
LLAMA3 = rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{{1,3}}{_END}"
QWEN2 = rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{_END}"
TEKKEN = rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|\p{{N}}{_SLASH_END}"
GPT_4O = (
    rf"{_START}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_START}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}{_SLASH_END}"
)
GPT2, DIGITS = "gpt2", "digits"
"""GPT-2's own expression; the same after each digit was split off."""
SPLITS = {
    **dict.fromkeys(("gpt-2", "mpt", "olmo"), GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "dbrx", "smaug-bpe"), LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), QWEN2),
    "tekken": TEKKEN,
    "gpt-4o": GPT_4O,
}
"""{tokenizer.ggml.pre: how text is split before the merges}"""
WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken")
"""Values of tokenizer.ggml.pre whose words that are tokens are not merged; texts begin with the token of a start."""


class Unsupported(Exception):
    """The tokenizer cannot be read. The text is the reason."""


def write_tokenizer(keys: Mapping[str, Any], target: Path) -> str:
    """Writes the tokenizer of a GGUF file into the tokenizer folder of a run.

    Args:
      keys: {key: value} of the file, those of the tokenizer among them.

    Returns:
      A note for the user if it cannot be read; else "".
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        inner = _made(keys)
    except Unsupported as error:
        return (
            f"the tokenizer in the file cannot be read ({error}): put the model's tokenizer.json beside the file, and"
            " import again; generating and evaluating need it"
        )
    save_tokenizer(Library(inner, "file"), target)
    (target / "tokenizer_config.json").write_text(json.dumps(_settings(keys), indent=2) + "\n")
    return ""


def _made(keys: Mapping[str, Any]) -> "tokenizers.Tokenizer":
    kind, tokens = keys.get(f"{PREFIX}model"), keys.get(f"{PREFIX}tokens")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise Unsupported(f"{PREFIX}model={kind!r} is none of {', '.join(_KINDS)}")
    if not tokens:
        raise Unsupported(f"it has no {PREFIX}tokens")
    for name in ("precompiled_charsmap", "remove_extra_whitespaces"):
        if keys.get(f"{PREFIX}{name}"):
            raise Unsupported(f"{PREFIX}{name} is set")
    try:
        inner = _KINDS[kind](keys, tokens)
        _add_special(inner, tokens, _types(keys, tokens))
        _frame(inner, keys, tokens, _adds_start(keys, kind))
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise Unsupported(" ".join(str(error).split())[:120]) from None
    return inner


def _byte_level(keys: Mapping[str, Any], tokens: Sequence[str]) -> "tokenizers.Tokenizer":
    """Makes a byte-level BPE: its tokens are spelled in GPT-2's alphabet, and its merges are in the file."""
    import tokenizers
    from tokenizers import Regex, decoders, pre_tokenizers

    pre = keys.get(f"{PREFIX}pre")
    if not isinstance(pre, str) or pre not in SPLITS:
        raise Unsupported(f"{PREFIX}pre={pre!r} is none of {', '.join(SPLITS)}")
    merges = [(left, right) for left, right in (merge.split(" ", 1) for merge in keys.get(f"{PREFIX}merges") or ())]
    inner = tokenizers.Tokenizer(_bpe(tokens, merges, ignore_merges=pre in WHOLE_WORDS))
    split, usual = SPLITS[pre], pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if split == GPT2:
        inner.pre_tokenizer = usual
    elif split == DIGITS:
        inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), usual])
    else:
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), level])
    inner.decoder = decoders.ByteLevel()
    return inner


def _sentencepiece(keys: Mapping[str, Any], tokens: Sequence[str]) -> "tokenizers.Tokenizer":
    """Makes SentencePiece's BPE. It has no merges: two tokens become one, the one of the best score first."""
    import tokenizers
    from tokenizers import decoders, pre_tokenizers

    if keys.get("general.architecture") in ("gemma", "gemma2", "gemma3"):
        raise Unsupported("Gemma's merges are not in the order of its scores")
    scores, types = keys.get(f"{PREFIX}scores"), _types(keys, tokens)
    if not scores or len(scores) != len(tokens):
        raise Unsupported(f"it has no {PREFIX}scores of all tokens")
    unknown = keys.get(f"{PREFIX}unknown_token_id", next((i for i, t in enumerate(types) if t == UNKNOWN), None))
    options = {} if unknown is None else {"unk_token": tokens[unknown]}
    merges = _merges(tokens, scores, types)
    inner = tokenizers.Tokenizer(_bpe(tokens, merges, byte_fallback=True, fuse_unk=True, **options))
    prefixed = keys.get(f"{PREFIX}add_space_prefix", True)
    inner.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first" if prefixed else "never", split=False)
    strip = [decoders.Strip(content=" ", left=1)] if prefixed else []
    inner.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return inner


def _merges(tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> list[tuple[str, str]]:
    """Lists all pairs of tokens that are a token together, best score first, then longest left part first."""
    usual = {
        token: score for token, score, kind in zip(tokens, scores, types, strict=True) if kind in (1, USER_DEFINED)
    }
    pairs = [
        (token[:i], token[i:])
        for token in usual
        for i in range(1, len(token))
        if token[:i] in usual and token[i:] in usual
    ]
    return sorted(pairs, key=lambda pair: (-usual["".join(pair)], -len(pair[0])))


def _bpe(tokens: Sequence[str], merges: list[tuple[str, str]], **options: Any) -> Any:
    from tokenizers import models

    try:
        return models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, **options)
    except Exception as error:  # the library raises bare Exception
        raise Unsupported(" ".join(str(error).split())[:120]) from None


def _types(keys: Mapping[str, Any], tokens: Sequence[str]) -> Sequence[int]:
    types = keys.get(f"{PREFIX}token_type") or [1] * len(tokens)
    if len(types) != len(tokens):
        raise Unsupported(f"{PREFIX}token_type has another length than {PREFIX}tokens")
    return types


def _add_special(inner: "tokenizers.Tokenizer", tokens: Sequence[str], types: Sequence[int]) -> None:
    """Marks the tokens that a text has whole: special ones, and such as <think>, which are not."""
    from tokenizers import AddedToken

    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [
            AddedToken(t, normalized=False, special=special) for t, k in zip(tokens, types, strict=True) if k == kind
        ]
        inner.add_special_tokens(added) if special else inner.add_tokens(added)


def _frame(inner: "tokenizers.Tokenizer", keys: Mapping[str, Any], tokens: Sequence[str], starts: bool) -> None:
    """Sets which tokens stand before and after a text."""
    from tokenizers import processors

    ends = bool(keys.get(f"{PREFIX}add_eos_token", False))
    around = {name: keys.get(f"{PREFIX}{name}_token_id") for name, used in (("bos", starts), ("eos", ends)) if used}
    names = {name: (tokens[i], i) for name, i in around.items() if i is not None}
    if names:
        template = [
            *([names["bos"][0]] if "bos" in names else []),
            "$A",
            *([names["eos"][0]] if "eos" in names else []),
        ]
        inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(names.values()))


def _adds_start(keys: Mapping[str, Any], kind: str) -> bool:
    usual = kind == "llama" or keys.get(f"{PREFIX}pre") in WHOLE_WORDS
    return bool(keys.get(f"{PREFIX}add_bos_token", usual))


def _settings(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the object of a tokenizer_config.json."""
    tokens, settings = keys[f"{PREFIX}tokens"], {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if isinstance(number := keys.get(f"{PREFIX}{key}_token_id"), int) and number < len(tokens):
            settings[f"{name}_token"] = tokens[number]
    if template := keys.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    return settings | {"clean_up_tokenization_spaces": False}


_KINDS: dict[str, Callable[[Mapping[str, Any], Sequence[str]], "tokenizers.Tokenizer"]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
}
"""{tokenizer.ggml.model: what makes the tokenizer}"""
