"""The shipped demo model is the recorded one, small, ternary, and was not trained on the text that measures it."""

import hashlib
import json
import random
from pathlib import Path

import ml_dtypes  # noqa: F401  (teaches NumPy, and so safetensors, bfloat16)
import numpy as np
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from examples.train_demo import corpus

FOLDER = Path(corpus.__file__).parent.parent / "demo_model"
CONFIG = json.loads((FOLDER / "config.json").read_text())
TERNARY_SHAPES = {
    **{f"self_attn.{name}_proj": (256, 256) for name in "qkvo"},
    "mlp.gate_proj": (768, 256), "mlp.up_proj": (768, 256), "mlp.down_proj": (256, 768),
}


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    with safe_open(FOLDER / "model.safetensors", framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def parts() -> tuple[list[str], list[str]]:
    return corpus.split()


def test_recorded_hashes():
    recorded = json.loads((FOLDER / "training.json").read_text())["sha256"]
    assert recorded == {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in recorded}
    assert "model.safetensors" in recorded


def test_size():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 3_000_000


def test_packed_weights_are_ternary(tensors):
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, (rows, columns) in TERNARY_SHAPES.items():
            packed = tensors[f"model.layers.{layer}.{name}.weight"]
            assert packed.dtype == np.uint8 and packed.shape == (rows // 4, columns)
            codes = np.concatenate([packed >> 2 * i & 3 for i in range(4)])
            counts = np.bincount(codes.ravel(), minlength=4)
            assert counts[3] == 0
            # absmean of a bell-shaped distribution leaves about a third of each; a wrong unpacking would not
            assert (counts[:3] > 0.2 * codes.size).all(), (layer, name, counts)
            scale = tensors[f"model.layers.{layer}.{name}.weight_scale"].astype(np.float32)
            assert scale.shape == (1,) and 1e-3 < scale[0] < 1, "a scale that multiplies is far below 1"


def test_config_and_tensors_agree(tensors):
    quantization = CONFIG["quantization_config"]
    assert (quantization["quant_method"], quantization["linear_class"], quantization["quantization_mode"]) == (
        "bitnet", "autobitlinear", "offline")
    packed = {f"model.layers.{i}.{n}.{kind}" for i in range(4) for n in TERNARY_SHAPES
              for kind in ("weight", "weight_scale")}
    rest = {name: value for name, value in tensors.items() if name not in packed}
    assert packed < tensors.keys()
    assert all(value.dtype.name == "bfloat16" for value in rest.values())
    assert rest["model.embed_tokens.weight"].shape == (CONFIG["vocab_size"], CONFIG["hidden_size"])
    assert CONFIG["tie_word_embeddings"] and "lm_head.weight" not in tensors
    norms = {"input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm", "mlp.ffn_sub_norm"}
    assert rest.keys() == {"model.embed_tokens.weight", "model.norm.weight"} | {
        f"model.layers.{i}.{n}.weight" for i in range(4) for n in norms}


def test_tokenizer():
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == CONFIG["vocab_size"]
    assert tokenizer.id_to_token(CONFIG["bos_token_id"]) == "<s>"
    assert tokenizer.id_to_token(CONFIG["eos_token_id"]) == "</s>"
    line = "Thou art — naïve, “my lord”;\n\n  \t12 ships"
    assert tokenizer.decode(tokenizer.encode(line).ids) == line


def test_blocks_partition_the_text(parts):
    whole = [corpus.read(corpus.TEXT_FOLDER / name) for name in corpus.FILES]
    for content in whole:
        pieces = corpus.blocks(content)
        assert "".join(pieces) == content
        assert all(len(piece) > corpus.BLOCK_CHARACTERS and piece.endswith("\n\n") for piece in pieces[:-1])
    training, held_out = parts
    assert sum(map(len, training)) + sum(map(len, held_out)) == sum(map(len, whole))
    assert 0.04 < sum(map(len, held_out)) / sum(map(len, whole)) < 0.06
    assert corpus.read(corpus.HELD_OUT_FILE) == "".join(held_out)


def test_held_out_text_is_not_in_the_training_text(parts):
    """400 pieces of 120 characters: long enough that only a copied passage could recur."""
    training, held_out = parts
    training_text = "\0".join(training)
    generator = random.Random(1)
    for block in held_out:
        starts = [generator.randrange(len(block) - 120) for _ in range(40)]
        recurring = sum(block[start : start + 120] in training_text for start in starts)
        assert recurring == 0, (block[:60], recurring)
