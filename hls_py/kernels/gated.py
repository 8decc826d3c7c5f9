"""The FFN's gated activation on dequantised gate and up sums."""

from hls_py.dataflow import Float32, Int32, Kernel, Scalar, kernel, to_float
from hls_py.kernels.silu import relu_squared, silu


@kernel
def gated_silu(gate: Int32, up: Int32, gate_scale: Scalar[Float32], up_scale: Scalar[Float32]) -> Float32:
    """silu(gate·gate_scale)·(up·up_scale)."""
    return silu(to_float(gate) * gate_scale) * (to_float(up) * up_scale)


@kernel
def gated_relu_squared(gate: Int32, up: Int32, gate_scale: Scalar[Float32], up_scale: Scalar[Float32]) -> Float32:
    """max(gate·gate_scale, 0)²·(up·up_scale)."""
    return relu_squared(to_float(gate) * gate_scale) * (to_float(up) * up_scale)


GATED_ACTIVATIONS: dict[str, Kernel] = {"silu": gated_silu, "swish": gated_silu, "relu2": gated_relu_squared}
"""By the name in a model's config (``hidden_act``)."""


def gated_activation(hidden_act: str) -> Kernel:
    """The kernel of an activation; ValueError names what is not supported."""
    try:
        return GATED_ACTIVATIONS[hidden_act]
    except KeyError:
        known = ", ".join(sorted(GATED_ACTIVATIONS))
        raise ValueError(f"hidden_act {hidden_act!r} is not supported; known: {known}") from None
