"""Export a model to the Hugging Face form: `python -m examples.train_demo.export RUN_OR_MODEL OUT [--masters]`.

The input is a training run's folder (its newest checkpoint) or a folder in the Hugging Face form.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch

from examples.train_demo import checkpoint
from examples.train_demo.model import DemoModel, Shape


def load(source: Path) -> DemoModel:
    """A model from a training run, or from a folder in the Hugging Face form."""
    run = source / "checkpoint.pt"
    if not run.exists():
        return checkpoint.read(source)
    state = torch.load(run, map_location="cpu", weights_only=False)
    model = DemoModel(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--masters", action="store_true", help="bfloat16 masters instead of packed ternary weights")
    args = parser.parse_args()
    model = load(args.source)
    (checkpoint.write_masters if args.masters else checkpoint.write_packed)(model, args.out)
    (args.out / "model.safetensors").chmod(0o644)
    tokenizer = args.source / "tokenizer.json"
    if tokenizer.exists():
        shutil.copyfile(tokenizer, args.out / "tokenizer.json")
    generation = {"bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 0.7,
                  "top_k": 50, "top_p": 0.95, "max_new_tokens": 256}
    (args.out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


if __name__ == "__main__":
    main()
