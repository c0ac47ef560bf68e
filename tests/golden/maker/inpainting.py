"""`inpainting.json`, `inpaint-*`, `edit-*`: pictures that diffusers' inpainting and instruct-pix2pix pipelines paint, and `blur.json`.

Cases as in `cases.json` (see pictures.py), with `mask_file` (its bytes belong in the request's `mask_image`) and `base`: the folder that
the case's model is laid over. Every picture is painted alone, with its own generator: `StableDiffusionInpaintPipeline` draws the latents
of all pictures of one call from the first one's.

The latents are diffusers'. The pictures are diffusers' decoded ones laid over the original by the mask, as Easel does and says
(`lay_over`). An inpainting model without a mask is given a white one; without a picture, a grey one, too.

`blur.json` has small pictures and what PIL's GaussianBlur makes of them.
"""

import numpy
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from .paths import GOLDEN, model_folder, write_json
from .picture_cases import case
from .pipelines import text2img, use_scheduler

CAT = "a purple cat in the snow"
HOUSE = {"image_file": "init-house.png", "width": 128, "height": 128}
BALL = {"image_file": "init-ball.png", "width": 136, "height": 104}
SHARP = {"image_file": "init-sharp.png", "width": 128, "height": 96}
TINY = {"prompt": "a red house!", "num_inference_steps": 8, "guidance_scale": 3.0}
NINE = TINY | {"model": "tiny-inpaint", "base": "tiny-sd2"}
EIGHT = TINY | {"model": "tiny-edit", "base": "tiny-sd2"}


def cases():
    return masks_on_ordinary_models() + schedulers() + inpainting_models() + editing_models()


def masks_on_ordinary_models():
    return [
        masked("inpaint-ddim", "mask-disc.png", prompt=CAT, **HOUSE, num_inference_steps=12, strength=1.0),
        masked("inpaint-euler", "mask-odd.png", prompt=CAT, scheduler="euler", **HOUSE, num_inference_steps=12, strength=0.6),
        masked("inpaint-blurred", "mask-disc.png", prompt=CAT, scheduler="dpmpp_2m_karras", **HOUSE, num_inference_steps=10, strength=1.0, mask_blur=9),
        masked("inpaint-guidance-1", "mask-soft.png", prompt=CAT, scheduler="euler", **BALL, num_inference_steps=10, strength=0.6, guidance_scale=1.0),
        masked("inpaint-resized", "mask-odd.png", prompt=CAT, scheduler="dpmpp_2m", **SHARP, num_inference_steps=10, strength=1.0),
        masked("inpaint-tiny-sd1", "mask-odd.png", model="tiny-sd1", scheduler="euler", **TINY | BALL, strength=0.6),
    ]


def schedulers():
    """The way back after each call of the UNet: with two calls a step, with calls that are repeated, with noise of the step's own."""
    names = ["heun", "dpm2", "dpm2_ancestral", "lms", "unipc", "deis", "dpmpp_2m_sde", "ddpm", "lcm", "tcd"]
    short = {"prompt": CAT, "num_inference_steps": 6, "strength": 0.7} | HOUSE
    # The pipelines hand TCD their own eta, which is 0 by default.
    eta = {"tcd": {"eta": 0.0}}
    ordinary = [masked(f"inpaint-by-{name.replace('_', '-')}", "mask-disc.png", scheduler=name, **short, **eta.get(name, {})) for name in names]
    ancestral = {"scheduler": "euler_ancestral", "num_inference_steps": 6}
    return ordinary + [
        # Begun in the middle, diffusers' Runge-Kutta steps would go by noise levels that have been left out.
        masked("inpaint-by-pndm", "mask-disc.png", scheduler="pndm", **short | {"strength": 1.0}),
        masked("inpaint-by-euler-ancestral", "mask-odd.png", **short | ancestral | {"strength": 1.0}),
        masked("inpaint-9-euler-ancestral", "mask-disc.png", **NINE | HOUSE | ancestral, strength=0.6),
        masked("edit-euler-ancestral", None, **EIGHT | BALL | ancestral, image_guidance_scale=1.5),
    ]


def inpainting_models():
    return [
        masked("inpaint-9-ddim", "mask-disc.png", **NINE | HOUSE, strength=1.0),
        masked("inpaint-9-euler", "mask-odd.png", scheduler="euler", **NINE | BALL, strength=0.6, num_images=2, negative_prompt="ugly"),
        masked("inpaint-9-blurred", "mask-disc.png", scheduler="dpmpp_2m", **NINE | HOUSE, strength=0.6, mask_blur=5),
        masked("inpaint-9-no-mask", None, scheduler="euler", **NINE | HOUSE, strength=0.5),
        masked("inpaint-9-no-picture", None, **NINE, width=88, height=72),
    ]


def editing_models():
    return [
        masked("edit-ddim", None, **EIGHT | HOUSE, image_guidance_scale=1.5),
        masked("edit-euler", None, scheduler="euler", **EIGHT | BALL, image_guidance_scale=2.5, num_images=2, negative_prompt="ugly"),
        masked("edit-dpmpp-2m-karras", None, scheduler="dpmpp_2m_karras", **EIGHT | BALL, image_guidance_scale=1.0),
        masked("edit-guidance-1", None, **EIGHT | BALL | {"guidance_scale": 1.0}, image_guidance_scale=1.5),
    ]


