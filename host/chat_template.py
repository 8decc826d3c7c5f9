"""A model's chat template: a conversation as the text that the model was trained on, as transformers renders it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from host.errors import HostError
from host.tokenizer import read_json

TEMPLATE_FILE = "chat_template.jinja"
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
Message = Mapping[str, str]


class ChatTemplate:
    """``tokens``: the special tokens that a template may name, such as bos_token."""

    def __init__(self, source: str, tokens: Mapping[str, str]):
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                    extensions=[_Generation, loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        self._tokens = dict(tokens)
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise HostError(f"the model's chat template can't be used: {error}") from None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """Raises :class:`HostError` when the template refuses the conversation, or fails."""
        try:
            return self._template.render(messages=[dict(m) for m in messages], tools=None, documents=None,
                                         add_generation_prompt=add_generation_prompt, **self._tokens)
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError,
                AttributeError) as error:
            raise HostError(f"the model's chat template refuses this conversation: {error}") from None


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """Of a model folder; None where it has none."""
    config = read_json(folder / "tokenizer_config.json")
    source: Any = None
    try:
        source = (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        source = config.get("chat_template")
        if source is None:
            source = read_json(folder / "chat_template.json").get("chat_template")
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"{folder / TEMPLATE_FILE} can't be read: {error}") from None
    if isinstance(source, list):
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        return None
    return ChatTemplate(source, special_tokens(config))


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Name → text of the special tokens in a tokenizer_config.json."""
    found = {}
    for name in SPECIAL_TOKENS:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
             sort_keys: bool = False) -> str:
    """Jinja's own escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class _Generation(Extension):
    """{% generation %} … {% endgeneration %}: marks what a model says, for training; here only its body counts."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    @staticmethod
    def _body(caller: Callable[[], str]) -> str:
        return caller()
