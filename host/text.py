"""Text and tokens: the model's tokenizer, streaming that never cuts a character, stop tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from host.chat_template import ChatTemplate, Message, read_chat_template, special_tokens
from host.errors import HostError
from host.tokenizer import open_tokenizer, read_json

REPLACEMENT = "\ufffd"
CONTEXT_TOKENS = 8
"""Tokens decoded again with a new one, since a tokenizer may treat the first token of a text in its own way."""
UNFINISHED_TOKENS = 3
"""Tokens that an unfinished character of UTF-8 may be in."""


class Text:
    """The tokenizer of a model folder or of a GGUF file.

    ``cache``: where `tellme-hls` keeps a GGUF file's tokenizer. Raises :class:`HostError` when the tokenizer is missing
    or damaged.
    """

    def __init__(self, model: Path, cache: Path | None = None):
        folder = model if model.is_dir() else _tokenizer_folder(model, cache)
        self._tokenizer = open_tokenizer(folder)
        self._config = {**read_json(folder / "config.json"), **read_json(folder / "generation_config.json")}
        self._tokens = special_tokens(read_json(folder / "tokenizer_config.json"))
        self.chat_template: ChatTemplate | None = read_chat_template(folder)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text from its beginning. Raises :class:`HostError` for bytes that are no UTF-8."""
        return self._tokenizer.encode(_checked(text), special=True)

    def encode_rendered(self, text: str) -> list[int]:
        """Tokens of what a chat template rendered (or a part of it), which has its special tokens in it."""
        return self._tokenizer.encode(_checked(text), special=False)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a conversation up to where the model is to answer. Raises :class:`HostError` without a template."""
        if self.chat_template is None:
            raise HostError("the model has no chat template")
        return self.encode_rendered(self.chat_template.render(messages))

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Every end-of-sequence token that the configs name. Raises :class:`HostError` when that is no number."""
        found = self._config.get("eos_token_id")
        if found is None and "eos_token" in self._tokens:
            found = self._tokenizer.id_of(self._tokens["eos_token"])
        tokens = found if isinstance(found, list) else [] if found is None else [found]
        if not all(type(token) is int for token in tokens):
            raise HostError(f"eos_token_id is {found!r} in the model's config; give a token number or a list of them")
        return frozenset(tokens)


def _checked(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise HostError("the text is not valid UTF-8; set the terminal to UTF-8") from None
    return text


def _tokenizer_folder(model: Path, cache: Path | None) -> Path:
    """Where `tellme-hls` has put the tokenizer of a GGUF file: nothing here reads that format."""
    if not model.is_file():
        raise HostError(f"{model} is not a folder; give a model folder with config.json, model.safetensors and "
                        "tokenizer.json, or a .gguf file")
    command = [sys.executable, "-m", "hls_py.cli", "tokenizer", str(model), *(["--cache", str(cache)] if cache else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True)
    if done.returncode > 0:
        raise HostError("")  # tellme-hls has said why
    try:
        return Path(json.loads(done.stdout.splitlines()[-1])["tokenizer"])
    except (ValueError, IndexError, KeyError):
        raise HostError(f"tellme-hls tokenizer ended without a result (status {done.returncode}); "
                        "run it by itself to see more") from None


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