def masked(name, mask_file, base=None, **fields):
    extra = {key: value for key, value in {"mask_file": mask_file, "base": base}.items() if value is not None}
    return case(name, **fields) | extra


def make():
    draw_masks()
    found = cases()
    for one in found:
        request = one["request"]
        painted = [paint(one, request["seed"] + index) for index in range(request["num_images"])]
        latents = torch.cat([latents for latents, _ in painted])
        save_file({"latents": latents.contiguous()}, GOLDEN / f"{one['name']}.safetensors")
        for index, (_, picture) in enumerate(painted):
            picture.save(GOLDEN / f"{one['name']}-{index}.png", optimize=True)
        print(f"  {one['name']}: largest latent {latents.abs().max():.2f}", flush=True)
    write_json("inpainting.json", {"cases": found})
    write_json("blur.json", {"pictures": blurred_pictures()})


def paint(one, seed):
    """The latents after the last step, and the picture."""
    request, last = one["request"], {}

    def keep(_pipe, _step, _timestep, tensors):
        last["latents"] = tensors["latents"].clone()
        return tensors

    arguments = {
        "prompt": request["prompt"],
        "negative_prompt": request.get("negative_prompt"),
        "num_inference_steps": request["num_inference_steps"],
        "guidance_scale": request["guidance_scale"],
        "generator": torch.Generator("cpu").manual_seed(seed),
        "callback_on_step_end": keep,
    }
    pipe = pipeline(one)
    size = (request["width"], request["height"])
    image = Image.open(GOLDEN / one["image_file"]).convert("RGB") if "image_file" in one else Image.new("RGB", size, (128, 128, 128))
    if "image_guidance_scale" in request:
        fitted = image.resize(size, Image.Resampling.LANCZOS)
        painted = pipe(image=fitted, image_guidance_scale=request["image_guidance_scale"], **arguments).images[0]
        return last["latents"], painted
    mask = read_mask(one)
    sized = {"width": size[0], "height": size[1], "strength": request.get("strength", 1.0)}
    painted = pipe(image=image, mask_image=mask, **sized, **arguments).images[0]
    return last["latents"], lay_over(painted, image, mask) if "mask_file" in one else painted


def pipeline(one):
    pipe = text2img(model_folder(one.get("base", one["model"])))
    if "base" in one:
        pipe.unet = UNet2DConditionModel.from_pretrained(model_folder(one["model"]) / "unet")
    kind = StableDiffusionInstructPix2PixPipeline if pipe.unet.config.in_channels == 8 else StableDiffusionInpaintPipeline
    found = kind(**pipe.components, requires_safety_checker=False)
    found.set_progress_bar_config(disable=True)
    use_scheduler(found, one["request"]["scheduler"])
    return found


def read_mask(one):
    """The mask, in the picture's size when it is blurred: `mask_blur` is in the picture's pixels."""
    request = one["request"]
    size = (request["width"], request["height"])
    if "mask_file" not in one:
        return Image.new("L", size, 255)
    mask = Image.open(GOLDEN / one["mask_file"]).convert("L")
    if not request.get("mask_blur"):
        return mask
    return VaeImageProcessor.blur(mask.resize(size, Image.Resampling.LANCZOS), request["mask_blur"])


def lay_over(painted, image, mask):
    """What the mask does not cover is the original's, and what it half covers is half of each."""
    sized = [numpy.asarray(part.resize(painted.size, Image.Resampling.LANCZOS)).astype(int) for part in (image, mask)]
    original, share = sized[0], sized[1][..., None]
    mixed = (numpy.asarray(painted).astype(int) * share + original * (255 - share) + 127) // 255
    return Image.fromarray(mixed.astype(numpy.uint8))


def draw_masks():
    """A disc; a mask of another size and shape than any picture; and one whose edges are soft."""
    disc = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(disc).ellipse((30, 42, 101, 113), fill=255)
    disc.save(GOLDEN / "mask-disc.png")
    odd = Image.new("RGB", (75, 53), (0, 0, 0))
    draw = ImageDraw.Draw(odd)
    draw.rectangle((5, 7, 33, 40), fill=(255, 255, 255))
    draw.polygon([(40, 50), (70, 50), (55, 9)], fill=(255, 240, 250))
    odd.save(GOLDEN / "mask-odd.png")
    soft = Image.linear_gradient("L").resize((136, 104), Image.Resampling.BILINEAR)
    soft.save(GOLDEN / "mask-soft.png")


def blurred_pictures():
    """Pictures, some smaller than the blur is wide, and their blurs."""
    generator = numpy.random.default_rng(5)
    edge = numpy.zeros((1, 37), dtype=numpy.uint8)
    edge[0, 20:] = 255
    pictures = [edge] + [generator.integers(0, 256, size, dtype=numpy.uint8) for size in ((1, 64), (1, 3), (1, 1), (9, 12), (17, 5))]
    return [blurred(picture, radius) for picture in pictures for radius in (1, 2, 3, 7, 20, 64)]


def blurred(picture, radius):
    blur = numpy.asarray(VaeImageProcessor.blur(Image.fromarray(picture), radius))
    height, width = picture.shape
    return {"width": width, "height": height, "radius": radius, "pixels": picture.ravel().tolist(), "blurred": blur.ravel().tolist()}
