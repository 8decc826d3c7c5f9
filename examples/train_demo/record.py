"""Describe a shipped model: `python -m examples.train_demo.record RUN MODEL` writes MODEL/training.json.

RUN is the training run's folder, MODEL the exported one. The losses are measured anew on the exported weights.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer

from examples.train_demo import checkpoint, evaluate

PATHS = ("run", "initial", "tokenizer")
NO_PART_OF_THE_RESULT = (*PATHS, "threads", "save_seconds", "evaluate_every", "device")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def command(settings: dict) -> str:
    words = ["python -m examples.train_demo.train RUN"]
    if settings["initial"] != "None":
        words.append("--initial INITIAL")
    for name, value in settings.items():
        if name not in NO_PART_OF_THE_RESULT and value is not False:
            option = "--" + name.replace("_", "-")
            words.append(option if value is True else f"{option} {value}")
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("model", type=Path)
    args = parser.parse_args()
    settings = json.loads((args.run / "settings.json").read_text())
    state = torch.load(args.run / "checkpoint.pt", map_location="cpu", weights_only=False)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    held_out = evaluate.HeldOut.load(tokenizer)

    def losses(folder: Path) -> dict:
        model = checkpoint.read(folder).eval()
        result = {}
        for length in (256, 1024):
            nats = evaluate.nats_per_token(model, held_out.tokens, length)
            result[f"windows_of_{length}"] = {"nats_per_token": round(nats, 4),
                                              "bits_per_byte": round(held_out.bits_per_byte(nats), 4)}
        return result

    record: dict = {"command": command(settings), "seed": settings["seed"], "steps": state["step"],
                    "tokens_per_step": settings["batch"] * settings["length"],
                    "torch": torch.__version__}
    if settings["initial"] != "None":
        initial = Path(settings["initial"])
        record["initial"] = {"sha256": sha256(initial / "model.safetensors"), "held_out": losses(initial)}
    record["held_out"] = losses(args.model)
    record["held_out_tokens"], record["held_out_bytes"] = len(held_out.tokens), held_out.size_bytes
    record["sha256"] = {name: sha256(args.model / name) for name in ("model.safetensors", "tokenizer.json")}
    (args.model / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
