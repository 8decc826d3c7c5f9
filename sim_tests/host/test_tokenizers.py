"""tokenizer.json, tokenizer.model and those in GGUF files give the same tokens; chat templates; streaming."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from tokenizers import Tokenizer

from hls_py.cli import main
from hls_py.commands.verify import read_tokens
from hls_py.errors import TellmeError
from hls_py.model_import.gguf_tokenizer import CUTS, write_tokenizer
from host.cli import main as host_main
from host.commands.common import DEMO_MODEL
from host.errors import HostError
from host.text import REPLACEMENT, Streamer, Text
from sim_tests.harness.checkpoints import gguf_bytes

TEXTS = ["In the beginning God created the heaven and the earth.", "  two  spaces, and\n\n\tlines \n",
         "naïve — 你好 Ω 🙂🙂 é",
         "I'll say 12345 and 6.789, won't I? O'CLOCK it's", "", " ", "a", "<|weird|> </s x <s", "…\u200d\ufeff\x00\x7f"]


def random_text(rng: random.Random) -> str:
    alphabets = ["abcdefghij ", " \n\t", "0123456789.,", "éüñßÅ", "你好世界。", "🙂👩‍🚀🏳️‍🌈", "'sStTlLreve",
                 "~!@#$%^&*()_+-=<>|"]
    return "".join(rng.choice(rng.choice(alphabets)) for _ in range(rng.randrange(1, 80)))


MANY = TEXTS + [random_text(random.Random(n)) for n in range(150)]


def gguf_file(path: Path, **fields: Any) -> Path:
    path.write_bytes(gguf_bytes({f"tokenizer.{key.replace('__', '.')}": value for key, value in fields.items()
                                 if value is not None}, []))
    return path


# ---- byte-level BPE -------------------------------------------------------------------------------------------------


def byte_level(path: Path, **changes: Any) -> Path:
    """The demo model's tokenizer in a GGUF file."""
    raw = json.loads((DEMO_MODEL / "tokenizer.json").read_text())
    tokens = sorted(raw["model"]["vocab"], key=raw["model"]["vocab"].get)
    fields: dict[str, Any] = {
        "ggml__model": "gpt2", "ggml__pre": "gpt-2", "ggml__tokens": tokens,
        "ggml__token_type": [3 if text in ("<s>", "</s>") else 1 for text in tokens],
        "ggml__merges": [" ".join(merge) for merge in raw["model"]["merges"]], "ggml__bos_token_id": 0,
        "ggml__eos_token_id": 1}
    return gguf_file(path, **{**fields, **changes})


def written(path: Path) -> Text:
    folder = path.with_suffix("")
    folder.mkdir()
    write_tokenizer(path, folder)
    return Text(folder)


def test_byte_level_in_gguf(tmp_path):
    ours, theirs = written(byte_level(tmp_path / "m.gguf")), Text(DEMO_MODEL)
    for text in [*MANY, "<s>In the</s> end<s>"]:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(theirs.encode(text)) == theirs.decode(theirs.encode(text))
    assert ours.stop_tokens == {1}


def test_first_and_last_tokens(tmp_path):
    text = written(byte_level(tmp_path / "m.gguf", ggml__add_bos_token=True, ggml__add_eos_token=True))
    plain = Text(DEMO_MODEL).encode("In the")
    assert text.encode("In the") == [0, *plain, 1] and text.encode_rendered("In the") == plain
    llama = written(byte_level(tmp_path / "n.gguf", ggml__pre="llama-bpe"))
    assert llama.encode("In the")[0] == 0, "Llama 3's begin with BOS"


@pytest.mark.parametrize("pre", CUTS)
def test_every_cut_keeps_the_text(tmp_path, pre):
    text = written(byte_level(tmp_path / "m.gguf", ggml__pre=pre, ggml__add_bos_token=False))
    for sample in MANY:
        assert text.decode(text.encode(sample)) == sample


@pytest.mark.parametrize("pre, sample, words", [
    ("llama-bpe", "12345 It'S\n\n x", ["123", "45", " It", "'S", "\n\n", " x"]),
    ("qwen2", "123 a\r\n", ["1", "2", "3", " a", "\r\n"]), ("smollm", "a12 b", ["a", "1", "2", " b"]),
    ("gpt-2", "don't 123  x", ["don", "'t", " 123", " ", " x"])])
