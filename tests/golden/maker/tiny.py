"""`tiny-sd1/` and `tiny-sd2/`: whole models in diffusers layout with small random weights and other architecture settings.

- tiny-sd1, as Stable Diffusion 1.5 was first published: four down blocks of two layers, `attention_head_dim: 8` (heads, whatever its
  name says), two transformer layers a block, float16, the UNet in several files with an index, the VAE's attention under its
  old names (`query`, `key`, `value`, `proj_attn`), the text encoder's keys with the prefix `text_model.` and a `position_ids`,
  `vocab.json` + `merges.txt`, and a PNDM `scheduler_config.json` that says little.
- tiny-sd2, as Stable Diffusion 2.1: linear projections, a number of heads for each block, gelu, v-prediction, padding with "!",
  float32, no prefix, `tokenizer.json` alone; and a VAE of three blocks, whose factor is 4, without mid-block attention.

- tiny-inpaint and tiny-edit: a UNet of nine and one of eight input channels, as Stable Diffusion's inpainting model and instruct-pix2pix
  have, and a `model_index.json`; to be laid over tiny-sd2, which has the other parts.

Norms and biases are random too, for zeros would hide a weight that is not used.
"""

import json
import shutil

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.schedulers import EulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .paths import GOLDEN
from .tiny_tokenizer import BEGIN, END, vocabulary

OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def make():
    make_sd1(GOLDEN / "tiny-sd1")
    make_sd2(GOLDEN / "tiny-sd2")
    make_unet(GOLDEN / "tiny-inpaint", 9, "StableDiffusionInpaintPipeline")
    make_unet(GOLDEN / "tiny-edit", 8, "StableDiffusionInstructPix2PixPipeline")
    for name in ("tiny-sd1", "tiny-sd2", "tiny-inpaint", "tiny-edit"):
        size = sum(file.stat().st_size for file in (GOLDEN / name).rglob("*") if file.is_file())
        print(f"  {name}: {size} bytes")


def make_sd1(folder):
    torch.manual_seed(1)
    blocks = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=[8, 8, 16, 16],
        down_block_types=blocks,
        up_block_types=[up_block(block) for block in reversed(blocks)],
        layers_per_block=2,
        attention_head_dim=8,
        transformer_layers_per_block=2,
        cross_attention_dim=16,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(block_out_channels=[4, 8, 8, 8], norm_num_groups=2, scaling_factor=0.18215, **vae_blocks(4))
    text_encoder = CLIPTextModel(text_config(hidden_size=16, hidden_act="quick_gelu", num_attention_heads=2))
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1)
    save(folder, tokenizer(pad=END), text_encoder.half(), unet.half(), vae.half(), scheduler)
    shard(folder / "unet", unet)
    rename(folder / "vae" / "diffusion_pytorch_model.safetensors", old_vae_name)
    prefix_text_encoder(folder / "text_encoder" / "model.safetensors")
    keep_settings(folder / "scheduler" / "scheduler_config.json", ["timestep_spacing", "set_alpha_to_one", "trained_betas"])
    use_vocabulary_files(folder / "tokenizer")


def make_sd2(folder):
    torch.manual_seed(2)
    blocks = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=[8, 16, 16],
        down_block_types=blocks,
        up_block_types=[up_block(block) for block in reversed(blocks)],
        layers_per_block=1,
        attention_head_dim=[2, 4, 4],
        use_linear_projection=True,
        cross_attention_dim=24,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=[4, 8, 8], norm_num_groups=2, scaling_factor=0.3, mid_block_add_attention=False, **vae_blocks(3)
    )
    text_encoder = CLIPTextModel(text_config(hidden_size=24, hidden_act="gelu", num_attention_heads=3))
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction", steps_offset=1
    )
    save(folder, tokenizer(pad="!"), text_encoder, unet, vae, scheduler)
    keep_settings(folder / "scheduler" / "scheduler_config.json", ["timestep_spacing", "trained_betas"], clip_sample=False)


def make_unet(folder, in_channels, pipeline):
    """A UNet and a model_index.json to lay over tiny-sd2."""
    torch.manual_seed(in_channels)
    shutil.rmtree(folder, ignore_errors=True)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        block_out_channels=[8, 8],
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=24,
        norm_num_groups=4,
    )
    randomize(unet)
    unet.save_pretrained(folder / "unet")
    index = json.loads((GOLDEN / "tiny-sd2" / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": pipeline}, indent=2) + "\n")


def up_block(down_block):
    return down_block.replace("Down", "Up")


def vae_blocks(count):
    return {"down_block_types": ["DownEncoderBlock2D"] * count, "up_block_types": ["UpDecoderBlock2D"] * count}


def text_config(**settings):
    vocab, _ = vocabulary()
    return CLIPTextConfig(
        vocab_size=len(vocab),
        intermediate_size=32,
        num_hidden_layers=2,
        projection_dim=8,
        bos_token_id=vocab[BEGIN],
        eos_token_id=vocab[END],
        pad_token_id=vocab[END],
        **settings,
    )


def tokenizer(pad):
    vocab, merges = vocabulary()
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token=pad, model_max_length=77)


def save(folder, tokenizer, text_encoder, unet, vae, scheduler):
    for part in (text_encoder, unet, vae):
        randomize(part)
    shutil.rmtree(folder, ignore_errors=True)
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)


@torch.no_grad()
def randomize(model):
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0.0, 0.1)
        elif parameter.dim() == 1:
            parameter.normal_(1.0, 0.3)
        elif "embedding" in name and parameter.dim() == 2 and "time" not in name:
            parameter.normal_(0.0, 0.5)


def shard(folder, model):
    """Saves a model again, in several files with an index."""
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")


def rename(file, new_name, **more):
    tensors = {new_name(key): tensor for key, tensor in load_file(file).items()}
    save_file(tensors | more, file, metadata={"format": "pt"})


def old_vae_name(key):
    if ".attentions." not in key:
        return key
    for new, old in OLD_ATTENTION.items():
        key = key.replace(f".{new}.", f".{old}.")
    return key


def prefix_text_encoder(file):
    position_ids = {"text_model.embeddings.position_ids": torch.arange(77).unsqueeze(0)}
    rename(file, lambda key: f"text_model.{key.removeprefix('text_model.')}", **position_ids)


def keep_settings(file, absent, **more):
    """Takes settings out of a JSON file, and puts others in."""
    settings = {key: value for key, value in json.loads(file.read_text()).items() if key not in absent}
    file.write_text(json.dumps(settings | more, indent=2) + "\n")


def use_vocabulary_files(folder):
    """`vocab.json` and `merges.txt` in the place of `tokenizer.json`, as the first models have them."""
    vocab, merges = vocabulary()
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2"] + [f"{left} {right}" for left, right in merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
