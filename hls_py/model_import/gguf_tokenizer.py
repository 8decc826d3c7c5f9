"""What a GGUF file says of text, written as the files of a model folder: tokenizer.json or tokenizer.model,
tokenizer_config.json, generation_config.json.

Two kinds of tokenizer: 'gpt2' (byte-level BPE; how text is cut before it, tokenizer.ggml.pre names) and 'llama'
(sentencepiece's BPE with byte fallback). Others are refused by name.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from hls_py.errors import TellmeError
from hls_py.model_import.gguf_file import GgufFile

CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + WORDS.replace("{DIGITS}", "{1,3}")
QWEN2 = CONTRACTIONS + WORDS.replace("{DIGITS}", "")
WHOLE_WORDS_FIRST = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon_e")
"""Where a word that is a token is taken whole, and a text begins with BOS unless the file says otherwise. falcon_e is
in Falcon-E's published files, the same as falcon3 (ik_llama.cpp, issue 551); llama.cpp itself doesn't know it."""
CUTS = {
    **dict.fromkeys(WHOLE_WORDS_FIRST, (LLAMA3,)),
    **dict.fromkeys(("gpt-2", "gpt2", "mpt", "olmo", "jais"), (GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), (r"\p{N}", GPT2)),
    **dict.fromkeys(("qwen2", "stablelm2"), (QWEN2,)),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
}
"""tokenizer.ggml.pre → expressions that cut text one after the other, what they match and what lies between alike."""
ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "</s>")
"""Control tokens of these texts end what a model says, whether or not the metadata say so (as llama.cpp has it)."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MAX_TOKENS = 1 << 22
BESIDE = "tokenizer.json"


def write_tokenizer(path: Path, folder: Path) -> None:
    """Raises :class:`TellmeError` when the file has no tokenizer, or one that isn't supported or contradicts itself."""
    data, where = GgufFile(path).metadata, str(path)
    kind = data.get("tokenizer.ggml.model")
    tokens = _list(data, "tokens", str, where)
    types = _list(data, "token_type", int, where, [NORMAL] * len(tokens))
    if not tokens or len(tokens) > MAX_TOKENS or len(types) != len(tokens):
        raise TellmeError(f"{where}: {len(tokens)} tokens with {len(types)} types in its tokenizer")
    special = {name: _token(data, f"{name}_token_id", len(tokens), where)
               for name in ("bos", "eos", "eot", "eom", "unknown", "padding", "seperator")}
    if kind == "gpt2":
        add_bos = _write_byte_level(data, tokens, types, special, folder, where)
    elif kind == "llama":
        add_bos = _flag(data, "add_bos_token", True)
        (folder / "tokenizer.model").write_bytes(_model_proto(
            tokens, _list(data, "scores", float, where), types, special, _flag(data, "add_space_prefix", True), where))
    else:
        raise TellmeError(f"{where}: tokenizer.ggml.model {kind!r} is not supported; supported are gpt2 and llama")
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    config: dict[str, Any] = {names[name]: tokens[number] for name, number in special.items()
                              if number is not None and name in names}
    config |= {"add_bos_token": add_bos, "add_eos_token": _flag(data, "add_eos_token", False)}
    template = data.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    ends = [special[name] for name in ("eos", "eot", "eom") if special[name] is not None]
    ends += [n for n, text in enumerate(tokens) if types[n] == CONTROL and text in ENDS]
    _write(folder / "tokenizer_config.json", config)
    _write(folder / "generation_config.json", {"eos_token_id": list(dict.fromkeys(ends))})