def test_cuts(tmp_path, pre, sample, words):
    folder = tmp_path / "m"
    folder.mkdir()
    write_tokenizer(byte_level(tmp_path / "m.gguf", ggml__pre=pre), folder)
    pieces = Tokenizer.from_file(str(folder / "tokenizer.json")).pre_tokenizer.pre_tokenize_str(sample)
    assert [sample[first:last] for _, (first, last) in pieces] == words


def test_a_file_that_does_not_say_how_text_is_cut(tmp_path):
    path = byte_level(tmp_path / "m.gguf", ggml__pre=None)
    with pytest.raises(TellmeError, match=r"tokenizer\.ggml\.pre is missing\); put the model's own tokenizer\.json"):
        write_tokenizer(path, tmp_path)
    beside = json.loads((DEMO_MODEL / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(beside))
    assert written(path).encode(TEXTS[2]) == Text(DEMO_MODEL).encode(TEXTS[2])
    vocabulary = beside["model"]["vocab"]
    vocabulary["h"], vocabulary["e"] = vocabulary["e"], vocabulary["h"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(beside))
    (tmp_path / "other").mkdir()
    with pytest.raises(TellmeError, match="the two don't belong together"):
        write_tokenizer(path, tmp_path / "other")


@pytest.mark.parametrize("changes, message", [
    ({"ggml__model": "bert"}, "tokenizer.ggml.model 'bert' is not supported"),
    ({"ggml__model": None}, "tokenizer.ggml.model None is not supported"),
    ({"ggml__pre": "klingon"}, "tokenizer.ggml.pre 'klingon' is not supported"),
    ({"ggml__tokens": None}, "tokenizer.ggml.tokens is missing"), ({"ggml__tokens": 5}, "no list of str"),
    ({"ggml__token_type": [1]}, "with 1 types"), ({"ggml__merges": ["a b c"]}, "'a b c' is no merge of two"),
    ({"ggml__merges": ["a Q!"]}, "its tokenizer can't be used"), ({"ggml__eos_token_id": 4000}, "eos_token_id is 4000"),
    ({"ggml__model": "llama"}, "tokenizer.ggml.scores is missing")])
def test_gguf_tokenizers_that_cannot_be_used(tmp_path, changes, message):
    with pytest.raises(TellmeError) as caught:
        write_tokenizer(byte_level(tmp_path / "m.gguf", **changes), tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# ---- sentencepiece --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a sentencepiece model as Llama's: BPE with byte fallback, a dummy prefix, nothing normalised."""
    folder, model = tmp_path_factory.mktemp("spm"), io.BytesIO()
    lines = (DEMO_MODEL / "README.md").read_text().splitlines() * 5 + TEXTS[:4] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in lines if line.strip()), model_writer=model, vocab_size=500,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        user_defined_symbols=["<|user|>"], control_symbols=["<|end|>"], minloglevel=2)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    return folder


def as_gguf(path: Path, folder: Path, **changes: Any) -> Path:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    numbers = range(pieces.vocab_size())
    kinds = [6 if pieces.is_byte(n) else 3 if pieces.is_control(n) else 2 if pieces.is_unknown(n) else 1
             for n in numbers]
    kinds[pieces.piece_to_id("<|user|>")] = 4
    fields: dict[str, Any] = {
        "ggml__model": "llama", "ggml__tokens": [pieces.id_to_piece(n) for n in numbers],
        "ggml__scores": [float(pieces.get_score(n)) for n in numbers], "ggml__token_type": kinds,
        "ggml__bos_token_id": pieces.bos_id(), "ggml__eos_token_id": pieces.eos_id(),
        "ggml__unknown_token_id": pieces.unk_id()}
    return gguf_file(path, **{**fields, **changes})


def test_sentencepiece(tmp_path, trained):
    """In a folder, and in a GGUF file: as the library encodes, with BOS before."""
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(trained / "tokenizer.model"))
    for text in (Text(trained), written(as_gguf(tmp_path / "m.gguf", trained))):
        for sample in MANY:
            expected = theirs.encode(sample)
            assert text.encode(sample) == [theirs.bos_id(), *expected]
            assert text.decode(expected) == theirs.decode(expected) == sample
    ends = {theirs.eos_id(), theirs.piece_to_id("<|end|>")}
    assert written(as_gguf(tmp_path / "n.gguf", trained)).stop_tokens == ends


