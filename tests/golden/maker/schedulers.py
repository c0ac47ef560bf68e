"""`schedulers.json`: whole denoising loops of diffusers' schedulers on a fake model, on eight numbers.

Each case has the model's scheduler config, the scheduler class made from it with `from_config` (`use_karras_sigmas` only where
the case says so), the steps, and what came out: `timesteps`, `init_noise_sigma`, `samples` (the sample after each step). The loop
is that of the pipelines:

    sample = first × init_noise_sigma                                    (img2img: add_noise(first, noise, timesteps[0]))
    for t in timesteps:
        model_output = scale_model_input(sample, t) × t / (t + 1)
        sample = step(model_output, t, sample).prev_sample

An img2img case (`strength`) starts as `StableDiffusionImg2ImgPipeline` does: `timesteps` are those that are left, the scheduler's
begin index is set, and `first` stands for the picture's latents.

diffusers computes its tables in float32. To hold float64 arithmetic tightly, its own code is run here with every float32 read as
float64; `float32_deviation` says how far the unchanged code's samples are from that, relative to the largest number of the step.
A float64 implementation should be within 1e-9 of the samples, relative to the largest number of the step; timesteps within 1e-3
(Karras timesteps are found by interpolation; they, too, are 1e-9 in float64).
"""

import contextlib

import numpy
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.schedulers import scheduling_ddim, scheduling_dpmsolver_multistep, scheduling_euler_discrete

from .paths import DEMO, write_json
from .scheduler_cases import cases

CLASSES = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}
MODULES = [scheduling_ddim, scheduling_euler_discrete, scheduling_dpmsolver_multistep]
FIRST = [0.8, -1.3, 0.25, 2.1, -0.6, 0.05, -2.4, 1.1]
NOISE = [-0.7, 0.4, 1.9, -0.2, 0.9, -1.6, 0.3, -1.0]


class Float32AsFloat64:
    """A module, with float64 in the place of float32."""

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, "float64" if name == "float32" else name)


@contextlib.contextmanager
def float32_read_as_float64():
    for module in MODULES:
        module.torch, module.np = Float32AsFloat64(torch), Float32AsFloat64(numpy)
    try:
        yield
    finally:
        for module in MODULES:
            module.torch, module.np = torch, numpy


def make():
    value = {
        "model": "model_output = scale_model_input(sample, t) * t / (t + 1)",
        "tolerance": 1e-9,
        "first": FIRST,
        "noise": NOISE,
        "cases": [measured(case) for case in cases(DEMO)],
    }
    write_json("schedulers.json", value)


def measured(case):
    with float32_read_as_float64():
        exact = loop(case, torch.float64)
    plain = loop(case, torch.float32)
    deviation = max(relative(a, b) for a, b in zip(plain["samples"], exact["samples"], strict=True))
    if plain["timesteps"].shape != exact["timesteps"].shape or (plain["timesteps"] - exact["timesteps"]).abs().max() > 0.05:
        raise ValueError(f"{case}: float64 takes other timesteps than float32 does")
    return case | {
        "timesteps": numbers(exact["timesteps"]),
        "init_noise_sigma": float(exact["init_noise_sigma"]),
        "float32_deviation": float(f"{deviation:.1e}"),
        "samples": [numbers(sample) for sample in exact["samples"]],
    }


def loop(case, dtype):
    """Denoises the fake latents as the pipelines do."""
    overrides = {"use_karras_sigmas": True} if case["karras"] else {}
    scheduler = CLASSES[case["scheduler"]].from_config(case["config"], **overrides)
    steps = case["num_inference_steps"]
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    first, noise = (torch.tensor(values, dtype=dtype).reshape(1, 2, 2, 2) for values in (FIRST, NOISE))
    if "strength" in case:
        skipped = max(steps - min(int(steps * case["strength"]), steps), 0)
        timesteps = timesteps[skipped * scheduler.order :]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped * scheduler.order)
        sample = scheduler.add_noise(first, noise, timesteps[:1])
    else:
        sample = first * scheduler.init_noise_sigma
    samples = []
    for t in timesteps:
        model_output = scheduler.scale_model_input(sample, t) * (float(t) / (float(t) + 1.0))
        sample = scheduler.step(model_output, t, sample).prev_sample
        samples.append(sample)
    if not all(torch.isfinite(sample).all() for sample in samples):
        raise ValueError(f"{case}: not finite")
    return {"timesteps": timesteps.double(), "init_noise_sigma": scheduler.init_noise_sigma, "samples": samples}


def relative(found, exact):
    return float((found.double() - exact).abs().max() / exact.abs().max())


def numbers(tensor):
    """Fifteen digits: more than the tolerance needs."""
    return [float(f"{number:.15g}") for number in tensor.flatten().tolist()]
