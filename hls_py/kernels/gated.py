"""The FFN's gated activation on dequantised gate and up sums."""

from hls_py.dataflow import Bit, Float32, Int32, Kernel, Scalar, kernel, maximum, select, to_float
from hls_py.kernels.silu import SATURATION, relu_squared, sigmoid, silu


@kernel
def gated_silu(gate: Int32, up: Int32, gate_scale: Scalar[Float32], up_scale: Scalar[Float32]) -> Float32:
    """silu(gate·gate_scale)·(up·up_scale)."""
    return silu(to_float(gate) * gate_scale) * (to_float(up) * up_scale)


@kernel
def gated_relu_squared(gate: Int32, up: Int32, gate_scale: Scalar[Float32], up_scale: Scalar[Float32]) -> Float32:
    """max(gate·gate_scale, 0)²·(up·up_scale)."""
    return relu_squared(to_float(gate) * gate_scale) * (to_float(up) * up_scale)


@kernel
def gated_silu_relu_squared(gate: Int32, up: Int32, gate_scale: Scalar[Float32], up_scale: Scalar[Float32],
                            second: Scalar[Bit]) -> Float32:
    """gated_relu_squared where ``second`` is set, else gated_silu, bit for bit: with one set of multipliers."""
    x = to_float(gate) * gate_scale
    positive = maximum(x, 0.0)
    product = select(second, positive, x) * select(second, positive, sigmoid(x))
    return select((x < SATURATION) & (second ^ 1), -0.0, product) * (to_float(up) * up_scale)


GATED_ACTIVATIONS: dict[str, Kernel] = {"silu": gated_silu, "swish": gated_silu, "relu2": gated_relu_squared}
"""By the name in a model's config (``hidden_act``)."""


def gated_activation(hidden_act: str) -> Kernel:
    """The kernel of an activation; ValueError names what is not supported."""
    try:
        return GATED_ACTIVATIONS[hidden_act]
    except KeyError:
        known = ", ".join(sorted(GATED_ACTIVATIONS))
        raise ValueError(f"hidden_act {hidden_act!r} is not supported; known: {known}") from None
