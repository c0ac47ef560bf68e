"""`cases.json`, `NAME.safetensors`, `NAME-i.png`: whole pictures, painted by diffusers' pipelines.

Each case has the `request` in the native API's field names (all that matters is written out), `model` (a folder beside this script,
or `demo`), and, where they apply, `image_file` (the init picture: its bytes belong in the request's `image`) and
`scheduler_config` (the whole `scheduler_config.json` of a copy of the model's folder: load that instead). `NAME.safetensors` has
`latents` [n, channels, height, width] as they are when the last step is done, before the VAE; `NAME-i.png` is picture i.

The request's scheduler is `X.from_config(pipe.scheduler.config)`, and picture i is painted with
`generator=[torch.Generator("cpu").manual_seed(seed + i) for i in range(n)]` and `num_images_per_prompt=n`: one call for all n.
`make` also paints every picture of a case alone, with its own generator, and fails when the two differ by more than float32's
rounding (`ALONE_TOLERANCE`, and 1 of 255 in the PNG): so the goldens hold for either reading.
"""

import numpy
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from .deep_cache import DeepCache
from .paths import GOLDEN, write_json
from .picture_cases import cases
from .pipelines import img2img, use_scheduler, with_scheduler_config

# One tenth of what Easel's own tests allow.
ALONE_TOLERANCE = 1e-4


def make():
    draw_init_pictures()
    found = cases()
    for case in found:
        latents, images = paint_together(case)
        check_alone(case, latents, images)
        save_file({"latents": latents.contiguous()}, GOLDEN / f"{case['name']}.safetensors")
        for index, image in enumerate(images):
            image.save(GOLDEN / f"{case['name']}-{index}.png", optimize=True)
        print(f"  {case['name']}: largest latent {latents.abs().max():.2f}", flush=True)
    write_json("cases.json", {"cases": found})


def paint_together(case):
    return paint(case, case["request"]["seed"], case["request"]["num_images"])


def check_alone(case, latents, images):
    request = case["request"]
    for index, together in enumerate(images):
        one, [alone] = paint(case, request["seed"] + index, 1)
        apart = float((one[0] - latents[index]).abs().max())
        pixels = int(numpy.abs(numpy.asarray(alone, int) - numpy.asarray(together, int)).max())
        if apart > ALONE_TOLERANCE or pixels > 1:
            raise ValueError(f"{case['name']}: picture {index} alone is {apart} (latents), {pixels} (pixels) away")


def paint(case, seed, count):
    """Runs the whole pipeline; answers the latents after its last step, and the pictures."""
    request = case["request"]
    pipe = with_scheduler_config(case["model"], case.get("scheduler_config"))
    use_scheduler(pipe, request["scheduler"])
    if "cache_interval" in request:
        DeepCache(pipe.unet, request["cache_interval"])
    last = {}

    interval = request.get("guidance_interval")
    guided_steps = int(interval[1] * request["num_inference_steps"]) if interval else None

    def keep(pipe, step, _timestep, tensors):
        last["latents"] = tensors["latents"].clone()
        if step + 1 == guided_steps:
            # As diffusers' own example of dynamic guidance turns it off: the conditional row goes on alone.
            pipe._guidance_scale = 0.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
        return tensors

    arguments = {
        "prompt": request["prompt"],
        "negative_prompt": request.get("negative_prompt"),
        "num_inference_steps": request["num_inference_steps"],
        "guidance_scale": request["guidance_scale"],
        "num_images_per_prompt": count,
        "generator": [torch.Generator("cpu").manual_seed(seed + i) for i in range(count)],
        "callback_on_step_end": keep,
        "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
    }
    if "eta" in request:
        arguments["eta"] = request["eta"]
    if "image_file" in case:
        init = Image.open(GOLDEN / case["image_file"]).convert("RGB")
        images = img2img(pipe)(image=init, strength=request["strength"], **arguments).images
    else:
        size = {"width": request["width"], "height": request["height"]}
        images = pipe(**size, guidance_rescale=request.get("guidance_rescale", 0.0), **arguments).images
    return last["latents"], images


def draw_init_pictures():
    """Three pictures that only depend on this code."""
    square = Image.new("RGB", (128, 128), (90, 150, 220))
    draw = ImageDraw.Draw(square)
    draw.rectangle((0, 88, 127, 127), fill=(70, 140, 60))
    draw.rectangle((40, 56, 88, 104), fill=(200, 60, 50))
    draw.polygon([(32, 56), (64, 28), (96, 56)], fill=(110, 60, 40))
    square.save(GOLDEN / "init-house.png")
    wide = Image.new("RGB", (136, 104), (240, 200, 120))
    draw = ImageDraw.Draw(wide)
    draw.ellipse((40, 20, 100, 80), fill=(60, 60, 170))
    draw.rectangle((0, 84, 135, 103), fill=(180, 140, 80))
    wide.save(GOLDEN / "init-ball.png")
    sharp = Image.new("RGB", (131, 101), (255, 255, 255))
    draw = ImageDraw.Draw(sharp)
    for row in range(0, 101, 12):
        for column in range(row // 12 % 2 * 12, 131, 24):
            draw.rectangle((column, row, column + 11, row + 11), fill=(row * 2, 0, 255 - column))
    sharp.save(GOLDEN / "init-sharp.png")
