"""Reading and writing the model in the Hugging Face form of BitNet: masters ("online") or packed codes ("offline").

Packing, along the output rows: R = out / 4, packed[r] |= (w[i R + r] + 1) << 2 i for i in 0..3, type uint8. The linear
class is `autobitlinear`, whose runtimes *multiply* by `weight_scale` = mean|W|.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from examples.train_demo.model import DemoModel, Shape, ternary


def pack(codes: Tensor) -> Tensor:
    """Ternary [out, in] -> uint8 [out / 4, in]."""
    if codes.shape[0] % 4:
        raise ValueError(f"{codes.shape[0]} output rows: the packed form needs a multiple of 4")
    fields = (codes + 1).to(torch.uint8).reshape(4, codes.shape[0] // 4, -1)
    return fields[0] | fields[1] << 2 | fields[2] << 4 | fields[3] << 6


def unpack(packed: Tensor) -> Tensor:
    """uint8 [out / 4, in] -> ternary float [out, in]."""
    codes = torch.cat([packed >> 2 * i & 3 for i in range(4)]).float() - 1
    if codes.max() > 1:
        raise ValueError("code 3 in packed ternary weights")
    return codes


def config_of(shape: Shape, mode: str) -> dict:
    return {
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        **shape.as_dict(),
        "num_key_value_heads": shape.num_attention_heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": mode,
        },
    }


def write_masters(model: DemoModel, folder: Path) -> None:
    """bfloat16 masters; whoever loads them quantises by absmean."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"model.{name}": p.detach().bfloat16().contiguous().cpu() for name, p in model.named_parameters()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(model.shape, "online"), indent=2) + "\n")


def write_packed(model: DemoModel, folder: Path) -> None:
    """Packed ternary weights, quantised from the bfloat16 masters, so that both forms hold the same codes."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = model.ternary_layers()
    state = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach().cpu().bfloat16()
        layer = layers.get(name.removesuffix(".weight"))
        if layer is not None:
            codes, scale = ternary(value.float(), layer.frozen_scale)
            state[f"model.{name}"] = pack(codes)
            state[f"model.{name}_scale"] = scale.reshape(1).bfloat16()
        else:
            state[f"model.{name}"] = value
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(model.shape, "offline"), indent=2) + "\n")


def read(folder: Path, dtype: torch.dtype = torch.bfloat16) -> DemoModel:
    """Load either form. Packed weights stay frozen: they serve for evaluation and sampling, not for training."""
    config = json.loads((folder / "config.json").read_text())
    mode = config["quantization_config"]["quantization_mode"]
    state = {name.removeprefix("model."): value for name, value in load_file(folder / "model.safetensors").items()}
    model = DemoModel(Shape.read(folder / "config.json"), dtype)
    if mode == "offline":
        for name, layer in model.ternary_layers().items():
            layer.frozen_scale = state.pop(f"{name}.weight_scale").float()
            state[f"{name}.weight"] = unpack(state[f"{name}.weight"])
            layer.weight.requires_grad_(False)
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return model
