"""How ternary weights are stored in a beat, and the engine's code.

Engine code (G weights): ``entry`` in the low bits and the sign on top. With
``value = Σ w_i·3**i`` (w_i ∈ {-1, 0, 1}, i = 0 … G-1), ``entry = |value|`` and ``sign = value < 0``;
the table's entry e holds ``Σ d_i(e)·a_i`` with d the balanced-ternary digits of e, entry 0 is zero.

Storage (a beat holds T·Q codes, i.e. T·G·Q weights, order: output q outermost, then K rising):

``five_bit``: G = 3, a code of 5 bits as the engine takes it; code (q, t) at bit (q·T + t)·5.
``dense``   : 5 weights a byte, ``byte = Σ (w_j + 1)·3**j``, j = 0 … 4; weight number n of the beat is digit
              n mod 5 of byte n div 5; bytes 243 … 255 stand for five zeros.
"""

FIVE_BIT = "five_bit"
DENSE = "dense"
ENCODINGS = (FIVE_BIT, DENSE)

DENSE_WEIGHTS_PER_BYTE = 5


def table_entries(group: int) -> int:
    """Entries of a sign-symmetric table, zero included: (3**G - 1)/2 + 1."""
    return (3**group - 1) // 2 + 1


def entry_bits(group: int) -> int:
    return (table_entries(group) - 1).bit_length()


def code_bits(group: int) -> int:
    """Bits of an engine code: entry and sign."""
    return entry_bits(group) + 1


def balanced_digits(entry: int, group: int) -> tuple[int, ...]:
    """Balanced-ternary digits d_0 … d_{G-1} of ``entry``."""
    digits = []
    for _ in range(group):
        digit = (entry + 1) % 3 - 1
        digits.append(digit)
        entry = (entry - digit) // 3
    return tuple(digits)


def encode_group(weights: tuple[int, ...]) -> int:
    """Engine code of G weights."""
    value = sum(w * 3**i for i, w in enumerate(weights))
    return abs(value) | (int(value < 0) << entry_bits(len(weights)))


def decode_group(code: int, group: int) -> tuple[int, ...]:
    """G weights behind an engine code; entries beyond the table are zeros."""
    entry = code & ((1 << entry_bits(group)) - 1)
    if entry >= table_entries(group):
        return (0,) * group
    sign = -1 if code >> entry_bits(group) & 1 else 1
    return tuple(sign * d for d in balanced_digits(entry, group))


def encode_dense(weights: tuple[int, ...]) -> int:
    """Byte of (up to) five weights; missing ones count as zero."""
    return sum(((weights[j] if j < len(weights) else 0) + 1) * 3**j for j in range(DENSE_WEIGHTS_PER_BYTE))


def decode_dense(byte: int) -> tuple[int, ...]:
    """Five weights behind a byte."""
    if byte >= 3**DENSE_WEIGHTS_PER_BYTE:
        return (0,) * DENSE_WEIGHTS_PER_BYTE
    return tuple(byte // 3**j % 3 - 1 for j in range(DENSE_WEIGHTS_PER_BYTE))


def beat_bits_needed(encoding: str, tables: int, outputs: int, group: int) -> int:
    """Payload bits that a step's T·Q codes take in a beat."""
    if encoding == FIVE_BIT:
        return tables * outputs * code_bits(group)
    return 8 * -(-tables * group * outputs // DENSE_WEIGHTS_PER_BYTE)
