"""llama.cpp's own computation of a GGUF file: logits of every position, through the library in the xllamacpp wheel.

xllamacpp's own interface gives probabilities of next tokens only, so llama.cpp's C interface is called, which the
wheel's one shared library exports. It runs in a process of its own, for llama.cpp ends the process when it doesn't like
a file.

What differs from golden by design: activations are quantised by block of 256 (TQ1_0, TQ2_0) or not at all (F16, F32),
keys and values are float16, attention and head are in float.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from hls_py.errors import TellmeError
from hls_py.model_import.gguf_file import I2_S, GgufFile
from hls_py.model_import.source import is_gguf

PACKAGE = "xllamacpp"
INSTALL = "pip install 'tellme[llama]'"
ARCHITECTURES = ("llama", "bitnet")
"""Of those that this project reads; the others (bitnet-b1.58, bitnet-25) are bitnet.cpp's."""
BATCH_TOKENS = 512
THREADS = 2


def is_installed() -> bool:
    return importlib.util.find_spec(PACKAGE) is not None


def reason_against(path: Path) -> str | None:
    """Why llama.cpp can't run this model; None when it can. Raises :class:`TellmeError` for a damaged file."""
    if not is_gguf(path):
        return "it reads GGUF files only"
    file = GgufFile(path)
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        return f"it has no architecture {architecture!r}"
    if any(tensor.type_id == I2_S for tensor in file.tensors.values()):
        return "it can't read I2_S weights"
    if not is_installed():
        return f"{PACKAGE} is not installed ({INSTALL})"
    return None


class LlamaCppModel:
    """A GGUF file as llama.cpp computes it. Raises :class:`TellmeError` when it can't be asked."""

    def __init__(self, path: Path):
        reason = reason_against(path)
        if reason:
            raise TellmeError(f"llama.cpp can't be asked: {reason}")
        self.path = path
        self.name = f"llama.cpp ({PACKAGE} {_version()})"

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """float32 [sequences, n, vocabulary] of token ids [sequences, n], each sequence by itself."""
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder) / "tokens.npy", Path(folder) / "logits.npy"
            np.save(given, tokens)
            done = subprocess.run([sys.executable, "-m", __name__, str(self.path), str(given), str(made)],
                                  capture_output=True, text=True, errors="replace")
            if done.returncode:
                raise TellmeError(f"llama.cpp could not run {self.path}: {_complaint(done)}; "
                                  "use --against transformers")
            return np.asarray(np.load(made))


def _version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "of unknown version"


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What it complained of first, in one line."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = [line for line in lines if any(word in line.lower() for word in ("error", "assert", "fail", "invalid"))]
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    return (said or lines or [f"it ended with {how}"])[0]


# ---- in the child process -------------------------------------------------------------------------------------------

class _Parameters(ctypes.Structure):
    """llama_model_params or llama_context_params: more room than either needs, so that fields added behind the known
    ones do no harm. The library fills in its defaults, and reads its own size of it."""

    _fields_ = [("words", ctypes.c_uint32 * 256)]


class _Batch(ctypes.Structure):
    """llama_batch."""

    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8))]


N_CTX, N_BATCH, N_UBATCH = range(3)
"""The first words of llama_context_params."""
DEFAULTS = [512, 2048, 512]
"""What the library puts there: tells that they are still the first."""


def _library() -> Any:
    import xllamacpp
    (path,) = Path(xllamacpp.__file__).parent.glob("xllamacpp*.so")
    library = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    for name, result, arguments in (
            ("llama_backend_init", None, []),
            ("llama_model_default_params", _Parameters, []), ("llama_context_default_params", _Parameters, []),
            ("llama_model_load_from_file", pointer, [ctypes.c_char_p, _Parameters]),
            ("llama_init_from_model", pointer, [pointer, _Parameters]),
            ("llama_model_get_vocab", pointer, [pointer]), ("llama_vocab_n_tokens", ctypes.c_int32, [pointer]),
            ("llama_set_n_threads", None, [pointer, ctypes.c_int32, ctypes.c_int32]),
            ("llama_batch_init", _Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
            ("llama_get_memory", pointer, [pointer]), ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
            ("llama_decode", ctypes.c_int32, [pointer, _Batch]),
            ("llama_get_logits_ith", ctypes.POINTER(ctypes.c_float), [pointer, ctypes.c_int32])):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _logits(path: str, tokens: np.ndarray) -> np.ndarray:
    library = _library()
    library.llama_backend_init()
    model = library.llama_model_load_from_file(path.encode(), library.llama_model_default_params())
    if not model:
        sys.exit("error: it can't load the file")
    count, length = tokens.shape
    parameters = library.llama_context_default_params()
    batch_tokens = min(length, BATCH_TOKENS)
    batch = library.llama_batch_init(batch_tokens, 0, 1)
    if (list(parameters.words[:3]) != DEFAULTS or batch.embd
            or not (batch.token and batch.pos and batch.n_seq_id and batch.seq_id and batch.logits)):
        sys.exit(f"error: this version of {PACKAGE} has another interface than the pinned one; {INSTALL}")
    parameters.words[N_CTX], parameters.words[N_BATCH] = length, batch_tokens
    parameters.words[N_UBATCH] = batch_tokens
    context = library.llama_init_from_model(model, parameters)
    if not context:
        sys.exit("error: it can't make a context")
    library.llama_set_n_threads(context, THREADS, THREADS)
    vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    found = np.empty((count, length, vocabulary), np.float32)
    for sequence, row in zip(found, tokens.tolist()):
        library.llama_memory_clear(library.llama_get_memory(context), True)
        for first in range(0, length, batch_tokens):
            part = row[first:first + batch_tokens]
            batch.n_tokens = len(part)
            for index, token in enumerate(part):
                batch.token[index], batch.pos[index], batch.logits[index] = token, first + index, 1
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            status = library.llama_decode(context, batch)
            if status:
                sys.exit(f"error: llama_decode returned {status}")
            for index in range(len(part)):
                values = library.llama_get_logits_ith(context, index)
                sequence[first + index] = np.ctypeslib.as_array(values, (vocabulary,))
    return found


def main(arguments: list[str]) -> None:
    path, given, made = arguments
    np.save(made, _logits(path, np.load(given)))
    sys.stdout.flush()
    os._exit(0)  # without the library's own destructors


if __name__ == "__main__":
    main(sys.argv[1:])
