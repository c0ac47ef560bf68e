"""`families.json` with the pictures that it covers, and the models of tiny_families.py that paint them.

The cases are written as in pictures.py. (Only one picture where sizes are led away from: for several, diffusers 0.42.1 gives the rows of
one the sizes of another.) What Stable Diffusion XL is told is in the request under diffusers' names; a request with a
`refiner` is painted by two pipelines, the first with `denoising_end`, the second with `denoising_start` and the same generator.
`text-families.safetensors` has what the text encoders of tiny-sdxl make of a prompt.
"""

import torch
from diffusers import (
    DiffusionPipeline,
    LatentConsistencyModelPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file

from .inpainting import lay_over, masked, read_mask
from .paths import GOLDEN, model_folder, write_json
from .picture_cases import BALL_PICTURE, HOUSE_PICTURE, case
from .pipelines import use_scheduler
from .tiny_families import make_models

PROMPT = "a red house!"
XL_SETTINGS = ("requires_aesthetics_score", "force_zeros_for_empty_prompt")
TOLD = [
    "original_size",
    "crops_coords_top_left",
    "target_size",
    "negative_original_size",
    "negative_crops_coords_top_left",
    "negative_target_size",
    "aesthetic_score",
    "negative_aesthetic_score",
]


def make():
    make_models()
    text_golden()
    found = cases()
    for one in found:
        latents, images = paint(one)
        save_file({"latents": latents.contiguous()}, GOLDEN / f"{one['name']}.safetensors")
        for index, image in enumerate(images):
            image.save(GOLDEN / f"{one['name']}-{index}.png", optimize=True)
        print(f"  {one['name']}: largest latent {latents.abs().max():.2f}", flush=True)
    write_json("families.json", {"cases": found})


def cases():
    short = {"prompt": PROMPT, "num_inference_steps": 8, "width": 64, "height": 64, "guidance_scale": 4.0}
    odd = short | {"width": 88, "height": 72, "negative_prompt": "ugly"}
    told = {"original_size": [512, 768], "crops_coords_top_left": [16, 8], "target_size": [1024, 1000]}
    away = {"negative_original_size": [64, 72], "negative_crops_coords_top_left": [3, 4], "negative_target_size": [80, 96]}
    scores = {"aesthetic_score": 7.5, "negative_aesthetic_score": 1.0}
    ball = odd | BALL_PICTURE
    edit, base = {"model": "tiny-sdxl-edit"}, {"base": "tiny-sdxl"}
    nine = {"model": "tiny-sdxl-nine"} | base
    xl, refiner = {"model": "tiny-sdxl"}, {"refiner": "tiny-sdxl-refiner"}
    return [
        case("tiny-sdxl-no-negative", **xl, scheduler="euler", **short),
        case("tiny-sdxl-empty-negative", **xl, scheduler="euler", **short | {"negative_prompt": ""}),
        case("tiny-sdxl-sizes", **xl, scheduler="dpmpp_2m", **odd | told),
        case("tiny-sdxl-away-from-sizes", **xl, scheduler="ddim", **odd | told | away),
        case("tiny-sdxl-unguided", **xl, scheduler="dpmpp_2m_karras", **odd | {"guidance_scale": 1.0}),
        case("tiny-sdxl-img2img", **xl, scheduler="euler", **ball, strength=0.5),
        case("tiny-refiner-img2img", model="tiny-sdxl-refiner", scheduler="euler", **ball | scores, strength=0.6),
        case("tiny-sdxl-refined", **xl, scheduler="euler", **odd | told | refiner, refiner_start=0.6, num_images=2),
        case("tiny-sdxl-refined-ddim", **xl, scheduler="ddim", **odd | refiner | scores, refiner_start=0.8),
        case("tiny-sdxl-refined-dpmpp-2m", **xl, scheduler="dpmpp_2m", **odd | refiner, refiner_start=0.5),
        case("tiny-sdxl-img2img-refined", **xl, scheduler="euler", **ball | refiner, refiner_start=0.7, strength=0.75),
        masked("tiny-sdxl-inpaint", "mask-disc.png", **xl, scheduler="dpmpp_2s_ancestral", **short | HOUSE_PICTURE, strength=0.6),
        masked("tiny-sdxl-inpaint-whole", "mask-odd.png", **xl, scheduler="euler", **ball, strength=1.0),
        masked("tiny-sdxl-nine-euler", "mask-disc.png", **nine, scheduler="euler", **short | HOUSE_PICTURE, strength=1.0),
        masked("tiny-sdxl-nine-ancestral", "mask-soft.png", **nine, scheduler="euler_ancestral", **ball, strength=0.6),
        masked("tiny-refiner-inpaint", "mask-soft.png", model="tiny-sdxl-refiner", scheduler="ipndm", **ball, strength=0.6),
        case("tiny-sdxl-clip-skip", **xl, scheduler="euler", **short, clip_skip=1),
        case("tiny-sdxl-edit-euler", **edit, scheduler="euler", **ball, image_guidance_scale=1.5) | base,
        case("tiny-sdxl-edit-rescaled", **edit, scheduler="dpmpp_2m", **ball, image_guidance_scale=2.0, guidance_rescale=0.7) | base,
        case("tiny-lcm-ddim", model="tiny-lcm", scheduler="ddim", **short | {"guidance_scale": 8.5}),
        case("tiny-lcm-img2img", model="tiny-lcm", scheduler="euler", **ball | {"guidance_scale": 3.0, "negative_prompt": None}, strength=0.5),
        case("tiny-bk-sdm", model="tiny-bk-sdm", scheduler="ddim", **odd),
    ]


def text_golden():
    pipe = DiffusionPipeline.from_pretrained(model_folder("tiny-sdxl"))
    tensors = {}
    with torch.no_grad():
        for name in ("", "_2"):
            tokens, encoder = getattr(pipe, f"tokenizer{name}"), getattr(pipe, f"text_encoder{name}")
            ids = tokens(PROMPT, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
            output = encoder(ids, output_hidden_states=True)
            tensors[f"ids{name}"] = ids[0]
            for skipped, hidden in enumerate(reversed(output.hidden_states)):
                tensors[f"hidden{name}.{skipped}"] = hidden[0, :8]
                tensors[f"normed{name}.{skipped}"] = final_layer_norm(encoder)(hidden)[0, :8]
        tensors["text_embeds_2"] = output.text_embeds
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, GOLDEN / "text-families.safetensors")


def final_layer_norm(encoder):
    return getattr(encoder, "text_model", encoder).final_layer_norm


def paint(one):
    """Runs the pipelines; answers the latents after the last step, and the pictures."""
    request, last = one["request"], {}

    def keep(_pipe, _step, _timestep, tensors):
        last["latents"] = tensors["latents"].clone()
        return tensors

    if "image_guidance_scale" in request:
        return edit(one)
    count = request["num_images"]
    arguments = {
        "prompt": request["prompt"],
        "negative_prompt": request.get("negative_prompt"),
        "num_inference_steps": request["num_inference_steps"],
        "guidance_scale": request["guidance_scale"],
        "num_images_per_prompt": count,
        "generator": [torch.Generator("cpu").manual_seed(request["seed"] + i) for i in range(count)],
        "callback_on_step_end": keep,
    }
    pipe = pipeline(request["model"], request["scheduler"], img2img="image_file" in one, inpainting="mask_file" in one, base=one.get("base"))
    if "clip_skip" in request:
        # diffusers counts from the layer that is XL's own, the last but one, and skips in the prompt only.
        arguments["clip_skip"] = request["clip_skip"] - 2
    own = begin(one)
    if "refiner" not in request:
        images = pipe(**arguments, **own, **told(pipe, request)).images
        if "mask_file" in one:
            images = [lay_over(image, own["image"], own["mask_image"]) for image in images]
        return last["latents"], images
    start = request["refiner_start"]
    latents = pipe(**arguments, **own, **told(pipe, request), denoising_end=start, output_type="latent").images
    refiner = pipeline(request["refiner"], request["scheduler"], img2img=True)
    images = refiner(**arguments, **told(refiner, request), image=latents, denoising_start=start).images
    return last["latents"], images


def edit(one):
    """A picture that Stable Diffusion XL changes as it is told."""
    request = one["request"]
    pipe = DiffusionPipeline.from_pretrained(model_folder(one["base"]), dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(model_folder(request["model"]) / "unet", dtype=torch.float32)
    names = ["vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"]
    parts = {name: pipe.components[name] for name in names}
    pipe = StableDiffusionXLInstructPix2PixPipeline(**parts, unet=unet, add_watermarker=False)
    use_scheduler(pipe, request["scheduler"])
    pipe.set_progress_bar_config(disable=True)
    size = (request["width"], request["height"])
    names = ["prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "image_guidance_scale", "width", "height"]
    arguments = {name: request[name] for name in names} | {
        "image": Image.open(GOLDEN / one["image_file"]).convert("RGB").resize(size, Image.Resampling.LANCZOS),
        "guidance_rescale": request.get("guidance_rescale", 0.0),
    }
    # It calls nobody back, so that it is run once for the latents and once for the picture.
    latents, images = (
        pipe(**arguments, generator=torch.Generator("cpu").manual_seed(request["seed"]), output_type=output).images
        for output in ("latent", "pil")
    )
    return latents, images


def begin(one):
    """What the pipeline of the case's task begins with."""
    request = one["request"]
    size = {"width": request["width"], "height": request["height"]}
    if "image_file" not in one:
        return size
    picture = {"image": Image.open(GOLDEN / one["image_file"]).convert("RGB"), "strength": request["strength"]}
    return picture | size | {"mask_image": read_mask(one)} if "mask_file" in one else picture


def told(pipe, request):
    """What Stable Diffusion XL is told, as far as the pipeline has it."""
    if not isinstance(pipe, (StableDiffusionXLPipeline, StableDiffusionXLImg2ImgPipeline)):
        return {}
    takes_scores = isinstance(pipe, StableDiffusionXLImg2ImgPipeline)
    named = [name for name in TOLD if name in request and (takes_scores or "aesthetic" not in name)]
    return {name: tuple(request[name]) if isinstance(request[name], list) else request[name] for name in named}


def pipeline(name, scheduler, img2img, inpainting=False, base=None):
    pipe = DiffusionPipeline.from_pretrained(model_folder(base or name), dtype=torch.float32)
    if base:
        pipe.unet = UNet2DConditionModel.from_pretrained(model_folder(name) / "unet", dtype=torch.float32)
    if isinstance(pipe, LatentConsistencyModelPipeline):
        # It takes no scheduler but its own; the general pipeline tells the UNet the guidance scale, too.
        pipe = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    if img2img:
        pipe = as_inpainting(pipe) if inpainting else as_img2img(pipe)
    use_scheduler(pipe, scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def as_img2img(pipe):
    """The same parts, and the settings of an XL pipeline, as an img2img pipeline."""
    if isinstance(pipe, StableDiffusionXLImg2ImgPipeline):
        return pipe
    if isinstance(pipe, StableDiffusionXLPipeline):
        zeros = pipe.config.force_zeros_for_empty_prompt
        return StableDiffusionXLImg2ImgPipeline(**pipe.components, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
    return StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)


def as_inpainting(pipe):
    """The same of an XL pipeline, base or refiner, as an inpainting pipeline."""
    settings = {name: pipe.config[name] for name in XL_SETTINGS if name in pipe.config}
    return StableDiffusionXLInpaintPipeline(**pipe.components, **settings, add_watermarker=False)
