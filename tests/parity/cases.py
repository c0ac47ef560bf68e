"""Every picture that `make parity` asks for, in the form of tests/golden's cases (see pictures.py there)."""

import json

from families import EDIT, FAMILIES, IMG2IMG, INPAINTING, TEXT2IMG, UNCONDITIONAL
from maker.paths import model_folder
from maker.scheduler_cases import SCHEDULERS, SIGMAS
from maker.scheduler_classes import SIGMA_KEYS

SHARED = {"prompt": "a red house!", "num_inference_steps": 6, "guidance_scale": 3.0, "seed": 7, "num_images": 1}
# Sizes off the UNet's grid, too.
BLANK = {"width": 88, "height": 72}
BALL = {"image_file": "init-ball.png", "width": 136, "height": 104}
HOUSE = {"image_file": "init-house.png", "width": 128, "height": 128}
TASKS = {
    TEXT2IMG: BLANK,
    IMG2IMG: BALL | {"strength": 0.7},
    INPAINTING: HOUSE | {"mask_file": "mask-disc.png", "strength": 0.7},
    EDIT: BALL,
}
# What a model without text does not take.
OF_TEXT = ("prompt", "guidance_scale")
FILES = ("image_file", "mask_file")
# Easel's default is the class's, diffusers' pipelines hand their own.
ETAS = {"tcd": {"eta": 0.0}}


def cases(families=FAMILIES):
    """Every family × its tasks × every scheduler; the sigma schedules behind the names for some families' text2img."""
    found = [case(family, task, name) for family in families for task in family.tasks for name in SCHEDULERS]
    wide = [family for family in families if family.with_sigma_schedules]
    return found + [case(family, TEXT2IMG, name) for family in wide for name in names_with_sigma_schedules()]


def names_with_sigma_schedules():
    trailing = [f"{name}_sgm_uniform" for name in ("ddim", "ddpm", "pndm")]
    return trailing + [f"{name}{suffix}" for name in SIGMAS for suffix in SIGMA_KEYS]


def case(family, task, scheduler):
    fields = family.fields.get(task) or TASKS[task]
    request = {"model": family.model, "scheduler": scheduler} | SHARED | family.request | ETAS.get(scheduler, {})
    if UNCONDITIONAL in family.tasks:
        request = {key: value for key, value in request.items() if key not in OF_TEXT}
    found = {"name": f"{family.name} / {task} / {scheduler}", "family": family.name, "task": task, "model": family.model}
    found["request"] = request | {key: value for key, value in fields.items() if key not in FILES}
    found |= {key: fields[key] for key in FILES if key in fields}
    found |= {"base": family.base} if family.base else {}
    return found | ({"scheduler_config": scheduler_config(family)} if family.scheduler_keys else {})


def scheduler_config(family):
    own = json.loads((model_folder(family.model) / "scheduler" / "scheduler_config.json").read_text())
    return own | family.scheduler_keys
