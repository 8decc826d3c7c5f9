"""The demo model in PyTorch: a Llama-style BitNet b1.58 with quantisation-aware training.

Semantics (the same that the accelerator implements):

    W' = q_w * a,  a = max(mean|W|, 1e-5),  q_w = clip(round(W / a), -1, 1)          one scale per tensor
    x' = q_x / s,  s = 127 / max(max|x|, 1e-5) per token,  q_x = clip(round(x s), -128, 127)
    layer:  h = input_norm(x);  q, k, v = h Wq', h Wk', h Wv';  RoPE (rotate_half);  causal attention
            x = x + attn_sub_norm(attention) Wo'
            h = post_attention_norm(x);  x = x + ffn_sub_norm(silu(h Wg') * (h Wu')) Wd'
    logits = final_norm(x) E^T                                                       tied to the embedding, not ternary

Rounding is half to even. Gradients pass straight through both quantisers. Parameter names are those of the
Hugging Face `BitNetForCausalLM`, without the leading `model.`.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Sizes of the model, named as in a Hugging Face config.json."""

    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 768
    vocab_size: int = 1024
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def read(cls, config_path: Path) -> "Shape":
        config = json.loads(config_path.read_text())
        return cls(**{f.name: config[f.name] for f in fields(cls)})


def ternary(weight: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Absmean quantisation of one tensor: values in {-1, 0, 1} and the scale that multiplies them.

    The scale is rounded to bfloat16, the type in which checkpoints store it, so that training sees the shipped value;
    the decision which weights are 0 uses the unrounded mean.
    """
    if scale is not None:  # `weight` is already ternary
        return weight, scale
    mean = weight.abs().mean().clamp(min=1e-5)
    return (weight / mean).round().clamp(-1, 1), mean.bfloat16().float()


class TernaryProduct(torch.autograd.Function):
    """y = x' W'^T for several weight tensors that share one input; straight-through in both x and W.

    The codes of both sides are small integers, which bfloat16 holds exactly; the token's scale is applied afterwards.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[override]
        top = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-5)
        codes = (x.float() * (127 / top)).round().clamp(-128, 127).to(dtype)
        weight = weight.to(dtype)
        step = (top / 127)
        ctx.save_for_backward(codes, step, weight)
        return ((codes @ weight.T).float() * step).to(dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        codes, step, weight = ctx.saved_tensors
        grad_x = grad @ weight
        scaled = (grad.float() * step).to(grad.dtype)
        grad_weight = scaled.flatten(0, -2).T @ codes.flatten(0, -2)
        return grad_x, grad_weight.float(), None


class StraightTernary(torch.autograd.Function):
    """The dequantised weight W' with the gradient of the identity."""

    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:  # type: ignore[override]
        codes, scale = ternary(weight)
        return codes * scale

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


class TernaryLinear(nn.Module):
    """A weight matrix [out, in]: masters during training, or frozen ternary codes with a scale after `load_packed`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) * in_features**-0.5)
        self.frozen_scale: Tensor | None = None

    def dequantised(self) -> Tensor:
        if self.frozen_scale is not None:
            return self.weight * self.frozen_scale
        return StraightTernary.apply(self.weight)


def products(x: Tensor, layers: list[TernaryLinear], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Apply several ternary layers to one input: it is quantised once and multiplied once."""
    weight = torch.cat([layer.dequantised() for layer in layers])
    y = TernaryProduct.apply(x, weight, dtype)
    return y.split([layer.weight.shape[0] for layer in layers], -1)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE in the rotate_half form: x cos + (-x2, x1) sin over the two halves of a head."""
    low, high = x.float().chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.hidden_size
        self.heads, self.head_dim = shape.num_attention_heads, shape.head_dim
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (TernaryLinear(d, d) for _ in range(4))
        self.attn_sub_norm = RMSNorm(d, shape.rms_norm_eps)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype, cache: list | None = None) -> Tensor:
        batch, length, width = h.shape
        q, k, v = (y.view(batch, length, self.heads, self.head_dim).transpose(1, 2)
                   for y in products(h, [self.q_proj, self.k_proj, self.v_proj], dtype))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        past = 0
        if cache is not None:
            if cache:
                past = cache[0].shape[2]
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        if past and length > 1:
            raise ValueError("a cache is continued one token at a time")
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=past == 0)
        y = self.attn_sub_norm(y.transpose(1, 2).reshape(batch, length, width))
        return products(y, [self.o_proj], dtype)[0]


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, f = shape.hidden_size, shape.intermediate_size
        self.gate_proj, self.up_proj, self.down_proj = TernaryLinear(d, f), TernaryLinear(d, f), TernaryLinear(f, d)
        self.ffn_sub_norm = RMSNorm(f, shape.rms_norm_eps)

    def forward(self, h: Tensor, dtype: torch.dtype) -> Tensor:
        gate, up = products(h, [self.gate_proj, self.up_proj], dtype)
        y = self.ffn_sub_norm(functional.silu(gate.float()) * up.float())
        return products(y, [self.down_proj], dtype)[0]


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype, cache: list | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, dtype, cache)
        return x + self.mlp(self.post_attention_layernorm(x), dtype)


class DemoModel(nn.Module):
    """Token ids [batch, length] -> logits [batch, length, vocab]. `dtype` is the type of the matrix products."""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        frequency = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
        angle = torch.arange(shape.max_position_embeddings, dtype=torch.float64)[:, None] * frequency
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, ids: Tensor, caches: list[list] | None = None) -> Tensor:
        past = caches[0][0].shape[2] if caches and caches[0] else 0
        cos, sin = self.cos[past : past + ids.shape[1]], self.sin[past : past + ids.shape[1]]
        x = self.embed_tokens(ids)
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, self.dtype, caches[index] if caches else None)
        return (self.norm(x).to(self.dtype) @ self.embed_tokens.weight.to(self.dtype).T).float()

    def loss(self, ids: Tensor) -> Tensor:
        """Mean cross entropy, in nats a token, of ids[:, 1:] given what precedes them."""
        return functional.cross_entropy(self(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    def ternary_layers(self) -> dict[str, TernaryLinear]:
        return {name: module for name, module in self.named_modules() if isinstance(module, TernaryLinear)}
