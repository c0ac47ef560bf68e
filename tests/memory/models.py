"""Full-size models with random weights, in diffusers layout and float16, from the configs that Stability AI and Runway published.

No weight is downloaded: the shapes come from models without memory (device `meta`), and each tensor is drawn by itself, so that making
a model takes little more memory than its largest part has bytes on the disk.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "demo" / "tokenizer"
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.42.1",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
VAE_BLOCKS = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


def make(name, folder):
    """Makes the model `sd15`, `sdxl` or `tiny`; one that is there already is used."""
    if (folder / "model_index.json").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = {"sd15": sd15, "sdxl": sdxl, "tiny": tiny}[name](folder)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    # Last, so that a folder with an index is whole.
    (folder / "model_index.json").write_text(json.dumps(parts))


def sd15(folder):
    with torch.device("meta"):
        save(folder / "unet", UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8))
        save(folder / "vae", AutoencoderKL(sample_size=512, **VAE_BLOCKS))
        save(folder / "text_encoder", CLIPTextModel(clip_l()))
    save_tokenizer(folder / "tokenizer")
    return sd1_index()


def tiny(folder):
    """All parts of sd15, each as small as can be."""
    blocks = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    sizes = {"block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 4}
    with torch.device("meta"):
        save(folder / "unet", UNet2DConditionModel(sample_size=16, norm_num_groups=8, **blocks, **sizes))
        vae_blocks = VAE_BLOCKS | {"block_out_channels": (16, 16, 32, 32)}
        save(folder / "vae", AutoencoderKL(sample_size=128, norm_num_groups=8, **vae_blocks))
        text_sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
        save(folder / "text_encoder", CLIPTextModel(clip(**text_sizes, hidden_act="quick_gelu")))
    save_tokenizer(folder / "tokenizer")
    return sd1_index()


def sd1_index():
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "requires_safety_checker": False,
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        **index(["text_encoder", "tokenizer", "unet", "vae", "scheduler"]),
    }


def sdxl(folder):
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
        save(folder / "unet", unet)
        save(folder / "vae", AutoencoderKL(sample_size=1024, scaling_factor=0.13025, force_upcast=True, **VAE_BLOCKS))
        save(folder / "text_encoder", CLIPTextModel(clip_l()))
        save(folder / "text_encoder_2", CLIPTextModelWithProjection(open_clip_g()))
    save_tokenizer(folder / "tokenizer")
    save_tokenizer(folder / "tokenizer_2", pad_token="!")
    return {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": "0.42.1",
        "force_zeros_for_empty_prompt": True,
        **index(["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae", "scheduler"]),
    }


def clip_l():
    return clip(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, hidden_act="quick_gelu")


def open_clip_g():
    sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32}
    return clip(**sizes, projection_dim=1280, hidden_act="gelu", pad_token_id=0)


def clip(projection_dim=768, pad_token_id=49407, **sizes):
    return CLIPTextConfig(
        vocab_size=49408, projection_dim=projection_dim, bos_token_id=49406, eos_token_id=49407, pad_token_id=pad_token_id, **sizes
    )


@torch.no_grad()
def save(folder, model):
    folder.mkdir()
    is_clip = isinstance(model, (CLIPTextModel, CLIPTextModelWithProjection))
    file = folder / ("model.safetensors" if is_clip else "diffusion_pytorch_model.safetensors")
    tensors = {name: draw(name, tensor.shape) for name, tensor in model.state_dict().items()}
    save_file(tensors, file, metadata={"format": "pt"})
    if is_clip:
        (folder / "config.json").write_text(model.config.to_json_string(use_diff=False))
    else:
        model.save_config(folder)


def draw(name, shape):
    """As PyTorch initializes layers, so that activations stay finite: norms are the identity, weights shrink with the inputs."""
    if len(shape) < 2:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=torch.float16, device="cpu")
    bound = shape[1:].numel() ** -0.5
    return torch.empty(shape, device="cpu").uniform_(-bound, bound).half()


def save_tokenizer(folder, **changes):
    shutil.copytree(TOKENIZER, folder)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | changes))


def index(parts):
    classes = {
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }
    return {part: classes[part] for part in parts}