def test_special_tokens_in_a_text(trained):
    text = Text(trained)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(trained / "tokenizer.model"))
    end, user = pieces.piece_to_id("<|end|>"), pieces.piece_to_id("<|user|>")
    tokens = text.encode_rendered("<s><|user|>the end<|end|>the")
    assert tokens[0] == pieces.bos_id() and tokens.count(end) == 1 and tokens.count(user) == 1
    assert tokens[tokens.index(end) + 1:] == pieces.encode("the")
    assert text.decode(tokens) == "<|user|>the end the", "control tokens aren't shown, user's are"


def test_added_tokens_and_no_legacy(tmp_path, trained):
    (tmp_path / "tokenizer.model").write_bytes((trained / "tokenizer.model").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "legacy": False, "add_bos_token": False, "eos_token": {"content": "<|end|>"}, "added_tokens_decoder": {
            "500": {"content": "<|tool|>", "special": True}, "501": {"content": "<|shown|>", "special": False}}}))
    text = Text(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(trained / "tokenizer.model"))
    tokens = text.encode("the<|tool|>the<|shown|>")
    assert not pieces.id_to_piece(tokens[tokens.index(500) + 1]).startswith("▁") and tokens[-1] == 501
    assert text.decode(tokens) == "thethe<|shown|>" and text.stop_tokens == {pieces.piece_to_id("<|end|>")}


def test_streaming_bytes_of_a_sentencepiece_model(trained):
    text = Text(trained)
    for sample in MANY:
        tokens = text.encode(sample)[1:]
        streamer = Streamer(text)
        parts = [streamer.push(token) for token in tokens]
        assert "".join(parts) + streamer.finish() == sample
        assert not any(REPLACEMENT in part for part in parts)


