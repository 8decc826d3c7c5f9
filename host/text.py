"""Text and tokens: the model's tokenizer, streaming that never cuts a character, stop tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from host.errors import HostError

REPLACEMENT = "\ufffd"
CONTEXT_TOKENS = 8
"""Tokens decoded again with a new one, since a tokenizer may treat the first token of a text in its own way."""
UNFINISHED_TOKENS = 3
"""Tokens that an unfinished character of UTF-8 may be in."""


class Text:
    """The tokenizer of a model folder.

    Raises :class:`HostError` when tokenizer.json is missing or damaged.
    """

    def __init__(self, folder: Path):
        path = folder / "tokenizer.json"
        if not folder.is_dir():
            raise HostError(f"{folder} is not a folder; give a model folder with config.json, model.safetensors and "
                            "tokenizer.json")
        if not path.is_file():
            raise HostError(f"{folder} has no tokenizer.json; it is needed to turn text into tokens")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise HostError(f"{path} can't be read: {error}") from None
        self._config = {**_json(folder / "config.json"), **_json(folder / "generation_config.json")}

    def encode(self, text: str) -> list[int]:
        """Raises :class:`HostError` for text that came from bytes that are no UTF-8."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise HostError("the text is not valid UTF-8; set the terminal to UTF-8") from None
        return self._tokenizer.encode(text).ids

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Every end-of-sequence token that the configs name. Raises :class:`HostError` when that is no number."""
        found = self._config.get("eos_token_id")
        tokens = found if isinstance(found, list) else [] if found is None else [found]
        if not all(type(token) is int for token in tokens):
            raise HostError(f"eos_token_id is {found!r} in the model's config; give a token number or a list of them")
        return frozenset(tokens)


class Streamer:
    """Turns tokens into text as they come; holds bytes back until they are whole characters.

    ``before``: the tokens that they follow; some tokenizers drop a space where a text begins.
    """

    def __init__(self, text: Text, before: list[int] | None = None):
        self._text = text
        self._before = (before or [])[-CONTEXT_TOKENS:]
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """New text that ``token`` completes; empty while a character is unfinished."""
        self._held.append(token)
        if self._new(self._held).endswith(REPLACEMENT):
            # The last tokens may be a character's beginning; what is before them never becomes one.
            return self._release(max(0, len(self._held) - UNFINISHED_TOKENS))
        return self._release(len(self._held))

    def finish(self) -> str:
        """What is left at the end, unfinished characters as U+FFFD."""
        return self._release(len(self._held))

    def _release(self, count: int) -> str:
        done, self._held = self._held[:count], self._held[count:]
        new = self._new(done)
        self._before = (self._before + done)[-CONTEXT_TOKENS:]
        return new

    def _new(self, tokens: list[int]) -> str:
        return self._text.decode(self._before + tokens)[len(self._text.decode(self._before)):] if tokens else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise HostError(f"{path} can't be read: {error}") from None
    return found if isinstance(found, dict) else {}
