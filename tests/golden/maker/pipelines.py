"""Loads diffusers pipelines the way that Easel's numbers are compared with."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from .paths import model_folder
from .samplers_as_schedulers import painting_scheduler


def text2img(folder):
    """The pipeline of a model folder: float32, on the CPU, without a safety checker."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def img2img(pipe):
    """The same parts as an img2img pipeline."""
    found = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    found.set_progress_bar_config(disable=True)
    return found


def with_scheduler_config(name, scheduler_config):
    """The pipeline of a model whose folder has another scheduler_config.json."""
    if scheduler_config is None:
        return text2img(model_folder(name))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model"
        shutil.copytree(model_folder(name), copy)
        (copy / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler_config))
        return text2img(copy)


def use_scheduler(pipe, name):
    """Gives the pipeline the scheduler that a request names, made as diffusers' documentation makes it where diffusers has it."""
    pipe.scheduler = painting_scheduler(name, pipe.scheduler.config)
