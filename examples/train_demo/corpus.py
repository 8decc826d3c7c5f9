"""The corpus: three public-domain texts, and the split into training and held-out blocks.

Within each file, a block ends behind the first blank line at or after 65,536 characters; every block whose index is 10
modulo 20 is held out. Blocks, and not the tail, because the three texts differ in style.

`python -m examples.train_demo.corpus` writes the held-out text as one file, `text/held_out.txt.xz`.
"""

import argparse
import lzma
import re
from pathlib import Path

TEXT_FOLDER = Path(__file__).parent / "text"
FILES = ("shakespeare.txt.xz", "kjv.txt.xz", "austen.txt.xz")
HELD_OUT_FILE = TEXT_FOLDER / "held_out.txt.xz"
BLOCK_CHARACTERS = 65536
HELD_OUT_PERIOD, HELD_OUT_PHASE = 20, 10


def read(path: Path) -> str:
    with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
        return file.read()


def blocks(text: str, size: int = BLOCK_CHARACTERS) -> list[str]:
    """Cut `text` behind the first blank line at or after every `size` characters; the pieces join to the text."""
    pieces, start = [], 0
    while start < len(text):
        cut = text.find("\n\n", start + size)
        end = len(text) if cut < 0 else cut + 2
        pieces.append(text[start:end])
        start = end
    return pieces


def split(folder: Path = TEXT_FOLDER) -> tuple[list[str], list[str]]:
    """(training blocks, held-out blocks) in the order of the files."""
    training: list[str] = []
    held_out: list[str] = []
    for name in FILES:
        for index, block in enumerate(blocks(read(folder / name))):
            (held_out if index % HELD_OUT_PERIOD == HELD_OUT_PHASE else training).append(block)
    return training, held_out


def words(text: str) -> list[str]:
    """Words in lower case: runs of letters, with inner apostrophes."""
    return [word.replace("’", "'") for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower())]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    training, held_out = split()
    HELD_OUT_FILE.write_bytes(lzma.compress("".join(held_out).encode(), preset=9 | lzma.PRESET_EXTREME))
    for name, part in (("training", training), ("held out", held_out)):
        print(f"{name}: {len(part)} blocks, {sum(map(len, part)):,} characters")


if __name__ == "__main__":
    main()
