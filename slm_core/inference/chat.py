"""Writes a message as a model that was tuned for chats expects it, by the template of its tokenizer.

The template is Jinja text, as in transformers: https://huggingface.co/docs/transformers/chat_templating.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from slm_core.errors import UserError


def chat_text(folder: Path, message: str) -> str:
    """Returns the text of a chat in which the user has said one thing and the model speaks next.

    Args:
      folder: the tokenizer folder of a run.

    Raises:
      UserError: the tokenizer has no template, or it cannot be rendered.
    """
    from jinja2 import TemplateError

    settings = _settings(folder)
    template = _template(folder, settings)
    names = {name: _content(value) for name, value in settings.items() if name.endswith("_token")}
    messages = [{"role": "user", "content": message}]
    try:
        compiled = _environment().from_string(template)
        return compiled.render(messages=messages, add_generation_prompt=True, tools=None, documents=None, **names)
    except (TemplateError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--chat: the template of {folder} cannot be rendered ({reason}): write the --prompt") from None


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): import the model again") from None
    return settings if isinstance(settings, dict) else {}


def _template(folder: Path, settings: dict[str, Any]) -> str:
    """Returns the template: a file of its own, or a setting; of several, the one named default."""
    file = folder / "chat_template.jinja"
    given = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if isinstance(given, list):
        given = next((each.get("template") for each in given if each.get("name") == "default"), None)
    if not isinstance(given, str):
        raise UserError(f"--chat: the tokenizer of {folder.parent} has no chat template: leave --chat out")
    return given


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _environment() -> Any:
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def as_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = as_json
    known: dict[str, Any] = {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    environment.globals.update(known)
    return environment