@pytest.mark.parametrize("spoil", [lambda raw: b"", lambda raw: raw[: len(raw) // 2], lambda raw: b"\xff" * 300])
def test_damaged_models(tmp_path, trained, spoil):
    (tmp_path / "tokenizer.model").write_bytes(spoil((trained / "tokenizer.model").read_bytes()))
    with pytest.raises(HostError, match="can't be read"):
        Text(tmp_path)


# ---- chat templates -------------------------------------------------------------------------------------------------

LLAMA3 = ("{% for message in messages %}{% set content = '<|start|>' + message['role'] + '\n\n' + message['content'] "
          "| trim + '<|end|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
          "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n\n' }}{% endif %}")
TURN = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hello \n"}]


def with_template(folder: Path, **config: Any) -> Text:
    (folder / "tokenizer.json").write_bytes((DEMO_MODEL / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Text(folder)


def test_a_template_is_rendered(tmp_path):
    text = with_template(tmp_path, chat_template=LLAMA3, bos_token={"content": "<s>"}, eos_token="</s>")
    expected = "<s><|start|>system\n\nBe brief.<|end|><|start|>user\n\nHello<|end|><|start|>assistant\n\n"
    assert text.chat_template and text.chat_template.render(TURN) == expected
    assert text.encode_chat(TURN) == Text(DEMO_MODEL).encode(expected) and text.encode_chat(TURN)[0] == 0
    assert not text.chat_template.render(TURN, add_generation_prompt=False).endswith("assistant\n\n")
    assert text.stop_tokens == {1}


def test_where_templates_are(tmp_path):
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ messages[0].content }}!"}]
    text = with_template(tmp_path, chat_template=named)
    assert text.chat_template and text.chat_template.render([{"role": "user", "content": "x"}]) == "x!"
    (tmp_path / "chat_template.jinja").write_text("of its own file")
    again = Text(tmp_path)
    assert again.chat_template and again.chat_template.render(TURN) == "of its own file"
    assert Text(DEMO_MODEL).chat_template is None
    with pytest.raises(HostError, match="has no chat template"):
        Text(DEMO_MODEL).encode_chat(TURN)


@pytest.mark.parametrize("source, expected", [
    ("{%- for m in messages %}\n  {%- if m.role == 'system' %}{% continue %}{% endif %}\n{{ m.content | trim }}\n"
     "{%- endfor %}", "Hello"),
    ("{{ {'b': 'é<', 'a': 1} | tojson }}", '{"b": "é<", "a": 1}'),
    ("{{ messages | tojson(indent=1) }}", json.dumps(TURN, indent=1)),
    ("{% generation %}{{ messages[1].content }}{% endgeneration %}.", " Hello \n."),
    ("{{ strftime_now('%Y') | length }}{{ tools is none }}", "4True"),
    ("{% if true %}\n  x\n{% endif %}\ny", "  x\ny")])
def test_rendering_is_that_of_transformers(tmp_path, source, expected):
    text = with_template(tmp_path, chat_template=source)
    assert text.chat_template
    assert text.chat_template.render(TURN) == expected


@pytest.mark.parametrize("source", [
    "{{ raise_exception('only user and assistant roles') }}", "{{ messages[5].content.x }}", "{{ 1 / 0 }}",
    "{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{% for i in range(10 ** 9) %}{% endfor %}",
    "{{ 'x' + 1 }}", "{{ nonsense() }}"])
def test_templates_that_fail(tmp_path, source):
    text = with_template(tmp_path, chat_template=source)
    with pytest.raises(HostError, match="the model's chat template refuses this conversation"):
        text.encode_chat(TURN)


def test_a_template_that_is_none(tmp_path):
    with pytest.raises(HostError, match="chat template can't be used"):
        with_template(tmp_path, chat_template="{% for %}")


# ---- GGUF files from the host's side --------------------------------------------------------------------------------


def test_a_gguf_file_is_a_model(tmp_path, capsys):
    path = byte_level(tmp_path / "m.gguf", chat_template=LLAMA3, ggml__eot_token_id=5)
    text = Text(path, tmp_path / "cache")
    assert text.encode(TEXTS[0]) == Text(DEMO_MODEL).encode(TEXTS[0]) and text.stop_tokens == {1, 5}
    assert text.chat_template and text.chat_template.render(TURN).startswith("<s><|start|>system")
    status = main(["tokenizer", str(path), "--cache", str(tmp_path / "cache")])
    found = json.loads(capsys.readouterr().out)["tokenizer"]
    assert status == 0 and sorted(p.name for p in Path(found).iterdir()) == [
        "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert main(["tokenizer", str(DEMO_MODEL)]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"] == str(DEMO_MODEL)
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(HostError):
        Text(tmp_path / "bad.gguf", tmp_path / "cache")


# ---- files of text --------------------------------------------------------------------------------------------------


def test_tokens_of_a_file(tmp_path, trained, monkeypatch):
    """`tellme tokens` and what `tellme-hls verify` reads: the same for a model in any form."""
    monkeypatch.setenv("TELLME_BUILD_DIR", str(tmp_path / "build"))
    text = tmp_path / "text.txt"
    text.write_bytes("".join(MANY).encode())
    for n, model in enumerate((DEMO_MODEL, trained, byte_level(tmp_path / "m.gguf"),
                               as_gguf(tmp_path / "n.gguf", trained))):
        made = tmp_path / "tokens.npy"
        assert host_main(["tokens", "--model", str(model), "--text", str(text), "-o", str(made)]) == 0
        expected = Text(model, tmp_path / "build").encode("".join(MANY))
        assert np.load(made).tolist() == expected and (n == 0 or len(set(expected)) > 100)
        windows = read_tokens(model, text, 120, 60)
        assert windows[0].tolist() == expected[:60] and windows[1].tolist() == expected[-60:]


def test_files_of_text_that_cannot_be_used(tmp_path, capfd):
    text, made = tmp_path / "text.txt", str(tmp_path / "tokens.npy")
    text.write_bytes(b"\xff\xfe")
    for arguments, message in ((["--text", str(text), "-o", made], "is not UTF-8"),
                               (["--text", str(tmp_path / "none"), "-o", made], "No such file"),
                               (["--text", str(text), "-o", str(tmp_path)], "can't be written"),
                               (["--text", str(text), "-o", made, "--model", str(tmp_path)], "is not UTF-8")):
        assert host_main(["tokens", *arguments]) == 1
        err = capfd.readouterr().err
        assert message in err and len(err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["text.txt"]
    text.write_text("In the beginning")
    with pytest.raises(TellmeError, match=r"has no tokenizer.json or tokenizer.model.*leave out --text"):
        read_tokens(tmp_path, text, 4, 2)
    with pytest.raises(TellmeError, match="tokens; 400 are needed"):
        read_tokens(DEMO_MODEL, text, 400, 2)
