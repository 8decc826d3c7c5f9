"""How far activations stand out and how sharp attention is: trained models beside the fixture's families.

    python -m sim_tests.oracles.activation_statistics --text examples/train_demo/text/held_out.txt.xz \\
        examples/demo_model SmolLM2-135M-Instruct.Q4_1.gguf bitnet-2b 1bitllm-3b

A model folder, a family of FAMILIES at real dimensions, or a GGUF file that transformers itself reads (not ternary).
Peak: largest magnitude of what a projection reads over its root mean square, mean over rows; an int8 step is
peak/127 of that. Kurtosis: a Gaussian's is 3. Scores are q·k/√d of the positions a row sees.
"""

from __future__ import annotations

import argparse
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hls_py.oracles.transformers_model import TransformersModel, import_torch
from sim_tests.harness.checkpoints import FAMILIES
from sim_tests.oracles.families import PeakedHead, real_dimensions

READERS = {"q, k, v": "self_attn.q_proj", "output": "self_attn.o_proj", "gate, up": "mlp.gate_proj",
           "down": "mlp.down_proj"}


def measure(model: Any, tokens: np.ndarray) -> list[dict[str, tuple[float, ...]]]:
    """By layer: (peak, kurtosis) of what each of READERS reads, and attention's (score deviation, entropy in bits)."""
    torch = import_torch()
    found: list[dict[str, list[tuple[float, ...]]]] = [{} for _ in model.model.layers]

    def watch(index: int, name: str) -> Callable[..., None]:
        def hook(_: Any, inputs: Any) -> None:
            rows = inputs[0][0, 1:].double()  # the first position is a class of its own: others attend to it
            rms = rows.square().mean(-1, keepdim=True).sqrt()
            peak = (rows.abs() / rms).amax(-1).mean()
            found[index].setdefault(name, []).append((float(peak), float((rows / rms).pow(4).mean(-1).median())))
        return hook

    for index, layer in enumerate(model.model.layers):
        for name, path in READERS.items():
            layer.get_submodule(path).register_forward_pre_hook(watch(index, name))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for row in tokens:
            seen = model(torch.tensor(row[None]), output_attentions=True).attentions
            for index, weights in enumerate(seen):
                rows = weights[0, :, len(row) // 4:].double()
                logs = rows.clamp_min(1e-30).log2()
                visible = torch.ones_like(rows[0]).tril(len(row) // 4) > 0
                # Scores of a row are the logarithms of its weights but for a constant.
                deviation = float(np.mean([float((line[mask] * np.log(2)).std())
                                           for head in logs for line, mask in zip(head, visible)]))
                found[index].setdefault("attention", []).append((deviation, float(-(rows * logs).sum(-1).mean())))
    return [{name: tuple(np.mean(values, axis=0)) for name, values in layer.items()} for layer in found]


def load(name: str, folder: Path) -> tuple[Any, Callable[[str], list[int]] | None, int]:
    """(transformers model, its tokenizer, its vocabulary)."""
    if name in FAMILIES:
        family = real_dimensions(FAMILIES[name])
        return TransformersModel(PeakedHead(family).write_huggingface(folder / name)).model, None, family.vocabulary
    path = Path(name)
    if path.is_dir():
        from tokenizers import Tokenizer
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        ternary = TransformersModel(path)
        return ternary.model, lambda text: list(tokenizer.encode(text).ids), ternary.config.vocabulary
    torch = import_torch()
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    encode = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model, lambda text: list(encode(text)["input_ids"]), model.config.vocab_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="FOLDER|FAMILY|FILE.gguf")
    parser.add_argument("--text", type=Path, metavar="FILE.xz", help="read this instead of random tokens")
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--length", type=int, default=48)
    arguments = parser.parse_args()
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            model, tokenise, vocabulary = load(name, Path(folder))
            shape = arguments.sequences, arguments.length
            if arguments.text and tokenise:
                ids = tokenise(lzma.decompress(arguments.text.read_bytes()).decode()[:20 * shape[0] * shape[1]])
                tokens = np.array(ids[:shape[0] * shape[1]]).reshape(shape)
            else:
                tokens = np.random.default_rng(5).integers(0, vocabulary, shape)
            print(f"{name}\nlayer  " + "".join(f"{reader:>19}" for reader in READERS) + "   attention")
            for index, layer in enumerate(measure(model, tokens)):
                peaks = "".join("   peak {:4.1f} kurt {:3.0f}".format(*layer[reader]) for reader in READERS)
                print(f"{index:5}  {peaks}   scores ±{layer['attention'][0]:.2f}, {layer['attention'][1]:.2f} bits")


if __name__ == "__main__":
    main()
