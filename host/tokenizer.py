"""Tokenizers of a model folder behind one interface: tokenizer.json, or sentencepiece's tokenizer.model."""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from host.errors import HostError

JSON_FILE = "tokenizer.json"
SENTENCEPIECE_FILE = "tokenizer.model"
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"
"""normalizer_spec { add_dummy_prefix: false }, to be put behind a serialised ModelProto: parsers merge the two."""


class TokenizerFile(Protocol):
    def encode(self, text: str, special: bool) -> list[int]:
        """``special``: with the tokens that begin (and end) a text; special tokens written in ``text`` always count."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """Special tokens are not shown, bytes that are no characters are U+FFFD."""
        ...

    def id_of(self, token: str) -> int | None: ...


def open_tokenizer(folder: Path) -> TokenizerFile:
    """Raises :class:`HostError` when there is none, or a damaged one."""
    if (folder / JSON_FILE).is_file():
        return _Json(folder / JSON_FILE)
    if (folder / SENTENCEPIECE_FILE).is_file():
        return _SentencePiece(folder / SENTENCEPIECE_FILE)
    raise HostError(f"{folder} has no {JSON_FILE} or {SENTENCEPIECE_FILE}; one is needed to turn text into tokens")


class _Json:
    def __init__(self, path: Path):
        from tokenizers import Tokenizer
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise HostError(f"{path} can't be read: {error}") from None

    def encode(self, text: str, special: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=special).ids

    def decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    def id_of(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)


class _SentencePiece:
    """tokenizer.model, with what tokenizer_config.json and added_tokens.json say of added tokens and of the first one.

    A text begins with a space that isn't there, as the model was trained; behind a special token it does so again where
    tokenizer_config.json has no ``"legacy": false``.
    """

    def __init__(self, path: Path):
        import sentencepiece
        config = read_json(path.parent / "tokenizer_config.json")
        try:
            raw = path.read_bytes()
            own = sentencepiece.SentencePieceProcessor(model_proto=raw)
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=raw + NO_DUMMY_PREFIX)
        except (RuntimeError, OSError, ValueError) as error:
            raise HostError(f"{path} can't be read: {error}") from None
        self._prefix = " " if own.encode("x") != self._pieces.encode("x") else ""
        self._again = bool(config.get("legacy", True))
        self._size = self._pieces.vocab_size()
        self._added = _added_tokens(path.parent, config)
        self._text_of = {number: text for text, (number, _) in self._added.items()}
        self._hidden = {number for number in range(self._size) if self._pieces.is_control(number)}
        self._hidden |= {number for number, is_special in self._added.values() if is_special}
        for number in self._hidden:
            if number < self._size:
                self._added.setdefault(self._pieces.id_to_piece(number), (number, True))
        longest_first = sorted((re.escape(text) for text in self._added if text), key=len, reverse=True)
        self._splitter = re.compile(f"({'|'.join(longest_first)})") if longest_first else None
        self._before = [self._pieces.bos_id()] if config.get("add_bos_token", True) else []
        self._behind = [self._pieces.eos_id()] if config.get("add_eos_token", False) else []

    def encode(self, text: str, special: bool) -> list[int]:
        tokens = [t for t in self._before if t >= 0] if special else []
        first = True
        for part in self._splitter.split(text) if self._splitter else [text]:
            if part in self._added:
                tokens.append(self._added[part][0])
                first = self._again
            elif part:
                tokens += self._pieces.encode((self._prefix if first else "") + part)
                first = False
        return tokens + ([t for t in self._behind if t >= 0] if special else [])

    def decode(self, tokens: list[int]) -> str:
        text, begun = "", False
        for plain, group in groupby(tokens, lambda token: token < self._size and token not in self._hidden
                                    and token not in self._text_of):
            run = list(group)
            if plain:
                decoded = self._pieces.decode(run)
                text += decoded[1:] if self._prefix and not begun and decoded.startswith(" ") else decoded
                begun = True
            else:
                shown = [self._text_of[token] for token in run if token in self._text_of and token not in self._hidden]
                text += "".join(shown)
                begun = begun or bool(shown)
        return text

    def id_of(self, token: str) -> int | None:
        if token in self._added:
            return self._added[token][0]
        number = self._pieces.piece_to_id(token)
        return number if self._pieces.id_to_piece(number) == token else None


def _added_tokens(folder: Path, config: dict[str, Any]) -> dict[str, tuple[int, bool]]:
    """Text of a token → its number, and whether it is special."""
    found: dict[str, tuple[int, bool]] = {}
    for text, number in read_json(folder / "added_tokens.json").items():
        if type(number) is int and number >= 0:
            found[text] = (number, True)
    decoder = config.get("added_tokens_decoder")
    for number, entry in (decoder.items() if isinstance(decoder, dict) else ()):
        if str(number).isdecimal() and isinstance(entry, dict) and isinstance(entry.get("content"), str):
            found[entry["content"]] = (int(number), bool(entry.get("special")))
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file. Raises :class:`HostError` for one that is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise HostError(f"{path} can't be read: {error}") from None
    return found if isinstance(found, dict) else {}
