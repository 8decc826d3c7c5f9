"""Text streams character by character, never a part of one; and what a model's folder says about text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models

from host.commands.common import DEMO_MODEL
from host.errors import HostError
from host.text import REPLACEMENT, UNFINISHED_TOKENS, Streamer, Text

MANY_BYTES = "naïve — 你好, Ω 🙂🙂 é"


@pytest.fixture(scope="module")
def demo() -> Text:
    return Text(DEMO_MODEL)


def byte_token(demo: Text, value: int) -> int:
    """The token of one byte; found in the byte-level alphabet, where printable characters stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    symbol = chr(value) if value in printable else chr(256 + others.index(value))
    found = demo._tokenizer.id_of(symbol)
    assert found is not None
    return found


def test_characters_of_several_tokens_come_whole(demo: Text):
    tokens = demo.encode(MANY_BYTES)
    assert len(tokens) > len(MANY_BYTES)  # characters are cut into bytes
    streamer = Streamer(demo)
    parts = [streamer.push(token) for token in tokens]
    assert "".join(parts) == MANY_BYTES and streamer.finish() == ""
    assert not any(REPLACEMENT in part for part in parts)
    assert "" in parts and "你" in parts and "🙂" in parts  # at once when its last byte is there


def test_every_cut_gives_the_same_text(demo: Text):
    tokens = demo.encode(MANY_BYTES)
    for cut in range(len(tokens)):
        before, after = tokens[:cut], tokens[cut:]
        if REPLACEMENT in demo.decode(before):
            continue
        streamer = Streamer(demo, before)
        text = "".join(streamer.push(token) for token in after)
        assert demo.decode(before) + text == MANY_BYTES


def test_an_unfinished_character_is_shown_at_the_end_only(demo: Text):
    start, *_ = "你".encode()
    streamer = Streamer(demo)
    assert streamer.push(byte_token(demo, ord("a"))) == "a"
    assert streamer.push(byte_token(demo, start)) == ""
    assert streamer.finish() == REPLACEMENT and streamer.finish() == ""


def test_bytes_that_are_no_text_are_not_held_for_ever(demo: Text):
    streamer = Streamer(demo)
    shown = [streamer.push(byte_token(demo, 0xFF)) for _ in range(20)]
    assert "".join(shown) == REPLACEMENT * (20 - UNFINISHED_TOKENS)
    shown = [streamer.push(byte_token(demo, value)) for value in "你!".encode()]
    assert "".join(shown) == REPLACEMENT * UNFINISHED_TOKENS + "你!"


def test_special_tokens_are_not_shown(demo: Text):
    streamer = Streamer(demo)
    tokens = [demo.encode("a")[0], 1, 0, *demo.encode("b")]
    assert "".join(map(streamer.push, tokens)) == "ab"


def test_a_space_at_the_joint_is_kept(tmp_path: Path):
    """A tokenizer that drops the first space of a text, as SentencePiece's do."""
    tokenizer = Tokenizer(models.WordLevel({"▁The": 0, "▁cat": 1, "s": 2, "?": 3}, unk_token="?"))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = Text(tmp_path)
    assert text.decode([1, 2]) == "cats"
    streamer = Streamer(text, [0])
    assert [streamer.push(token) for token in (1, 2, 1)] == [" cat", "s", " cat"]


@pytest.mark.parametrize("configs, expected", [
    ((None, None), frozenset()), (({"eos_token_id": 1}, None), {1}), (({"eos_token_id": [1, 5]}, {}), {1, 5}),
    (({"eos_token_id": 1}, {"eos_token_id": [2, 3]}), {2, 3}), (({"eos_token_id": None}, None), frozenset())])
def test_stop_tokens(tmp_path: Path, configs, expected):
    shutil.copy(DEMO_MODEL / "tokenizer.json", tmp_path)
    for name, config in zip(("config.json", "generation_config.json"), configs):
        if config is not None:
            (tmp_path / name).write_text(json.dumps(config))
    assert Text(tmp_path).stop_tokens == expected


def test_folders_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(HostError, match="is not a folder"):
        Text(tmp_path / "none")
    with pytest.raises(HostError, match=r"has no tokenizer\.json"):
        Text(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(HostError, match="can't be read"):
        Text(tmp_path)
    shutil.copy(DEMO_MODEL / "tokenizer.json", tmp_path)
    (tmp_path / "config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(HostError, match="eos_token_id is '</s>'"):
        _ = Text(tmp_path).stop_tokens
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(HostError, match=r"config\.json can't be read"):
        Text(tmp_path)


def test_bytes_that_are_no_utf8_are_refused(demo: Text):
    with pytest.raises(HostError, match="not valid UTF-8"):
        demo.encode(b"\xff".decode("utf-8", "surrogateescape"))
