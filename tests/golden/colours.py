"""Do the colours that a prompt asks for come as often as with diffusers? For people; no test.

    python tests/golden/colours.py http://127.0.0.1:8080

Paints twelve prompts with three seeds each through a running server (the demo model, its default settings) and with diffusers, and counts the
pictures in which the colour that the prompt names is there. Needs the packages of requirements.txt.
"""

import io
import json
import sys
import urllib.request
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

DEMO = Path(__file__).parents[2] / "models" / "demo"
SEEDS = (1, 2, 3)
STEPS, GUIDANCE = 25, 5.0
PALETTE = {
    "red": (215, 45, 45), "orange": (240, 140, 40), "yellow": (245, 215, 60), "green": (60, 160, 70), "blue": (50, 90, 210),
    "purple": (130, 60, 180), "pink": (240, 130, 180), "brown": (120, 75, 45), "black": (25, 25, 30), "white": (245, 245, 245),
    "gray": (130, 130, 135), "teal": (30, 150, 150),
}
PROMPTS = [
    "a red house in a meadow", "an orange boat at sunset", "a yellow star at night", "a green cactus in the desert", "a blue fish on the sea",
    "a purple cat in the snow", "a big pink heart on a white background", "a brown mushroom on the grass", "a black robot in the snow",
    "a white moon under the stars", "a gray car in the desert", "a teal umbrella on a yellow background",
]
# The share of pixels nearest to the colour that makes it "there".
THERE = 0.02


def ours(server: str, prompt: str, seed: int) -> Image.Image:
    body = json.dumps({"prompt": prompt, "seed": seed, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE}).encode()
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    with urllib.request.urlopen(urllib.request.Request(f"{server}/v1/generate", body, headers)) as answer:
        job = json.load(answer)
    with urllib.request.urlopen(server + job["images"][0]["url"]) as picture:
        return Image.open(io.BytesIO(picture.read())).convert("RGB")


def is_there(picture: Image.Image, colour: str) -> bool:
    pixels = np.asarray(picture, dtype=float).reshape(-1, 1, 3)
    nearest = np.linalg.norm(pixels - np.array(list(PALETTE.values())), axis=2).argmin(axis=1)
    return (nearest == list(PALETTE).index(colour)).mean() >= THERE


def main() -> None:
    server = sys.argv[1].rstrip("/")
    pipe = StableDiffusionPipeline.from_pretrained(DEMO, torch_dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    found, worst = {"easel": 0, "diffusers": 0}, 0
    for prompt in PROMPTS:
        colour = next(word for word in prompt.split() if word in PALETTE)
        for seed in SEEDS:
            generator = torch.Generator("cpu").manual_seed(seed)
            theirs = pipe(prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator).images[0]
            picture = ours(server, prompt, seed)
            found["easel"] += is_there(picture, colour)
            found["diffusers"] += is_there(theirs, colour)
            worst = max(worst, np.abs(np.asarray(picture, dtype=int) - np.asarray(theirs, dtype=int)).max())
    print(f"easel {found['easel']}, diffusers {found['diffusers']} of {len(PROMPTS) * len(SEEDS)} pictures show their colour; no byte differs by more than {worst}")


if __name__ == "__main__":
    main()
