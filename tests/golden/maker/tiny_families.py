"""Whole models of the larger families with small random weights, each with the true topology of its kind.

- tiny-sdxl, as Stable Diffusion XL base: a block without attention first, more transformer layers the deeper (0, 2, 3), linear
  projections, a list of head counts, two text encoders of different widths, the second with a projection, gelu, padding with "!" and the
  `eos_token_id: 2` of its published config; a VAE that asks to be upcast.
- tiny-sdxl-edit and tiny-sdxl-nine: a UNet of eight and one of nine input channels, as instruct-pix2pix and inpainting models have, to lay
  over tiny-sdxl.
- tiny-sdxl-refiner, as its refiner: four blocks, the outer ones without attention, the second text encoder alone, an aesthetic score,
  and the latents of tiny-sdxl (the same VAE).
- tiny-lcm, as LCM Dreamshaper: Stable Diffusion 1 with `time_cond_proj_dim`, and an `LCMScheduler`.
- tiny-bk-sdm, as BK-SDM-Tiny: no block in the middle, one layer a block, `DownBlock2D` at the bottom.
"""

import json
import shutil

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    LCMScheduler,
    LatentConsistencyModelPipeline,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from .paths import GOLDEN
from .tiny import keep_settings, randomize, text_config, tokenizer, up_block, use_vocabulary_files, vae_blocks
from .tiny_tokenizer import END

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def make_models():
    make_sdxl(GOLDEN / "tiny-sdxl")
    make_xl_unet(GOLDEN / "tiny-sdxl-edit", 8, "StableDiffusionXLInstructPix2PixPipeline")
    make_xl_unet(GOLDEN / "tiny-sdxl-nine", 9, "StableDiffusionXLInpaintPipeline")
    make_refiner(GOLDEN / "tiny-sdxl-refiner")
    make_lcm(GOLDEN / "tiny-lcm")
    make_bk_sdm(GOLDEN / "tiny-bk-sdm")


def make_sdxl(folder):
    torch.manual_seed(3)
    blocks = ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=[8, 16, 16],
        transformer_layers_per_block=[1, 2, 3],
        attention_head_dim=[2, 4, 8],
        **unet_blocks(blocks, layers=2),
        **xl_settings(cross_attention_dim=16 + 24, text=16, numbers=6),
    )
    pipe = StableDiffusionXLPipeline(
        vae=xl_vae(),
        text_encoder=CLIPTextModel(text_config(hidden_size=16, hidden_act="quick_gelu", num_attention_heads=2)),
        text_encoder_2=second_text_encoder(),
        tokenizer=tokenizer(pad=END),
        tokenizer_2=tokenizer(pad="!"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        add_watermarker=False,
    )
    save(folder, pipe)


def make_xl_unet(folder, in_channels, pipeline):
    """A UNet of more input channels and a model_index.json to lay over tiny-sdxl."""
    torch.manual_seed(in_channels + 1)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        block_out_channels=[8, 16],
        attention_head_dim=[2, 4],
        **unet_blocks(["DownBlock2D", "CrossAttnDownBlock2D"], layers=1),
        **xl_settings(cross_attention_dim=16 + 24, text=16, numbers=6),
    )
    randomize(unet)
    randomize(unet)
    shutil.rmtree(folder, ignore_errors=True)
    unet.half().save_pretrained(folder / "unet")
    index = json.loads((GOLDEN / "tiny-sdxl" / "model_index.json").read_text())
    index["_class_name"] = pipeline
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def make_refiner(folder):
    torch.manual_seed(4)
    blocks = ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=[8, 8, 16, 16],
        transformer_layers_per_block=2,
        attention_head_dim=[2, 2, 4, 4],
        **unet_blocks(blocks, layers=1),
        **xl_settings(cross_attention_dim=24, text=16, numbers=5),
    )
    pipe = StableDiffusionXLImg2ImgPipeline(
        vae=xl_vae(),
        text_encoder=None,
        text_encoder_2=second_text_encoder(),
        tokenizer=None,
        tokenizer_2=tokenizer(pad="!"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    save(folder, pipe)


def make_lcm(folder):
    torch.manual_seed(5)
    blocks = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=[8, 8, 16],
        attention_head_dim=4,
        cross_attention_dim=16,
        time_cond_proj_dim=12,
        **unet_blocks(blocks, layers=1),
    )
    pipe = LatentConsistencyModelPipeline(
        scheduler=LCMScheduler(**BETAS | {"steps_offset": 0}), **plain_parts(unet), **NO_CHECKER
    )
    save(folder, pipe)


def make_bk_sdm(folder):
    torch.manual_seed(6)
    blocks = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=[8, 8, 16],
        attention_head_dim=4,
        cross_attention_dim=16,
        mid_block_type=None,
        **unet_blocks(blocks, layers=1),
    )
    pipe = StableDiffusionPipeline(scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True), **plain_parts(unet), **NO_CHECKER)
    save(folder, pipe)


def unet_blocks(blocks, layers):
    return {
        "down_block_types": blocks,
        "up_block_types": [up_block(block) for block in reversed(blocks)],
        "layers_per_block": layers,
        "norm_num_groups": 4,
    }


def xl_settings(cross_attention_dim, text, numbers):
    return {
        "cross_attention_dim": cross_attention_dim,
        "use_linear_projection": True,
        "upcast_attention": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": text + 8 * numbers,
    }


def xl_vae():
    return AutoencoderKL(
        block_out_channels=[4, 8, 8], norm_num_groups=2, scaling_factor=0.13025, force_upcast=True, **vae_blocks(3)
    )


def second_text_encoder():
    config = text_config(hidden_size=24, hidden_act="gelu", num_attention_heads=3)
    config.num_hidden_layers, config.projection_dim, config.eos_token_id = 3, 16, 2
    return CLIPTextModelWithProjection(config)


def plain_parts(unet):
    return {
        "vae": AutoencoderKL(block_out_channels=[4, 8, 8], norm_num_groups=2, **vae_blocks(3)),
        "text_encoder": CLIPTextModel(text_config(hidden_size=16, hidden_act="quick_gelu", num_attention_heads=2)),
        "tokenizer": tokenizer(pad=END),
        "unet": unet,
    }


def save(folder, pipe):
    parts = ("vae", "text_encoder", "text_encoder_2", "unet")
    for part in filter(None, (getattr(pipe, name, None) for name in parts)):
        randomize(part)
    shutil.rmtree(folder, ignore_errors=True)
    pipe.save_pretrained(folder)
    for name in ("tokenizer", "tokenizer_2"):
        if (folder / name).is_dir():
            use_vocabulary_files(folder / name)
    keep_settings(folder / "scheduler" / "scheduler_config.json", ["trained_betas"])
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"  {folder.name}: {size} bytes")
