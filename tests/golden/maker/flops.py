"""`flops.json`: the floating-point operations of the tiny models' networks, as `torch.utils.flop_counter` counts them.

For each model and each of `unet` (two rows of 16 × 24 latent cells), `vae_decode` (one picture of 8 × 12) and `text_encoder` (77 tokens):
`attention` (batched matrix products), `conv` and `linear`. On the device `meta`, where attention is made of the products that it stands for.
"""

import json

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from .paths import GOLDEN

KINDS = {"bmm": "attention", "baddbmm": "attention", "convolution": "conv", "mm": "linear", "addmm": "linear"}
MODELS = ["tiny-sd1", "tiny-sd2", "tiny-sdxl"]


def make():
    counts = {name: count_model(GOLDEN / name) for name in MODELS}
    (GOLDEN / "flops.json").write_text(json.dumps(counts, indent=1) + "\n")


def count_model(folder):
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
        context = torch.zeros(2, 77, unet.config.cross_attention_dim)
        added = None
        if unet.config.addition_embed_type:
            pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
            added = {"text_embeds": torch.zeros(2, pooled), "time_ids": torch.zeros(2, 6)}
        return {
            "unet": count(lambda: unet(torch.zeros(2, 4, 16, 24), torch.zeros(2), context, added_cond_kwargs=added)),
            "vae_decode": count(lambda: vae.decode(torch.zeros(1, 4, 8, 12))),
            "text_encoder": count(lambda: text(torch.ones(1, 77, dtype=torch.int64))),
        }


@torch.no_grad()
def count(forward):
    with FlopCounterMode(display=False) as counter:
        forward()
    flops = dict.fromkeys(("attention", "conv", "linear"), 0)
    for op, number in counter.get_flop_counts()["Global"].items():
        flops[KINDS[op.__name__.split(".")[0]]] += number
    return flops
