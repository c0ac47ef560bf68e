"""Networks of full size with random weights, and what diffusers and transformers make of them, for `make parity`.

    python tests/golden/full_size.py FOLDER [sd15 sd21 sdxl]

writes for each model `FOLDER/NAME/{unet,vae,text_encoder,text_encoder_2}` in float16, and `FOLDER/NAME/golden.safetensors` with the inputs
and outputs of one forward of each in float32 (so both sides round the same weights): `ids`, `hidden` (and `ids_2`, `hidden_2`,
`text_embeds_2`), `latents` [1, 4, 32, 32] with `encoder_hidden_states` (and `text_embeds`, `time_ids`) and `noise_pred` at timestep 501,
and `decoded`. The ignored tests of src/diffusion/models/full_size.rs read the folder that EASEL_FULL_SIZE names. The largest takes 5 GB of
disk and 13 GB of memory; one part is in memory at a time.
"""

import gc
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from maker.tiny import randomize
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TIMESTEP = 501
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
OPEN_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu"}
OPEN_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu"}
XL_BLOCKS = ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
XL_UNET = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": XL_BLOCKS,
    "up_block_types": [block.replace("Down", "Up") for block in reversed(XL_BLOCKS)],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD21_UNET = {"sample_size": 96, "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True}
MODELS = {
    "sd15": ({"sample_size": 64, "cross_attention_dim": 768}, [("text_encoder", CLIPTextModel, CLIP_L)]),
    "sd21": (SD21_UNET, [("text_encoder", CLIPTextModel, OPEN_CLIP_H)]),
    "sdxl": (
        XL_UNET,
        [
            ("text_encoder", CLIPTextModel, CLIP_L),
            ("text_encoder_2", CLIPTextModelWithProjection, OPEN_CLIP_G | {"projection_dim": 1280}),
        ],
    ),
}


def main():
    torch.set_num_threads(2)
    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(MODELS)
    for name in names:
        make(folder / name, *MODELS[name])


@torch.no_grad()
def make(folder, unet_settings, text_encoders):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text("{}\n")  # what makes it a model's folder
    torch.manual_seed(7)
    golden = {}
    for part, model_class, settings in text_encoders:
        golden |= text(folder / part, part.removeprefix("text_encoder"), model_class(CLIPTextConfig(**settings)))
    golden |= unet(folder / "unet", UNet2DConditionModel(**unet_settings))
    golden |= vae(folder / "vae")
    save_file({key: tensor.contiguous() for key, tensor in golden.items()}, folder / "golden.safetensors")


def text(folder, suffix, model):
    rounded(model, folder)
    ids = torch.tensor([[49406, *range(320, 340), *[49407] * 56]])
    output = model(ids, output_hidden_states=True)
    golden = {f"ids{suffix}": ids[0], f"hidden{suffix}": output.hidden_states[-2]}
    return golden | ({f"text_embeds{suffix}": output.text_embeds} if suffix else {})


def unet(folder, model):
    rounded(model, folder)
    config = model.config
    golden = {"latents": torch.randn(1, 4, 32, 32), "encoder_hidden_states": torch.randn(1, 77, config.cross_attention_dim)}
    added = {}
    if config.addition_embed_type:
        added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.tensor([[1024.0, 768, 16, 8, 1024, 1000]])}
    prediction = model(golden["latents"], TIMESTEP, golden["encoder_hidden_states"], added_cond_kwargs=added).sample
    return golden | added | {"noise_pred": prediction}


def vae(folder):
    count = 4
    model = AutoencoderKL(
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        sample_size=512,
        down_block_types=["DownEncoderBlock2D"] * count,
        up_block_types=["UpDecoderBlock2D"] * count,
    )
    rounded(model, folder)
    latents = torch.randn(1, 4, 32, 32)
    return {"vae_latents": latents * model.config.scaling_factor, "decoded": model.decode(latents).sample}


def rounded(model, folder):
    """Saves the model in float16; what it computes from then on, it computes with those weights in float32."""
    randomize(model)
    model.half().save_pretrained(folder)
    model.float().eval()
    gc.collect()


if __name__ == "__main__":
    main()
