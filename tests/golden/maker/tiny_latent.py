"""Models of latent diffusion's paper and models without text, in diffusers layout, small and with random weights in float16.

- tiny-ldm, as CompVis/ldm-text2im-large-256: BERT (heads narrower than the model), a WordPiece `vocab.txt`, a `VQModel` of factor 8 whose
  codebook is narrower than its decoder, DDIM.
- tiny-ddpm, as google/ddpm-cat-256: pixels of three channels, one head whatever the width (`attention_head_dim: null`), padding on two
  sides only, sines first, DDPM with `clip_sample`.
- tiny-ddim: one channel, the time embedding scales and shifts, attention's blocks change the size in a residual block, heads of 4
  channels, the middle's scale factor and groups of its own, DDIM.
- tiny-ldm-faces, as CompVis/ldm-celebahq-256: a `UNet2DModel` over the latents of a `VQModel`, under its attention's old names.
"""

import shutil

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, LDMTextToImagePipeline
from diffusers import UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.pipelines.deprecated import LDMPipeline
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from transformers import BertTokenizer

from .paths import GOLDEN
from .tiny import old_vae_name, randomize, rename, up_block

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "red", "house", "blue", "cat", "tree", "star", "the", "in", "on", "with", "sky", "ugly", "##s", "##ing", "un", "##believ"]
LATENT_BETAS = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "clip_sample": False}


def make():
    for name, build in (("tiny-ldm", ldm), ("tiny-ddpm", ddpm), ("tiny-ddim", ddim), ("tiny-ldm-faces", ldm_faces)):
        folder = GOLDEN / name
        shutil.rmtree(folder, ignore_errors=True)
        build(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"  {name}: {size} bytes")


def ldm(folder):
    torch.manual_seed(3)
    blocks = ["CrossAttnDownBlock2D", "DownBlock2D"]
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        block_out_channels=[8, 16],
        down_block_types=blocks,
        up_block_types=[up_block(block) for block in reversed(blocks)],
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=24,
        norm_num_groups=4,
    )
    bert = LDMBertModel(bert_config())
    tokenizer = BertTokenizer(vocab=vocabulary(), model_max_length=77)
    scheduler = DDIMScheduler(set_alpha_to_one=False, steps_offset=1, **LATENT_BETAS)
    parts = prepared(vqvae=vq(4, latent_channels=4, vq_embed_dim=3), bert=bert, unet=unet)
    LDMTextToImagePipeline(tokenizer=tokenizer, scheduler=scheduler, **parts).save_pretrained(folder)
    use_vocabulary_file(folder / "tokenizer", tokenizer)


def ddpm(folder):
    torch.manual_seed(4)
    unet = UNet2DModel(
        sample_size=32,
        block_out_channels=[8, 8, 16],
        down_block_types=["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        layers_per_block=2,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=4,
    )
    DDPMPipeline(scheduler=DDPMScheduler(), **prepared(unet=unet)).save_pretrained(folder)


def ddim(folder):
    torch.manual_seed(5)
    unet = UNet2DModel(
        sample_size=(24, 32),
        in_channels=1,
        out_channels=1,
        center_input_sample=True,
        block_out_channels=[8, 16],
        down_block_types=["AttnDownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "AttnUpBlock2D"],
        layers_per_block=1,
        mid_block_scale_factor=1.4,
        downsample_type="resnet",
        upsample_type="resnet",
        act_fn="gelu",
        attention_head_dim=4,
        norm_num_groups=4,
        attn_norm_num_groups=2,
        resnet_time_scale_shift="scale_shift",
    )
    DDIMPipeline(scheduler=DDIMScheduler(), **prepared(unet=unet)).save_pretrained(folder)


def ldm_faces(folder):
    torch.manual_seed(6)
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=[8, 16],
        down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(timestep_spacing="leading", **LATENT_BETAS)
    LDMPipeline(scheduler=scheduler, **prepared(unet=unet, vqvae=vq(3, latent_channels=3))).save_pretrained(folder)
    for part in ("unet", "vqvae"):
        rename(folder / part / "diffusion_pytorch_model.safetensors", old_vae_name)


def bert_config():
    return LDMBertConfig(
        vocab_size=len(vocabulary()), encoder_layers=2, encoder_ffn_dim=32, encoder_attention_heads=2, head_dim=8, d_model=24
    )


def vq(blocks, **settings):
    return VQModel(
        block_out_channels=[4] + [8] * (blocks - 1),
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        norm_num_groups=2,
        num_vq_embeddings=64,
        scaling_factor=0.9,
        **settings,
    )


def prepared(**parts):
    """With random norms and biases, in half precision; a codebook that is as wide as the latents are, and texts that make a difference."""
    for name, part in parts.items():
        randomize(part)
        for key, parameter in part.named_parameters():
            if key.endswith(("embed_tokens.weight", "attn2.to_v.weight")):
                torch.nn.init.normal_(parameter)
        if name == "vqvae":
            torch.nn.init.normal_(part.quantize.embedding.weight)
        part.half()
    return parts


def vocabulary():
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1) if not chr(code).isupper()]
    tokens = SPECIAL + letters + [f"##{letter}" for letter in letters if letter.isalnum()] + WORDS
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def use_vocabulary_file(folder, tokenizer):
    """`vocab.txt` in the place of `tokenizer.json`, as BERT's folders have it; the other goes beside the goldens."""
    shutil.move(folder / "tokenizer.json", GOLDEN / "bert-tokenizer.json")
    words = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words), encoding="utf-8")
