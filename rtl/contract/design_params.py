"""What a design is: the parameters fixed when the hardware is generated, and everything derived from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from rtl.contract import weight_encodings as encodings
from rtl.contract.command_words import ActivationFunction
from rtl.contract.number_formats import (
    ACTIVATION_MAX,
    SEGMENT_BYTES,
    TILE_POSITIONS,
    VECTOR_ALIGN,
    bits_for,
    round_up,
)

CONTRACT_VERSION = 1
"""Goes up whenever registers, commands, descriptors, records, layouts or arithmetic change."""


@dataclass(frozen=True)
class DesignParams:
    """Parameters of one generated accelerator (letters as in the architecture document).

    Raises ``ValueError`` naming the parameter, its value and its range when they can't be built.
    """

    rows: int = 4
    """P: rows a pass runs at most (1 … 32)."""
    tables: int = 20
    """T: tables along K."""
    outputs: int = 5
    """Q: outputs a step."""
    group: int = 3
    """G: weights a code (2 … 4; five_bit implies 3)."""
    encoding: str = encodings.FIVE_BIT
    vector_lanes: int = 4
    """W: elements a word of the vector unit (2, 4 or 8)."""
    row_vectors: int = 4
    """A: row-vectors of the int8 array (even; 2 … 64)."""
    ports: int = 2
    """AXI4 ports (1, 2, 4 …)."""
    port_bytes: int = 32
    """Data width of a port in bytes (4 … 64)."""
    address_bits: int = 40
    rows_per_builder: int = 4
    """Rows that share one table builder."""

    # Limits of the models and passes it runs.
    max_hidden: int = 512
    """Residual width in elements that fits with all P rows; P·max_hidden is the capacity."""
    max_inner: int = 1024
    """K: width of FFN and attention vectors that fits with all P rows; P·max_inner is the capacity."""
    max_heads: int = 16
    max_kv_width: int = 512
    """KV heads × padded head_dim that fits with all P rows."""
    max_head_dim: int = 256
    max_row_vectors: int = 64
    """Rows × query heads per KV head of one group."""
    max_slots: int = 16
    tile_steps: int = 512
    """Steps of a tile at most: depth of the accumulator memory."""
    drain_steps: int = 1024
    """Depth of the drain ring in steps."""
    ring_words: int = 512
    """Words of a port's weight ring."""
    burst_beats: int = 16
    """Beats of an AXI burst at most (1 … 256)."""
    top_k: int = 64
    """Largest k of the hardware top-k (1 … 256)."""
    activations: tuple[str, ...] = ("silu", "relu_squared")
    """Gated activations in hardware, names of ActivationFunction in lower case."""

    def __post_init__(self) -> None:
        def need(condition: bool, name: str, rule: str) -> None:
            if not condition:
                raise ValueError(f"design parameter {name} is {getattr(self, name)!r}; {rule}")

        power_of_two = {1 << n for n in range(12)}
        need(1 <= self.rows <= 32, "rows", "it must be 1 … 32")
        need(1 <= self.tables <= 64, "tables", "it must be 1 … 64")
        need(1 <= self.outputs <= 64, "outputs", "it must be 1 … 64")
        need(2 <= self.group <= 4, "group", "it must be 2 … 4")
        need(self.encoding in encodings.ENCODINGS, "encoding", f"it must be one of {', '.join(encodings.ENCODINGS)}")
        need(self.encoding != encodings.FIVE_BIT or self.group == 3, "group", "five_bit holds 3 weights a code")
        need(self.vector_lanes in (2, 4, 8), "vector_lanes", "it must be 2, 4 or 8")
        need(2 <= self.row_vectors <= 64 and self.row_vectors % 2 == 0, "row_vectors", "it must be even, 2 … 64")
        need(self.ports in power_of_two and self.ports <= 8, "ports", "it must be 1, 2, 4 or 8")
        need(self.port_bytes in power_of_two and 4 <= self.port_bytes <= 64, "port_bytes", "it must be 4 … 64, 2ⁿ")
        need(self.beat_bytes in (16, 32, 64, 128, 256), "port_bytes",
             "ports × port_bytes must be 16, 32, 64, 128 or 256")
        need(32 <= self.address_bits <= 64, "address_bits", "it must be 32 … 64")
        need(1 <= self.rows_per_builder <= 8, "rows_per_builder", "it must be 1 … 8")
        need(1 <= self.burst_beats <= 256, "burst_beats", "it must be 1 … 256")
        need(self.burst_beats * self.port_bytes <= 4096, "burst_beats", "a burst may not exceed 4096 bytes")
        need(self.ring_words in power_of_two or self.ring_words in (4096, 8192), "ring_words",
             "it must be a power of two")
        need(self.ring_words >= 4 * self.burst_beats, "ring_words", "it must hold at least four bursts")
        need(1 <= self.top_k <= 256, "top_k", "it must be 1 … 256")
        need(1 <= self.max_slots <= 1024, "max_slots", "it must be 1 … 1024")
        need(self.max_head_dim % 2 == 0 and self.max_head_dim <= 512, "max_head_dim", "it must be even and ≤ 512")
        need(self.max_row_vectors >= 1, "max_row_vectors", "it must be ≥ 1")
        need(self.max_inner >= self.max_hidden, "max_inner", "it must be at least max_hidden")
        need(2 <= self.tile_steps <= 4096, "tile_steps", "it must be 2 … 4096")
        need(self.drain_steps >= 2 * self.tile_steps, "drain_steps", "it must hold two tiles (a gate and an up tile)")
        need(self.tile_steps * self.outputs >= round_up(self.max_head_dim, VECTOR_ALIGN), "tile_steps",
             "a tile must hold one whole head (tile_steps·outputs ≥ max_head_dim)")
        known = {f.name.lower() for f in ActivationFunction}
        need(bool(self.activations) and set(self.activations) <= known, "activations", f"choose from {sorted(known)}")
        needed = encodings.beat_bits_needed(self.encoding, self.tables, self.outputs, self.group)
        need(needed <= 8 * self.beat_bytes, "tables",
             f"a step's codes take {needed} bits of a beat of {8 * self.beat_bytes}")

    # ---- derived -------------------------------------------------------------------------------------------------

    @property
    def beat_bytes(self) -> int:
        return self.ports * self.port_bytes

    @property
    def segments(self) -> int:
        """S: independent 16-byte segments of a beat."""
        return self.beat_bytes // SEGMENT_BYTES

    @property
    def slice_elements(self) -> int:
        """K positions of a slice: T·G."""
        return self.tables * self.group

    @property
    def code_bits(self) -> int:
        return encodings.code_bits(self.group)

    @property
    def table_entry_bits(self) -> int:
        """Signed width of a table entry: G activations of ±127."""
        return bits_for(ACTIVATION_MAX * self.group) + 1

    @property
    def accumulator_bits(self) -> int:
        """Signed width that holds ±127·K for the widest vector a single row may have."""
        return bits_for(ACTIVATION_MAX * self.max_vector_elements) + 1

    @property
    def max_vector_elements(self) -> int:
        """Widest K of any matrix when fewer rows run: bounded so that counters and accumulators can be sized."""
        return round_up(2 * self.max_inner, VECTOR_ALIGN)

    @property
    def residual_words(self) -> int:
        """Capacity of the residual memory in words of W elements."""
        return self.rows * round_up(self.max_hidden, VECTOR_ALIGN) // self.vector_lanes

    @property
    def vector_words(self) -> int:
        """Capacity of the FFN/attention vector memory in words of W elements."""
        return self.rows * round_up(self.max_inner, VECTOR_ALIGN) // self.vector_lanes

    @property
    def gain_words(self) -> int:
        """Words of W float32 gains of one bank."""
        return self.max_vector_elements // self.vector_lanes

    @property
    def max_slices(self) -> int:
        return -(-self.max_vector_elements // self.slice_elements)

    @property
    def activation_words(self) -> int:
        """Words of T·G int8 of one of the two activation buffers: slices × rows, for max_inner with all rows."""
        return self.rows * (-(-round_up(self.max_inner, VECTOR_ALIGN) // self.slice_elements) + 1)

    @property
    def max_turns(self) -> int:
        """Array turns of one K beat: row-vectors of a group over A."""
        return -(-self.max_row_vectors // self.row_vectors)

    @property
    def padded_head_dim(self) -> int:
        return round_up(self.max_head_dim, SEGMENT_BYTES)

    @property
    def newest_words(self) -> int:
        """16-byte segments of one row of the new K (and of V)."""
        return round_up(self.max_kv_width, SEGMENT_BYTES) // SEGMENT_BYTES

    @property
    def newest_bank_bytes(self) -> int:
        """Bytes B of a word of the 16 banks of new K and V: S, but at least 4, so that a beat of K needs 16 at most."""
        return max(4, self.segments)

    def holds_newest(self, rows: int, segments: int) -> bool:
        """Whether the new K and V of ``rows`` rows, of ``segments`` 16-byte segments each, fit on chip.

        A bank's words are of rows r div B of K and r div 16 of V, so that fewer rows than that free nothing.
        """
        return all(segments * -(-rows // group) <= self.newest_words * -(-self.rows // group)
                   for group in (self.newest_bank_bytes, SEGMENT_BYTES))

    @property
    def query_segments(self) -> int:
        """16-byte segments of one row of the query buffer."""
        return self.max_heads * self.padded_head_dim // SEGMENT_BYTES

    @property
    def operand_words(self) -> int:
        """Depth of the int8 array's operand memory: two query and two weight buffers, or the head's operands."""
        queries = 2 * self.max_turns * (self.padded_head_dim // SEGMENT_BYTES)
        weights = 2 * -(-2 * self.max_row_vectors // self.row_vectors) * (TILE_POSITIONS // SEGMENT_BYTES)
        widest = min(self.max_hidden * self.rows, self.max_vector_elements)  # of the head's operands, of fewer rows
        head = -(-self.rows // self.row_vectors) * -(-widest // SEGMENT_BYTES)
        return max(queries + weights, min(head, 1 << 12))

    @property
    def tile_positions(self) -> int:
        return TILE_POSITIONS

    # ---- identity ------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "activations": list(self.activations)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DesignParams:
        """Raises ``ValueError`` naming an unknown or missing key."""
        known = {f.name for f in fields(cls)}
        for name in values:
            if name not in known:
                raise ValueError(f"unknown design parameter {name!r}; known: {', '.join(sorted(known))}")
        if "activations" in values:
            values = {**values, "activations": tuple(values["activations"])}
        return cls(**values)

    @property
    def design_hash(self) -> int:
        """128 bits over every parameter and the contract version; sits in the ID registers."""
        text = json.dumps({"contract": CONTRACT_VERSION, **self.to_dict()}, sort_keys=True)
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
