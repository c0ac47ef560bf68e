"""Fits the factors that turn a model's latents into a small RGB picture, which Easel's step previews show.

    python3 -m venv .venv && .venv/bin/pip install -r tests/golden/requirements.txt
    .venv/bin/python models/fit_latent_rgb.py models/demo

The model paints the prompts itself. Then least squares find, for each colour, the factors and the bias with which a latent pixel
(in the UNet's scaled space) comes nearest to the mean of the block of pixels that the VAE decodes it to. They go into
`latent_rgb.json` beside `model_index.json`:

    {"factors": [[r, g, b], … one row a latent channel …], "bias": [r, g, b]}

colour = Σ latent[channel] × factors[channel] + bias, from -1 (dark) to 1. Printed is R², the share of the variance that this
explains on pictures that the fit has not seen.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

PROMPTS = [
    "a red house in a meadow",
    "a purple cat in the snow",
    "an orange boat at sunset",
    "a yellow star on a blue background",
    "a green tree on the grass",
    "a white rocket at night, under the stars",
    "a pink heart on a black background",
    "a teal robot in the desert",
    "a brown mushroom on a white background",
    "two blue fish on the sea",
    "a black cactus on the sand at dusk",
    "a gray moon in the sky with clouds",
]


def main():
    options = parse_options()
    pipe = StableDiffusionPipeline.from_pretrained(options.folder, dtype=torch.float32, safety_checker=None)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    prompts = options.prompt or PROMPTS
    fitted = [paint(pipe, prompt, seed, options) for seed, prompt in enumerate(prompts)]
    unseen = [paint(pipe, prompt, 1000 + seed, options) for seed, prompt in enumerate(prompts)]
    solution = fit(*gather(fitted))
    print("R² for red, green, blue:", ", ".join(f"{share:.3f}" for share in r_squared(solution, *gather(unseen))))
    rows = [[round(number, 5) for number in row] for row in solution.tolist()]
    target = options.folder / "latent_rgb.json"
    target.write_text(json.dumps({"factors": rows[:-1], "bias": rows[-1]}) + "\n")
    print(f"wrote {target}")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a model folder in diffusers layout")
    parser.add_argument("--prompt", action="append", help="a prompt to paint; may be repeated (default: twelve of the demo model's)")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (default 20)")
    parser.add_argument("--guidance-scale", type=float, default=5.0, help="guidance scale (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    options = parser.parse_args()
    if not (options.folder / "model_index.json").is_file():
        parser.error(f"{options.folder} has no model_index.json: not a model folder in diffusers layout")
    torch.set_num_threads(options.threads)
    return options


@torch.no_grad()
def paint(pipe, prompt, seed, options):
    """The latents of a picture [pixels, channels] and the mean colours that they decode to [pixels, 3], from -1 to 1."""
    latents = pipe(
        prompt,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(seed),
        output_type="latent",
    ).images
    decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample.clamp(-1, 1)
    colours = torch.nn.functional.avg_pool2d(decoded, pipe.vae_scale_factor)
    return pixels(latents), pixels(colours)


def pixels(tensor):
    return tensor[0].flatten(1).T.double()


def gather(pictures):
    latents, colours = (torch.cat(parts) for parts in zip(*pictures, strict=True))
    return torch.cat([latents, torch.ones(len(latents), 1, dtype=torch.float64)], dim=1), colours


def fit(latents, colours):
    """[channels + 1, 3]: the factors, and in the last row the bias."""
    return torch.linalg.lstsq(latents, colours).solution


def r_squared(solution, latents, colours):
    residual = ((latents @ solution - colours) ** 2).sum(0)
    return (1 - residual / ((colours - colours.mean(0)) ** 2).sum(0)).tolist()


if __name__ == "__main__":
    main()
