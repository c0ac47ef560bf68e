"""The pictures that `cases.json` covers."""

import json

from .paths import DEMO

CAT = "a purple cat in the snow"
HEART = "a big pink heart in a meadow"
BOAT = "an orange boat at sunset"
LONG = "a teal robot to the left of a black cactus in the desert and " * 8
HOUSE_PICTURE = {"image_file": "init-house.png", "width": 128, "height": 128}
# 131 × 101 pixels, which the pipelines resize.
SHARP_PICTURE = {"image_file": "init-sharp.png", "width": 128, "height": 96}
BALL_PICTURE = {"image_file": "init-ball.png", "width": 136, "height": 104}


def cases():
    return text2img_cases() + img2img_cases() + config_cases() + tiny_cases() + scheduler_cases() + deep_cache_cases()


def text2img_cases():
    return [
        case("ddim", prompt=CAT),
        case("euler", prompt=BOAT, scheduler="euler", guidance_scale=7.5, negative_prompt="a red house", width=104, height=136),
        case("dpmpp-2m", prompt=HEART, scheduler="dpmpp_2m", negative_prompt="", guidance_scale=7.5, width=136, height=104, num_images=3),
        case("euler-karras", prompt=CAT, scheduler="euler_karras", seed=2**32 + 7),
        case("dpmpp-2m-karras", prompt=BOAT, scheduler="dpmpp_2m_karras", seed=2**53 - 1),
        case("guidance-1", prompt=HEART, scheduler="euler", guidance_scale=1.0, negative_prompt="a red house", num_inference_steps=8),
        case("guidance-rescale", prompt=CAT, guidance_scale=12.0, guidance_rescale=0.7, num_inference_steps=8),
        case("guidance-interval", prompt=BOAT, guidance_interval=[0.0, 0.4], num_inference_steps=8),
        case("four-steps-320x256", prompt=CAT, scheduler="dpmpp_2m", num_inference_steps=4, width=320, height=256),
        case("one-step-ddim", prompt=CAT, num_inference_steps=1),
        case("one-step-euler", prompt=CAT, scheduler="euler", num_inference_steps=1),
        case("one-step-dpmpp-2m", prompt=CAT, scheduler="dpmpp_2m", num_inference_steps=1),
        case("long-prompt", prompt=LONG, negative_prompt=LONG + "at night", num_inference_steps=6),
        case("empty-prompt-104x136", prompt="", num_inference_steps=6, width=104, height=136),
    ]


def img2img_cases():
    return [
        case("img2img-ddim", prompt=CAT, **HOUSE_PICTURE, strength=0.8),
        case("img2img-euler", prompt=BOAT, scheduler="euler", **BALL_PICTURE, strength=0.3, num_images=3, guidance_scale=7.5),
        case("img2img-dpmpp-2m", prompt=HEART, scheduler="dpmpp_2m", **HOUSE_PICTURE, strength=1.0, negative_prompt="a blue sky"),
        case("img2img-dpmpp-2m-karras", prompt=CAT, scheduler="dpmpp_2m_karras", **BALL_PICTURE, strength=0.55),
        case("img2img-resized", prompt=HEART, **SHARP_PICTURE, strength=0.4),
        case("img2img-guidance-1", prompt=CAT, scheduler="euler", **HOUSE_PICTURE, strength=0.5, guidance_scale=1.0),
    ]


def config_cases():
    """A scheduler config without `timestep_spacing`, where each class takes its own; and one that the pipelines put right."""
    own = json.loads((DEMO / "scheduler" / "scheduler_config.json").read_text())
    bare = {key: value for key, value in own.items() if key != "timestep_spacing"}
    outdated = own | {"steps_offset": 0, "clip_sample": True}
    other = own | {"beta_schedule": "linear", "timestep_spacing": "trailing", "beta_start": 0.001}
    short = {"prompt": BOAT, "num_inference_steps": 6}
    return [
        case("no-spacing-ddim", scheduler_config=bare, **short),
        case("no-spacing-euler", scheduler_config=bare, scheduler="euler", **short),
        case("no-spacing-dpmpp-2m", scheduler_config=bare, scheduler="dpmpp_2m", **short),
        case("no-spacing-img2img-euler", scheduler_config=bare, scheduler="euler", **HOUSE_PICTURE, strength=0.7, **short),
        case("outdated-config-ddim", scheduler_config=outdated, **short),
        case("linear-trailing-euler", scheduler_config=other, scheduler="euler", **short),
    ]


