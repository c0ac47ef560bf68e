"""`schedulers.json`: whole denoising loops of diffusers' schedulers on a fake model, on eight numbers.

Each case has the place of the model's scheduler config in `configs`, the scheduler as requests name it (its class is made from that config with
`from_config`), the steps, and what came out: `timesteps` of the UNet calls, `init_noise_sigma`, `samples` (after some of the
calls, by their number). The loop is that of the pipelines:

    sample = first × init_noise_sigma                                    (img2img: add_noise(first, noise, timesteps[0]))
    for t in timesteps:
        model_output = scale_model_input(sample, t) × t / (t + 1)
        sample = step(model_output, t, sample).prev_sample

An img2img case (`strength`) starts as `StableDiffusionImg2ImgPipeline` does: `timesteps` are those that are left, the scheduler's
begin index is set, and `first` stands for the picture's latents.

Noise is `fake_noise`: whole numbers of the draw and the place, which a test can make, too. What diffusers does not have is taken from k-diffusion
(`k_samplers.py`), and iPNDM's noise levels are put in the place of those of its class (there, too).

diffusers computes its tables in float32. To hold float64 arithmetic tightly, its own code is run here with every float32 read as
float64. A float64 implementation should be within 1e-9 of the samples, relative to the largest number of the step; so should
the timesteps. Timesteps that a class cuts to whole numbers are those that float32 gives: the cut hangs on its last bit.
"""

import contextlib

import numpy
import torch

from . import k_samplers
from .paths import DEMO, write_json
from .scheduler_cases import cases
from .scheduler_classes import MODULES, make_scheduler, split_name

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
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        for module in MODULES:
            module.torch, module.np = torch, numpy


class FakeNoise:
    """Hands out whole numbers of the draw and the place instead of random ones."""

    def __init__(self):
        self.draws = 0

    def __call__(self, *_args, **_options):
        self.draws += 1
        values = [(self.draws * 7 + place * 5) % 11 * 0.3 - 1.5 for place in range(len(FIRST))]
        return torch.tensor(values, dtype=torch.float64).reshape(1, 2, 2, 2)


def make():
    configs, found = [], []
    for case in cases(DEMO):
        if case["config"] not in configs:
            configs.append(case["config"])
        found.append(measured(case) | {"config": configs.index(case["config"])})
    value = {
        "model": "model_output = scale_model_input(sample, t) * t / (t + 1)",
        "tolerance": 1e-9,
        "first": FIRST,
        "noise": NOISE,
        "configs": configs,
        "cases": found,
    }
    write_json("schedulers.json", value)


def measured(case):
    try:
        plain = loop(case, torch.float32)
        with float32_read_as_float64():
            exact = loop(case, torch.float64, plain["timesteps"])
    except Exception as error:
        raise ValueError(f"{case}") from error
    # Near zero terminal SNR float32's tables are rough.
    allowed = 1.0 if case["config"].get("rescale_betas_zero_snr") else 0.05
    if plain["timesteps"].shape != exact["timesteps"].shape or (plain["timesteps"] - exact["timesteps"]).abs().max() > allowed:
        raise ValueError(f"{case}: float64 takes other timesteps than float32 does")
    samples = exact["samples"]
    kept = sorted({call for call in samples if call in (max(samples), max(samples) // 2)})
    return case | {
        "timesteps": numbers(exact["timesteps"]),
        "init_noise_sigma": float(exact["init_noise_sigma"]),
        "samples": {str(call): numbers(samples[call]) for call in kept},
    }


def loop(case, dtype, timesteps=None):
    """Denoises the fake latents as the pipelines do; `timesteps` are those of float32, where they have been found."""
    scheduler = make_scheduler(case["scheduler"], case["config"])
    scheduler.set_timesteps(case["num_inference_steps"])
    if timesteps is not None and not scheduler.timesteps.is_floating_point():
        scheduler.timesteps = torch.cat([scheduler.timesteps[: -len(timesteps)], timesteps.to(scheduler.timesteps.dtype)])
    start = begin(case, scheduler, dtype)
    if k_samplers.is_needed(case):
        return k_samplers.loop(case, scheduler, start, FakeNoise())
    if split_name(case["scheduler"])[0] == "ipndm":
        return k_samplers.ipndm(scheduler, start)
    return run(case, scheduler, start)


def begin(case, scheduler, dtype):
    """The timesteps that are left, and the sample that they start from."""
    first, noise = (torch.tensor(values, dtype=dtype).reshape(1, 2, 2, 2) for values in (FIRST, NOISE))
    steps = case["num_inference_steps"]
    if "strength" not in case:
        return {"skipped": 0, "timesteps": scheduler.timesteps, "sample": first * scheduler.init_noise_sigma}
    skipped = max(steps - min(int(steps * case["strength"]), steps), 0)
    timesteps = scheduler.timesteps[skipped * scheduler.order :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped * scheduler.order)
    return {"skipped": skipped, "timesteps": timesteps, "sample": scheduler.add_noise(first, noise, timesteps[:1])}


def run(case, scheduler, start):
    noise = FakeNoise()
    if hasattr(scheduler, "noise_sampler"):
        scheduler.noise_sampler = k_samplers.BrownianPath(noise)
    options = {"eta": case["eta"]} if "eta" in case else {}
    sample, samples = start["sample"], {}
    with handed(noise):
        for call, t in enumerate(start["timesteps"], 1):
            model_output = scheduler.scale_model_input(sample, t) * (float(t) / (float(t) + 1.0))
            sample = scheduler.step(model_output, t, sample, **options).prev_sample
            samples[call] = sample
    if not all(torch.isfinite(sample).all() for sample in samples.values()):
        raise ValueError("not finite")
    return {"timesteps": start["timesteps"].double(), "init_noise_sigma": scheduler.init_noise_sigma, "samples": samples}


@contextlib.contextmanager
def handed(noise):
    """Noise in the place of what the classes draw."""
    drawing = [module for module in MODULES if hasattr(module, "randn_tensor")]
    before = [module.randn_tensor for module in drawing]
    for module in drawing:
        module.randn_tensor = noise
    try:
        yield
    finally:
        for module, drawn in zip(drawing, before, strict=True):
            module.randn_tensor = drawn


def numbers(tensor):
    """Fourteen digits: more than the tolerance needs."""
    return [float(f"{number:.14g}") for number in tensor.flatten().tolist()]