def _write_byte_level(data: dict[str, Any], tokens: list[str], types: list[int], special: dict[str, int | None],
                      folder: Path, where: str) -> bool:
    """tokenizer.json; returns whether a text begins with the first token."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    pre = data.get("tokenizer.ggml.pre")
    if pre is None:
        _copy_beside(Path(where).parent / BESIDE, tokens, folder, where)
        return False
    if not isinstance(pre, str) or pre not in CUTS:
        raise TellmeError(f"{where}: tokenizer.ggml.pre {pre!r} is not supported; supported are {', '.join(CUTS)}")
    vocabulary = {text: number for number, text in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise TellmeError(f"{where}: a token occurs twice in its tokenizer")
    merges = [tuple(merge.split(" ")) for merge in _list(data, "merges", str, where)]
    bad = next((merge for merge in merges if len(merge) != 2), None)
    if bad is not None:
        raise TellmeError(f"{where}: {' '.join(bad)!r} is no merge of two tokens")
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in WHOLE_WORDS_FIRST))
        cuts: list[Any] = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in CUTS[pre]]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True)
                                      for text, kind in zip(tokens, types) if kind in (CONTROL, UNKNOWN)])
        tokenizer.add_tokens([AddedToken(text, normalized=False) for text, kind in zip(tokens, types)
                              if kind == USER_DEFINED])
        add_bos = _flag(data, "add_bos_token", pre in WHOLE_WORDS_FIRST)
        before = special["bos"] if add_bos else None
        behind = special["eos"] if _flag(data, "add_eos_token", False) else None
        ends = [(tokens[n], n) for n in (before, behind) if n is not None]
        if ends:
            tokenizer.post_processor = processors.TemplateProcessing(
                single=[*([tokens[before]] if before is not None else []), "$A",
                        *([tokens[behind]] if behind is not None else [])], special_tokens=ends)
        tokenizer.save(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises plain Exception
        raise TellmeError(f"{where}: its tokenizer can't be used ({' '.join(str(error).split())})") from None
    return add_bos


def _copy_beside(path: Path, tokens: list[str], folder: Path, where: str) -> None:
    """Some converters left out how text is cut; a tokenizer.json of the very same tokens has it."""
    from tokenizers import Tokenizer
    if not path.is_file():
        raise TellmeError(f"{where} doesn't say how text is cut into words (tokenizer.ggml.pre is missing); put the "
                          f"model's own {BESIDE} beside it")
    try:
        theirs = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise TellmeError(f"{path} can't be read: {error}") from None
    other = next((n for n, text in enumerate(tokens) if theirs.token_to_id(text) != n), None)
    if other is not None:
        raise TellmeError(f"{where}: token {other} is {tokens[other]!r}, in {path} it isn't; the two don't belong "
                          "together")
    theirs.save(str(folder / "tokenizer.json"))


# ---- sentencepiece's ModelProto, as far as it is needed ------------------------------------------------------------


def _model_proto(tokens: list[str], scores: list[float], types: list[int], special: dict[str, int | None],
                 add_space_prefix: bool, where: str) -> bytes:
    """tokenizer.model of a BPE vocabulary: pieces, their kind and the special ids, and that text is kept as it is."""
    if len(scores) != len(tokens):
        raise TellmeError(f"{where}: {len(tokens)} tokens with {len(scores)} scores in its tokenizer")
    pieces = b"".join(_field(1, _field(1, text.encode("utf-8", "replace")) + b"\x15" + struct.pack("<f", score)
                             + _number(3, kind))
                      for text, score, kind in zip(tokens, scores, types))
    ids = {40: special["unknown"], 41: special["bos"], 42: special["eos"], 43: special["padding"]}
    trainer = (_number(3, 2) + _number(4, len(tokens)) + _number(35, int(BYTE in types))
               + b"".join(_number(field, -1 if n is None else n) for field, n in ids.items()))
    normalizer = _field(1, b"identity") + _number(3, int(add_space_prefix)) + _number(4, 0) + _number(5, 1)
    raw = pieces + _field(2, trainer) + _field(3, normalizer)
    import sentencepiece
    try:
        sentencepiece.SentencePieceProcessor(model_proto=raw)
    except (RuntimeError, ValueError) as error:
        raise TellmeError(f"{where}: its tokenizer can't be used ({' '.join(str(error).split())})") from None
    return raw


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    raw = bytearray()
    while number > 127:
        raw.append(number & 127 | 128)
        number >>= 7
    return bytes([*raw, number])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, raw: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


# ---- metadata ------------------------------------------------------------------------------------------------------


def _list(data: dict[str, Any], name: str, kind: type, where: str, default: list[Any] | None = None) -> list[Any]:
    found = data.get(f"tokenizer.ggml.{name}", default)
    if not isinstance(found, list) or not all(isinstance(entry, kind) for entry in found):
        raise TellmeError(f"{where}: tokenizer.ggml.{name} is missing, or no list of {kind.__name__}")
    return found


def _token(data: dict[str, Any], name: str, count: int, where: str) -> int | None:
    found = data.get(f"tokenizer.ggml.{name}")
    if found is not None and (not isinstance(found, int) or not 0 <= found < count):
        raise TellmeError(f"{where}: tokenizer.ggml.{name} is {found!r}; the tokenizer has {count} tokens")
    return found


def _flag(data: dict[str, Any], name: str, default: bool) -> bool:
    return bool(data.get(f"tokenizer.ggml.{name}", default))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
