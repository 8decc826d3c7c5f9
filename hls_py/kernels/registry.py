"""Every kernel of the accelerator by name."""

from hls_py.dataflow import Kernel
from hls_py.kernels import (
    attention,
    exp2_fixed,
    gated,
    head_quantise,
    linear,
    logit,
    norm,
    reciprocal,
    rope,
    rsqrt,
    silu,
)

KERNELS: dict[str, Kernel] = {
    found.name: found
    for module in (reciprocal, rsqrt, silu, exp2_fixed, linear, norm, rope, head_quantise, attention, gated, logit)
    for found in vars(module).values() if isinstance(found, Kernel)
}
