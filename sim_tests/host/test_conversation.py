"""Conversations through a chat template: what is fed turn by turn is what rendering the whole gives; and GGUF files as
models from the command line."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from host.cli import main
from host.commands.common import DEMO_MODEL
from host.conversation import Conversation
from host.text import Text
from sim_tests.harness.checkpoints import FAMILIES, Synthetic, gguf_bytes

TEMPLATE = ("{% for m in messages %}<s>{{ m.role }}\n{{ m.content | trim }}</s>{% endfor %}"
            "{% if add_generation_prompt %}<s>assistant\n{% endif %}")
FORGETFUL = TEMPLATE.replace("{{ m.content | trim }}", "{{ 'x' if m.role == 'assistant' else m.content }}")


def text_with(folder: Path, template: str | None) -> Text:
    folder.mkdir(exist_ok=True)
    shutil.copy(DEMO_MODEL / "tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "</s>"}))
    return Text(folder)


@pytest.mark.parametrize("answer", ["Well met.", " Well met.\n", ""])
def test_turns_join_to_the_whole(tmp_path, answer):
    text = text_with(tmp_path / "m", TEMPLATE)
    conversation = Conversation(text, "Be brief.")
    first = conversation.ask("Hello")
    assert first.from_start and text.decode(first.tokens) == "system\nBe brief.user\nHelloassistant\n"
    conversation.answered("Hello", answer)
    second = conversation.ask("Again")
    assert not second.from_start
    assert second.tokens == text.encode_rendered("</s><s>user\nAgain</s><s>assistant\n") and second.tokens[0] == 1
    whole = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"},
             {"role": "assistant", "content": answer}, {"role": "user", "content": "Again"}]
    if answer == answer.strip():
        assert first.tokens + text.encode_rendered(answer) + second.tokens == text.encode_chat(whole)


def test_a_turn_that_did_not_happen_leaves_no_trace(tmp_path):
    conversation = Conversation(text_with(tmp_path / "m", TEMPLATE))
    assert conversation.ask("one") == conversation.ask("one") != conversation.ask("two")
    conversation.answered("one", "yes")
    assert conversation.ask("two") == conversation.ask("two")
    conversation.start_over()
    assert conversation.ask("two").from_start


def test_a_template_that_rewrites_the_past_starts_over(tmp_path):
    text = text_with(tmp_path / "m", FORGETFUL)
    conversation = Conversation(text)
    conversation.ask("one")
    conversation.answered("one", "a long thought")
    turn = conversation.ask("two")
    assert turn.from_start and text.decode(turn.tokens) == "user\noneassistant\nxuser\ntwoassistant\n"


def test_without_a_template(tmp_path):
    text = text_with(tmp_path / "m", None)
    conversation = Conversation(text, "Listen.")
    assert conversation.ask("one").tokens == text.encode("Listen.\none")
    conversation.answered("one", "yes")
    assert conversation.ask("two").tokens == text.encode("two") and not conversation.ask("two").from_start
    templated = Conversation(text_with(tmp_path / "n", TEMPLATE), template=False)
    assert templated.ask("one").tokens == text.encode("one")


# ---- a GGUF file wherever a model folder is ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """The same model with the demo's tokenizer, as a folder and as a GGUF file."""
    root = tmp_path_factory.mktemp("models")
    family = replace(FAMILIES["llama3-8b"].reduced(vocabulary=1024, layers=1), head_dim=64, heads=4, kv_heads=2)
    content = Synthetic(family)
    folder = content.write_huggingface(root / "folder")
    raw = json.loads((DEMO_MODEL / "tokenizer.json").read_text())
    tokens = sorted(raw["model"]["vocab"], key=raw["model"]["vocab"].get)
    words = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
             "tokenizer.ggml.token_type": [3 if n < 2 else 1 for n in range(len(tokens))],
             "tokenizer.ggml.merges": [" ".join(merge) for merge in raw["model"]["merges"]],
             "tokenizer.ggml.eos_token_id": 1, "tokenizer.chat_template": TEMPLATE}
    file = root / "model.gguf"
    file.write_bytes(gguf_bytes({**content.gguf_metadata("llama"), **words},
                                list(content.gguf_tensors("llama", "TQ1_0", "BF16"))))
    shutil.copy(DEMO_MODEL / "tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder, file


def test_a_gguf_file_runs_as_its_folder_does(models, tmp_path, capfd, monkeypatch):
    np.save(tmp_path / "tokens.npy", np.array([[5, 900, 33, 7, 1, 0, 512]]))
    found = []
    for model in models:
        target = ["--device", "golden", "--model", str(model), "--cache", str(tmp_path / "cache"), "--quiet"]
        logits = tmp_path / f"{model.name}.npy"
        assert main(["logits", *target, "--tokens", str(tmp_path / "tokens.npy"), "-o", str(logits)]) == 0
        assert main(["run", *target, "--prompt", "In the", "--max-tokens", "3"]) == 0
        monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n\n"))
        assert main(["chat", *target, "--max-tokens", "2", "--system", "Be brief."]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        found.append((out, np.load(logits)))
    assert found[0][0] == found[1][0] and np.array_equal(found[0][1], found[1][1])
