"""`latent-networks.safetensors`, `bert-tokens.json`, `latent-cases.json` and its pictures: what `tiny_latent.py`'s models make in diffusers.

- networks: `ids` with `bert.last_hidden_state`; of each model without text `MODEL.sample` and `MODEL.output.T` for timesteps T, and of a
  model that is never served whole, whose time embedding is of Fourier's kind, `fourier.sample`, `fourier.output.T` and, as `fourier/KEY`,
  its weights; `vq.image` with `vq.latents`, which go into `vq.decoded`, both without the scaling factor.
- tokens: as `tokens.json`, by the `BertTokenizer` of tiny-ldm.
- cases: as `cases.json`. A case without `prompt` is one of a model without text. `latents` are the samples behind the last step.

Pictures and masks have no pipeline for these models: see latent_loop.py.
"""

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, LDMTextToImagePipeline, UNet2DModel
from diffusers.pipelines.deprecated import LDMPipeline
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from transformers import BertTokenizer

from . import latent_loop
from .inpainting import lay_over
from .paths import GOLDEN, write_json
from .pipelines import use_scheduler
from .tiny import randomize

PROMPTS = [
    "",
    "a red house",
    "A RED House, unbelieving CATS!",
    "  many   spaces\tand\nlines\u2028  ",
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m cafe\u0301",
    "\u7ea2\u8272\u7684\u623f\u5b50 a\u623fb",
    "[CLS] a [SEP] [MASK] house [PAD] [UNK]",
    "it's a cat; a-b_c (x) 3.14 $5",
    "x" * 101 + " a " + "x" * 100,
    "\x00\x07control\x1b[0m \x7f\u200b\ufffd",
    " ".join(["house"] * 75),
    " ".join(["house"] * 76),
    "unbelieving " * 20 + "the end",
]
TEXTLESS = {"tiny-ddpm": (3, 32, 24), "tiny-ddim": (1, 24, 32), "tiny-ldm-faces": (3, 16, 16)}
LDM = {"prompt": "a red house in the sky", "width": 64, "height": 64, "guidance_scale": 5.0}


@torch.no_grad()
def make():
    write_json("bert-tokens.json", {"cases": tokens()})
    tensors = bert() | vq()
    for name, shape in TEXTLESS.items():
        unet = UNet2DModel.from_pretrained(GOLDEN / name / "unet")
        tensors |= outputs(name, unet.float(), shape, [999, 501.5, 0])
    tensors |= fourier()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, GOLDEN / "latent-networks.safetensors")
    write_json("latent-cases.json", {"cases": [paint_case(case) for case in cases()]})


def tokens():
    tokenizer = BertTokenizer.from_pretrained(GOLDEN / "tiny-ldm" / "tokenizer")
    return [token_case(tokenizer, prompt) for prompt in PROMPTS]


def token_case(tokenizer, prompt):
    ids = tokenizer(prompt, padding="max_length", max_length=77, truncation=True).input_ids
    whole = tokenizer(prompt).input_ids
    removed = tokenizer.decode(whole[76:-1]) if len(whole) > 77 else None
    return {"prompt": prompt, "ids": ids, "removed": removed}


def bert():
    model = LDMBertModel.from_pretrained(GOLDEN / "tiny-ldm" / "bert").float()
    tokenizer = BertTokenizer.from_pretrained(GOLDEN / "tiny-ldm" / "tokenizer")
    ids = tokenizer("a red house", padding="max_length", max_length=77, return_tensors="pt").input_ids
    return {"ids": ids[0], "bert.last_hidden_state": model(ids)[0]}


def vq():
    model = LDMTextToImagePipeline.from_pretrained(GOLDEN / "tiny-ldm").vqvae.float()
    image = noise(1, 3, 40, 56).tanh()
    latents = model.encode(image).latents
    return {"vq.image": image, "vq.latents": latents, "vq.decoded": model.decode(latents).sample}


def outputs(name, unet, shape, timesteps):
    sample = noise(1, *shape)
    rows = {f"{name}.output.{t}": unet(sample, torch.tensor([t])).sample for t in timesteps}
    return {f"{name}.sample": sample} | rows


def fourier():
    torch.manual_seed(7)
    unet = UNet2DModel(
        block_out_channels=[4, 8],
        down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
        layers_per_block=1,
        time_embedding_type="fourier",
        attention_head_dim=4,
        norm_num_groups=2,
        add_attention=False,
    )
    randomize(unet)
    weights = {f"fourier/{key}": tensor for key, tensor in unet.state_dict().items()}
    return weights | outputs("fourier", unet, (3, 8, 8), [999, 0.25])


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(1))


