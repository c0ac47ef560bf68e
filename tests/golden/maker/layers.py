"""`text.safetensors`, `unet.safetensors`, `vae.safetensors`: what the demo model's parts make, each by itself, in float32.

- text: for prompt i, `ids.i` [77] and the first eight tokens of `last_hidden_state.i` [8, 128].
- unet: `latents.16x16`, `latents.13x17` (height × width; the second is off the UNet's grid and needs `upsample_size`),
  `encoder_hidden_states` [1, 77, 128], and for each timestep `noise_pred.16x16.999`, `….501.5`, `….0`.
- vae: `image` [1, 3, 72, 88] with its `moments` [1, 8, 9, 11] (mean, then log-variance as the encoder gives it, not clamped);
  `latents` [1, 4, 9, 11] as they go into the decoder (already divided by the scaling factor) with `decoded` [1, 3, 72, 88];
  `tiled.moments` and `tiled.decoded`, the same in tiles of 32 pixels (`enable_tiling`), of which the last ones are 1 or 2 cells wide.
"""

import torch
from safetensors.torch import save_file

from .paths import DEMO, GOLDEN
from .pipelines import text2img

PROMPTS = ["a purple cat in the snow", "a big pink heart in a meadow, caf\u00e9"]
TIMESTEPS = [999, 501.5, 0]


@torch.no_grad()
def make():
    pipe = text2img(DEMO)
    text, embeddings = text_tensors(pipe)
    write("text", text)
    write("unet", unet_tensors(pipe.unet, embeddings))
    write("vae", vae_tensors(pipe.vae))


def text_tensors(pipe):
    tensors, embeddings = {}, []
    for index, prompt in enumerate(PROMPTS):
        ids = pipe.tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        hidden = pipe.text_encoder(ids).last_hidden_state
        tensors[f"ids.{index}"] = ids[0]
        tensors[f"last_hidden_state.{index}"] = hidden[0, :8]
        embeddings.append(hidden)
    return tensors, embeddings[0]


def unet_tensors(unet, embeddings):
    tensors = {"encoder_hidden_states": embeddings}
    for height, width in ((16, 16), (13, 17)):
        size = f"{height}x{width}"
        latents = random(1, 4, height, width)
        tensors[f"latents.{size}"] = latents
        for timestep in TIMESTEPS:
            tensors[f"noise_pred.{size}.{timestep}"] = unet(latents, timestep, embeddings).sample
    return tensors


def vae_tensors(vae):
    image = random(1, 3, 72, 88).tanh()
    latents = random(1, 4, 9, 11) / vae.config.scaling_factor
    tensors = {"image": image, "latents": latents} | vae_outputs(vae, image, latents, "")
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 4
    return tensors | vae_outputs(vae, image, latents, "tiled.")


def vae_outputs(vae, image, latents, prefix):
    return {f"{prefix}moments": vae.encode(image).latent_dist.parameters, f"{prefix}decoded": vae.decode(latents).sample}


def random(*shape):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(1))


def write(name, tensors):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, GOLDEN / f"{name}.safetensors")
