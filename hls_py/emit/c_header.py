"""The C header of a design: registers, descriptors, enumerations and parameters, written from rtl.contract."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from rtl.contract import kv_layout, number_formats, pass_descriptor, register_map
from rtl.contract.bitfields import WordLayout
from rtl.contract.command_words import COMMAND_BYTES
from rtl.contract.design_params import CONTRACT_VERSION, DesignParams

LAYOUTS = (pass_descriptor.PASS_HEADER, pass_descriptor.ROW_ENTRY, pass_descriptor.GROUP_ENTRY,
           pass_descriptor.RESULT_HEADER)
ENUMERATIONS: dict[str, type[IntEnum] | type[IntFlag]] = {
    "CONTROL": register_map.Control, "STATUS": register_map.Status, "ERROR": register_map.ErrorCause,
    "COUNTER": register_map.Counter, "PASS_FLAG": pass_descriptor.PassFlag, "ROW_FLAG": pass_descriptor.RowFlag,
}


def design_header(params: DesignParams) -> str:
    """Text of the header for the design of ``params``; same parameters, same bytes."""
    return "\n".join([
        "/* Generated for one design: registers, descriptors and parameters of the accelerator. C99 and C++.",
        " * A field NAME of a descriptor: NAME_WORD is its 32-bit word, NAME_LSB its lowest bit there, NAME_BITS its",
        " * width; a field wider than 32 bits goes on in the next word. All words are little-endian. */",
        "#ifndef TELLME_DESIGN_H", "#define TELLME_DESIGN_H", "",
        *_identity(params), *_parameters(params), *_registers(), *_enumerations(), *_layouts(), *_sizes(params),
        "#endif", ""])


def _define(name: str, value: str | int, comment: str = "") -> str:
    text = f"#define TELLME_{name} {value}"
    return f"{text}  /* {comment} */" if comment else text


def _identity(params: DesignParams) -> list[str]:
    words = [f"0x{params.design_hash >> 32 * n & 0xFFFFFFFF:08x}u" for n in range(4)]
    return ["/* identity, to be compared with the registers of the same names */",
            _define("IDENTITY", f"0x{register_map.IDENTITY:08x}u", "register ID"),
            _define("CONTRACT_VERSION", CONTRACT_VERSION),
            _define("DESIGN_HASH_WORDS", "{" + ", ".join(words) + "}", "low word first"), ""]


def _parameters(params: DesignParams) -> list[str]:
    lines = ["/* design parameters */"]
    for name, value in params.to_dict().items():
        if isinstance(value, int):
            lines.append(_define(f"PARAM_{name.upper()}", value))
    lines.append(_define("PARAM_BEAT_BYTES", params.beat_bytes))
    return [*lines, ""]


def _registers() -> list[str]:
    lines = ["/* registers: byte addresses; _COUNT elements, _STRIDE bytes apart, where there are several */"]
    for register in register_map.REGISTERS:
        access = register.access.name.lower().replace("_", " ")
        lines.append(_define(f"REG_{register.name}", f"0x{register.address:03x}u", f"{access}: {register.doc}"))
        if register.count > 1:
            lines += [_define(f"REG_{register.name}_COUNT", register.count),
                      _define(f"REG_{register.name}_STRIDE", register.stride)]
    return [*lines, _define("REG_SPAN", f"0x{1 << register_map.ADDRESS_BITS:x}u", "bytes of the register window"),
            _define("PASS_QUEUE_DEPTH", register_map.PASS_QUEUE_DEPTH),
            _define("WATCHDOG_DEFAULT_CYCLES", register_map.WATCHDOG_DEFAULT_CYCLES), ""]


def _enumerations() -> list[str]:
    lines = []
    for prefix, enumeration in ENUMERATIONS.items():
        kind = "bits" if issubclass(enumeration, IntFlag) else "values"
        lines.append(f"/* {kind} of {enumeration.__name__} */")
        lines += [_define(f"{prefix}_{member.name}", f"{member.value}u") for member in enumeration]
        if not issubclass(enumeration, IntFlag):
            lines.append(_define(f"{prefix}_COUNT", len(enumeration)))
        lines.append("")
    return lines


def _layouts() -> list[str]:
    lines = [_define("PASS_MAGIC", f"0x{pass_descriptor.PASS_MAGIC:08x}u"), ""]
    for layout in LAYOUTS:
        lines += _layout(layout)
    return lines


def _layout(layout: WordLayout) -> list[str]:
    prefix = layout.name.upper()
    lines = [f"/* {layout.name} */", _define(f"{prefix}_BYTES", layout.size_bytes)]
    for field in layout.fields.values():
        name = f"{prefix}_{field.name.upper()}"
        lines += [_define(f"{name}_WORD", field.word, field.doc), _define(f"{name}_LSB", field.lsb),
                  _define(f"{name}_BITS", field.width)]
    return [*lines, ""]


def _sizes(params: DesignParams) -> list[str]:
    return ["/* sizes in memory */",
            _define("COMMAND_BYTES", COMMAND_BYTES),
            _define("EXTENT_BYTES", pass_descriptor.extent_bytes(params.ports),
                    "beats (32 bits), 32 bits of zeros, then a 64-bit byte address for each port"),
            _define("RESULT_BYTES", pass_descriptor.result_bytes(params.top_k),
                    "from one row's result to the next for the largest top-k"),
            _define("TILE_POSITIONS", number_formats.TILE_POSITIONS, "positions of a KV block"),
            _define("KV_HEADER_BYTES", kv_layout.HEADER_BYTES), ""]
