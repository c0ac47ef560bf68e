"""Latent diffusion and models without text, painted as Stable Diffusion's pipelines paint.

diffusers' pipelines of these models (LDMTextToImagePipeline, LDMPipeline, DDPMPipeline, DDIMPipeline) know neither pictures nor masks, and
most schedulers go wrong in them: `scale_model_input` or `init_noise_sigma` is left out. So the parts are theirs and the loop is that of
StableDiffusionPipeline, StableDiffusionImg2ImgPipeline and StableDiffusionInpaintPipeline.
"""

import inspect
import math

import numpy
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from .paths import GOLDEN


def paint(pipe, case, generator):
    """The sample behind the last step."""
    request, scheduler = case["request"], pipe.scheduler
    steps = request["num_inference_steps"]
    scheduler.set_timesteps(steps)
    begin = (steps - math.floor(request.get("strength", 1.0) * steps)) * scheduler.order
    timesteps = scheduler.timesteps[begin:]
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    clean = picture(pipe, case) if "image_file" in case else None
    noise = torch.randn(shape(pipe, request), generator=generator)
    sample = noise * scheduler.init_noise_sigma if clean is None else scheduler.add_noise(clean, noise, timesteps[:1])
    mask = read_mask(case, sample) if "mask_file" in case else None
    for call, timestep in enumerate(timesteps):
        model_output = predict(pipe, request, scheduler.scale_model_input(sample, timestep), timestep)
        sample = scheduler.step(model_output, timestep, sample, return_dict=False, **extra(scheduler, request, generator))[0]
        if mask is not None:
            later = timesteps[call + 1 : call + 2]
            sample = mask * sample + (1 - mask) * (scheduler.add_noise(clean, noise, later) if len(later) else clean)
    return sample


def extra(scheduler, request, generator):
    """What the scheduler's `step` takes of it, as the pipelines' `prepare_extra_step_kwargs` has it."""
    known = inspect.signature(scheduler.step).parameters
    return {key: value for key, value in {"eta": request.get("eta", 0.0), "generator": generator}.items() if key in known}


def shape(pipe, request):
    vqvae = getattr(pipe, "vqvae", None)
    factor = 2 ** (len(vqvae.config.block_out_channels) - 1) if vqvae else 1
    return 1, pipe.unet.config.in_channels, request["height"] // factor, request["width"] // factor


def read_mask(case, sample):
    """1 where the picture is painted anew, in the sample's size."""
    size = (case["request"]["height"], case["request"]["width"])
    processor = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    mask = processor.preprocess(Image.open(GOLDEN / case["mask_file"]).convert("L"), *size)
    return torch.nn.functional.interpolate(mask, size=sample.shape[2:])


def decoded(pipe, sample):
    pixels = pipe.vqvae.decode(sample / pipe.vqvae.config.scaling_factor).sample if hasattr(pipe, "vqvae") else sample
    return pipe.numpy_to_pil((pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())[0]


def picture(pipe, case):
    size = (case["request"]["width"], case["request"]["height"])
    image = Image.open(GOLDEN / case["image_file"]).convert("RGB").resize(size, Image.LANCZOS)
    if pipe.unet.config.in_channels == 1:
        image = image.convert("L")
    pixels = numpy.atleast_3d(numpy.asarray(image)).astype(numpy.float32) / 255.0
    pixels = torch.from_numpy(pixels).permute(2, 0, 1)[None] * 2.0 - 1.0
    return pipe.vqvae.encode(pixels).latents * pipe.vqvae.config.scaling_factor if hasattr(pipe, "vqvae") else pixels


def predict(pipe, request, sample, timestep):
    if "prompt" not in request:
        return pipe.unet(sample, timestep).sample
    texts = ["", request["prompt"]]
    ids = pipe.tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    without, with_text = pipe.unet(torch.cat([sample] * 2), timestep, encoder_hidden_states=pipe.bert(ids)[0]).sample.chunk(2)
    return without + request["guidance_scale"] * (with_text - without)
