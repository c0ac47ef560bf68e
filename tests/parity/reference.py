"""The latents that diffusers makes of every case: `cases.json`, and `latents.safetensors` with a tensor a case, under its name.

A case that diffusers refuses has its words as `refused`, and no tensor.
"""

import inspect
import json

import torch
from cases import cases
from diffusers import DiffusionPipeline, PNDMScheduler, UNet2DConditionModel
from families import EDIT, FAMILIES, IMG2IMG, REFINED, TEXT2IMG
from maker import latent, latent_loop
from maker.families import XL_SETTINGS, pipeline
from maker.paths import GOLDEN, model_folder
from maker.pipelines import use_scheduler, with_scheduler_config
from PIL import Image
from safetensors.torch import save_file


def make(folder, families=FAMILIES):
    """Writes the folder; answers the cases."""
    folder.mkdir(parents=True, exist_ok=True)
    found, latents = [], {}
    for family in families:
        painter = Painter(family)
        for case in cases([family]):
            found.append(case | painter.paint_into(latents, case))
        print(f"  {family.name}: {sum(case['family'] == family.name for case in found)} pictures", flush=True)
    save_file(latents, folder / "latents.safetensors")
    (folder / "cases.json").write_text(json.dumps({"cases": found}, indent=1))
    return found


class Painter:
    """The parts of a family's model, loaded once, and its pipelines."""

    def __init__(self, family):
        self.family = family
        self.pipe = load(family)
        self.parts, self.scheduler = self.pipe.components, self.pipe.scheduler
        self.settings = {name: self.pipe.config[name] for name in XL_SETTINGS if name in self.pipe.config}

    def paint_into(self, latents, case):
        try:
            painted = self.paint(case)
        except Exception as error:  # diffusers' own words, for the table
            return {"refused": f"{type(error).__name__}: {error}".splitlines()[0]}
        if not painted.isfinite().all():
            return {"refused": "its latents are not numbers"}
        latents[case["name"]] = painted.contiguous()
        return {}

    @torch.no_grad()
    def paint(self, case):
        request = case["request"]
        pipe = self.pipeline(self.family.tasks[case["task"]])
        use_scheduler(pipe, request["scheduler"])
        if request.get("strength", 1.0) < 1.0:
            begin_in_the_middle(pipe)
        generator = torch.Generator("cpu").manual_seed(request["seed"])
        if not self.family.tasks[case["task"]]:
            return latent_loop.paint(pipe, case, generator)
        given = ("prompt", "num_inference_steps", "guidance_scale", "image_guidance_scale", "eta")
        arguments = {key: request[key] for key in given if key in request} | pictures(case, pipe)
        arguments |= {"generator": generator, "output_type": "latent"}
        return self.refined(pipe, case, arguments) if "refiner" in request else pipe(**arguments).images

    def refined(self, pipe, case, arguments):
        """The first pipeline stops early, and the refiner's goes on from there."""
        start, name = case["request"]["refiner_start"], case["request"]["refiner"]
        begun = pipe(**arguments, denoising_end=start).images
        refiner = pipeline(name, case["request"]["scheduler"], img2img=True)
        begin_in_the_middle(refiner)
        own = {key: value for key, value in arguments.items() if key not in ("width", "height")}
        return refiner(**own, image=begun, denoising_start=start).images

    def pipeline(self, kind):
        if not kind:
            self.pipe.scheduler = self.scheduler
            return self.pipe
        is_xl = "XL" in kind.__name__
        more = {"add_watermarker": False} | self.settings if is_xl else {"requires_safety_checker": False}
        takes = inspect.signature(kind).parameters
        given = self.parts | {"scheduler": self.scheduler} | more
        pipe = kind(**{name: value for name, value in given.items() if name in takes})
        pipe.set_progress_bar_config(disable=True)
        return pipe


def begin_in_the_middle(pipe):
    """Where Runge-Kutta steps go wrong: see known.py."""
    if isinstance(pipe.scheduler, PNDMScheduler):
        pipe.scheduler.register_to_config(skip_prk_steps=True)


def load(family):
    """In float32, as `from_pretrained` loads it; a UNet that comes alone is laid over its base."""
    if family.base:
        pipe = DiffusionPipeline.from_pretrained(model_folder(family.base), dtype=torch.float32)
        pipe.unet = UNet2DConditionModel.from_pretrained(model_folder(family.model) / "unet")
        return pipe
    if family.scheduler_keys:
        return with_scheduler_config(family.model, cases([family])[0]["scheduler_config"])
    if None in family.tasks.values():
        return latent.load(family.model)
    return DiffusionPipeline.from_pretrained(model_folder(family.model), dtype=torch.float32)


def pictures(case, pipe):
    """What the task's pipeline takes besides the prompt. A model that needs a mask and is given none takes a white one on grey."""
    request = case["request"]
    size = {"width": request["width"], "height": request["height"]}
    blank = Image.new("RGB", tuple(size.values()), (128, 128, 128))
    image = Image.open(GOLDEN / case["image_file"]).convert("RGB") if "image_file" in case else blank
    if "Inpaint" in type(pipe).__name__:
        mask = Image.open(GOLDEN / case["mask_file"]).convert("L") if "mask_file" in case else Image.new("L", blank.size, 255)
        return {"image": image, "mask_image": mask, "strength": request.get("strength", 1.0)} | size
    return {
        TEXT2IMG: size,
        REFINED: size,
        IMG2IMG: {"image": image, "strength": request.get("strength")},
        # Stable Diffusion's takes the picture's size, and knows no other.
        EDIT: {"image": image.resize(blank.size, Image.Resampling.LANCZOS)} | (size if "XL" in type(pipe).__name__ else {}),
    }[case["task"]]
