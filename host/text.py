"""Text and tokens: the model's tokenizer, streaming that never cuts a character, stop tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from host.errors import HostError

REPLACEMENT = "\ufffd"


class Text:
    """The tokenizer of a model folder.

    Raises :class:`HostError` when tokenizer.json is missing or damaged.
    """

    def __init__(self, folder: Path):
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise HostError(f"{folder} has no tokenizer.json; it is needed to turn text into tokens")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise HostError(f"{path} can't be read: {error}") from None
        self._config = {**_json(folder / "config.json"), **_json(folder / "generation_config.json")}

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Every end-of-sequence token that the configs name."""
        found = self._config.get("eos_token_id")
        if found is None:
            return frozenset()
        return frozenset(found if isinstance(found, list) else [found])


class Streamer:
    """Turns tokens into text as they come; holds bytes back until they are whole characters."""

    def __init__(self, text: Text):
        self._text = text
        self._tokens: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """New text that ``token`` completes; empty while a character is unfinished."""
        self._tokens.append(token)
        whole = self._text.decode(self._tokens)
        if whole.endswith(REPLACEMENT):
            return ""
        new = whole[self._shown:]
        self._shown = len(whole)
        return new

    def finish(self) -> str:
        """What is left at the end, unfinished characters as U+FFFD."""
        whole = self._text.decode(self._tokens)
        new = whole[self._shown:]
        self._shown = len(whole)
        return new


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise HostError(f"{path} can't be read: {error}") from None
    return found if isinstance(found, dict) else {}