def tiny_cases():
    """The small models with random weights (see tiny.py). The config of tiny-sd1 says nothing of clip_sample, which DDIM then does."""
    short = {"prompt": "a red house!", "num_inference_steps": 8, "width": 64, "height": 64, "guidance_scale": 3.0}
    odd = short | {"width": 88, "height": 72, "negative_prompt": "ugly"}
    pndm = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return [
        case("tiny-sd1-ddim", model="tiny-sd1", **short),
        case("tiny-sd1-ddim-unclipped", model="tiny-sd1", scheduler_config=pndm | {"clip_sample": False}, **odd),
        case("tiny-sd1-euler", model="tiny-sd1", scheduler="euler", **odd),
        case("tiny-sd1-img2img", model="tiny-sd1", scheduler="dpmpp_2m", **odd | BALL_PICTURE, strength=0.5),
        case("tiny-sd2-ddim", model="tiny-sd2", **short),
        case("tiny-sd2-euler", model="tiny-sd2", scheduler="euler", **odd),
        case("tiny-sd2-img2img", model="tiny-sd2", scheduler="dpmpp_2m", **odd | BALL_PICTURE, strength=0.5, num_images=2),
    ]


def scheduler_cases():
    """A picture of each kind of scheduler that the others do not have: noise in the steps, two UNet calls a step, long memories."""
    few = {"prompt": CAT, "num_inference_steps": 6}
    return [
        case("ddim-eta", eta=0.5, **few),
        case("ddpm", scheduler="ddpm", **few),
        case("pndm", scheduler="pndm", **few),
        case("euler-ancestral", scheduler="euler_ancestral", num_images=2, **few),
        case("heun", scheduler="heun", **few),
        case("dpm2-ancestral-karras", scheduler="dpm2_ancestral_karras", **few),
        case("dpmpp-3m-sde-beta", scheduler="dpmpp_3m_sde_beta", **few),
        case("dpmpp-sde", scheduler="dpmpp_sde", **few),
        case("unipc-exponential", scheduler="unipc_exponential", **few),
        case("lcm", scheduler="lcm", **few | {"guidance_scale": 1.0}),
        case("img2img-heun", scheduler="heun", **HOUSE_PICTURE, strength=0.5, **few),
        case("img2img-tcd", scheduler="tcd", eta=0.6, **HOUSE_PICTURE, strength=0.7, **few),
        case("img2img-lms", scheduler="lms", **HOUSE_PICTURE, strength=0.9, **few),
    ]


def deep_cache_cases():
    """A UNet whose last layer attends and one whose does not; two calls a step; guidance that ends under way; steps that are skipped."""
    few = {"prompt": CAT, "num_inference_steps": 8}
    tiny = few | {"width": 64, "height": 64, "guidance_scale": 3.0}
    return [
        case("deep-cache", cache_interval=3, num_images=2, **few),
        case("deep-cache-heun", cache_interval=2, scheduler="heun", width=104, height=136, **few),
        case("deep-cache-guidance-interval", cache_interval=5, guidance_interval=[0.0, 0.4], **few),
        case("deep-cache-img2img", cache_interval=2, scheduler="dpmpp_2m", **HOUSE_PICTURE, strength=0.7, **few),
        case("tiny-sd1-deep-cache", model="tiny-sd1", scheduler="euler", cache_interval=2, **tiny),
        case("tiny-sd2-deep-cache", model="tiny-sd2", cache_interval=4, scheduler="euler", **tiny),
    ]


def case(name, model="demo", image_file=None, scheduler_config=None, **fields):
    request = {
        "model": model,
        "scheduler": "ddim",
        "width": 128,
        "height": 128,
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
        "seed": 7,
        "num_images": 1,
    } | fields
    extra = {"image_file": image_file, "scheduler_config": scheduler_config}
    return {"name": name, "model": model, "request": request} | {key: value for key, value in extra.items() if value is not None}
