"""Tokens and chat templates against transformers' own tokenizers."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import sentencepiece

from host.text import Text

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo_model"
TEXTS = ["In the beginning God created the heaven and the earth.", "two  spaces, and\n\n\tlines \n",
         "naïve — 你好 Ω 🙂🙂 é", "I'll say 12345 and 6.789, won't I?", "a", "<s>In the</s>end<s>"]
ALPHABETS = ["abcdefghij ", "\n\t", "0123456789.,", "éüñß", "你好世界。", "🙂👩‍🚀", "'sStTlLreve", "~!@#$%^&*()_+-="]
CONVERSATIONS = [
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hello \n"}],
    [{"role": "user", "content": "é <b>"}, {"role": "assistant", "content": "x\n"}, {"role": "user", "content": "2"}]]
TEMPLATES = [
    "{% for m in messages %}{% set c = '<|start|>' + m['role'] + '\n\n' + m['content'] | trim + '<|end|>' %}"
    "{% if loop.index0 == 0 %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n\n' }}{% endif %}",
    "{%- for m in messages %}\n  {%- if m.role == 'system' %}{% continue %}{% endif %}\n{{ m.content | trim }}\n"
    "{%- endfor %}",
    "{{ {'b': 'é<', 'a': 1} | tojson }}{{ messages | tojson(indent=2) }}{{ tools is none }}{{ documents is none }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}"
    "{{ m.content }}{% endif %}{{ eos_token }}{% endfor %}",
    "{% if true %}\n  x\n{% endif %}\ny {{ strftime_now('%Y') | length }}"]


def samples() -> list[str]:
    rng = random.Random(3)
    return TEXTS + ["".join(rng.choice(rng.choice(ALPHABETS)) for _ in range(rng.randrange(1, 80))).lstrip() or "x"
                    for _ in range(150)]


def theirs(folder: Path):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("template", TEMPLATES)
def test_tokenizer_json_and_templates(tmp_path, template):
    shutil.copy(DEMO / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "chat_template": template, "bos_token": "<s>", "eos_token": "</s>",
        "tokenizer_class": "PreTrainedTokenizerFast"}))
    text, oracle = Text(tmp_path), theirs(tmp_path)
    for sample in samples():
        assert text.encode(sample) == oracle.encode(sample)
    assert text.chat_template
    for messages in CONVERSATIONS:
        for prompt in (True, False):
            rendered = oracle.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            assert text.chat_template.render(messages, prompt) == rendered
        ids = oracle.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
        assert text.encode_chat(messages) == list(ids)


@pytest.mark.parametrize("legacy", [True, False])
def test_sentencepiece(tmp_path, legacy):
    """Parts that begin with no space: of those, transformers 5 makes one space less than sentencepiece does."""
    model = io.BytesIO()
    lines = (DEMO / "README.md").read_text().splitlines() * 5 + TEXTS[:4] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in lines if line.strip()), model_writer=model, vocab_size=500,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        minloglevel=2)
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "add_bos_token": True}))
    text, oracle = Text(tmp_path), theirs(tmp_path)
    for sample in samples():
        assert text.encode(sample) == oracle.encode(sample), sample
        assert text.encode_rendered(sample) == oracle.encode(sample, add_special_tokens=False), sample