def cases():
    wide = {"width": 48, "height": 32}
    # Of the pictures' own sizes: PIL and Easel may differ by 1 of 255 where they resize, which here would be the whole difference.
    gable, door = ({"image_file": file, "strength": 0.6} for file in (cut("init-gable.png", 64, 64), cut("init-door.png", 48, 32)))
    return [
        case("tiny-ldm", "ddim", **LDM),
        case("tiny-ldm", "dpmpp_2m", **LDM | {"width": 72, "height": 88}, num_images=2),
        case("tiny-ldm", "ddim", name="tiny-ldm-guidance-1", **LDM | {"guidance_scale": 1.0}),
        case("tiny-ldm", "ddim", name="tiny-ldm-img2img", **LDM | gable),
        case("tiny-ddpm", "ddim", width=32, height=32, num_images=2),
        case("tiny-ddpm", "dpmpp_2m", **wide),
        case("tiny-ddpm", "ddim", name="tiny-ddpm-img2img", **wide | door),
        case("tiny-ddim", "ddim", width=32, height=24),
        case("tiny-ddim", "ddim", name="tiny-ddim-img2img", **wide | door),
        case("tiny-ldm-faces", "ddim", width=64, height=64),
        case("tiny-ldm-faces", "euler", width=64, height=64),
        case("tiny-ldm-faces", "ddim", name="tiny-ldm-faces-img2img", **gable, width=64, height=64),
        case("tiny-ldm", "euler_ancestral", name="tiny-ldm-inpaint", **LDM | gable | {"mask_file": "mask-disc.png"}),
        case("tiny-ddpm", "heun", name="tiny-ddpm-inpaint", **wide | door | {"mask_file": small_mask()}),
    ]


def cut(file, width, height):
    """A part of the house that `pictures.py` draws."""
    Image.open(GOLDEN / "init-house.png").crop((48, 36, 48 + width, 36 + height)).save(GOLDEN / file)
    return file


def small_mask():
    """Of the door's size, for the same reason."""
    mask = Image.new("L", (48, 32), 0)
    ImageDraw.Draw(mask).ellipse((9, 5, 37, 25), fill=255)
    mask.save(GOLDEN / "mask-small.png")
    return "mask-small.png"


def case(model, scheduler, name=None, image_file=None, mask_file=None, **fields):
    request = {"model": model, "scheduler": scheduler, "num_inference_steps": 8, "seed": 11, "num_images": 1} | fields
    found = {"name": name or f"{model}-{scheduler.replace('_', '-')}", "model": model, "request": request}
    files = {"image_file": image_file, "mask_file": mask_file}
    return found | {key: file for key, file in files.items() if file}


def paint_case(case):
    """Paints the pictures of a case one by one: none of these pipelines mixes them."""
    samples = []
    for index in range(case["request"]["num_images"]):
        generator = torch.Generator("cpu").manual_seed(case["request"]["seed"] + index)
        sample, image = paint(case, generator)
        image.convert("RGB").save(GOLDEN / f"{case['name']}-{index}.png", optimize=True)
        samples.append(sample)
    save_file({"latents": torch.cat(samples).contiguous()}, GOLDEN / f"{case['name']}.safetensors")
    print(f"  {case['name']}: largest value {torch.cat(samples).abs().max():.2f}", flush=True)
    return case


def paint(case, generator):
    request = case["request"]
    pipe = load(case["model"])
    use_scheduler(pipe, request["scheduler"])
    # LDMPipeline asks for init_noise_sigma before it has set the timesteps that it depends on.
    pipe.scheduler.set_timesteps(request["num_inference_steps"])
    if "image_file" in case:
        sample = latent_loop.paint(pipe, case, generator)
        return sample, laid_over(case, latent_loop.decoded(pipe, sample))
    last = recorded(pipe.scheduler)
    arguments = {"num_inference_steps": request["num_inference_steps"], "generator": generator}
    size = (request["height"], request["width"])
    if "prompt" in request:
        arguments |= {"prompt": request["prompt"], "guidance_scale": request["guidance_scale"], "height": size[0], "width": size[1]}
    elif not hasattr(pipe, "vqvae"):
        pipe.unet.register_to_config(sample_size=size)
    image = pipe(**arguments).images[0]
    return last["sample"], image


def laid_over(case, painted):
    if "mask_file" not in case:
        return painted
    picture, mask = (Image.open(GOLDEN / case[file]).convert(mode) for file, mode in (("image_file", "RGB"), ("mask_file", "L")))
    return lay_over(painted.convert("RGB"), picture, mask)


def load(model):
    classes = {"tiny-ldm": LDMTextToImagePipeline, "tiny-ddpm": DDPMPipeline, "tiny-ddim": DDIMPipeline, "tiny-ldm-faces": LDMPipeline}
    pipe = classes[model].from_pretrained(GOLDEN / model)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.float()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def recorded(scheduler):
    """What the scheduler's last step gave; reads as a dictionary once the pipeline has run."""
    last, step = {}, scheduler.step

    def keep(*args, **kwargs):
        output = step(*args, **kwargs)
        last["sample"] = output.prev_sample.clone()
        return output

    scheduler.step = keep
    return last
