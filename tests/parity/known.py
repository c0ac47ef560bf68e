"""Where the reference is not simply a class of diffusers, and every difference that is known, each with its reason."""

from dataclasses import dataclass
from typing import Callable

from families import EDIT, IMG2IMG, INPAINTING, REFINED
from maker.scheduler_classes import split_name


@dataclass(frozen=True)
class Note:
    """Something to be said of the cases that `applies` picks."""

    applies: Callable
    text: str
    allowed: float | None = None


def algorithm(case):
    return split_name(case["request"]["scheduler"])[0]


def suffix(case):
    return split_name(case["request"]["scheduler"])[1]


def prediction_type(case):
    return case.get("scheduler_config", {}).get("prediction_type")


REFERENCES = [
    Note(
        lambda case: algorithm(case) == "tcd",
        "tcd: with eta 0.0, which diffusers' pipelines hand to every scheduler. Easel's default is the class's own, 0.3.",
    ),
    Note(
        lambda case: algorithm(case) == "dpmpp_2s_ancestral",
        "dpmpp_2s_ancestral: k-diffusion's sampler inside diffusers' pipeline, on EulerDiscreteScheduler's noise levels.",
    ),
    Note(
        lambda case: algorithm(case) == "euler_ancestral" and suffix(case) not in ("", "_sgm_uniform"),
        "euler_ancestral with a sigma schedule: the same, for EulerAncestralDiscreteScheduler takes none.",
    ),
    Note(
        lambda case: prediction_type(case) == "sample" and algorithm(case) in ("euler_ancestral", "dpm2", "dpm2_ancestral", "dpmpp_sde"),
        "euler_ancestral, dpm2, dpm2_ancestral and dpmpp_sde where the model predicts the finished sample: the same, for their classes raise"
        " NotImplementedError.",
    ),
    Note(
        lambda case: prediction_type(case) == "sample" and algorithm(case) == "pndm",
        "pndm where the model predicts the finished sample: PNDMScheduler, which refuses it, made to turn it into noise where it turns v into"
        " noise.",
    ),
    Note(
        lambda case: algorithm(case) == "dpmpp_sde",
        "dpmpp_sde: DPMSolverSDEScheduler, handed the noise that Easel draws (two increments of one Brownian path a step, from the"
        " picture's own seed) in the place of its Brownian tree's.",
    ),
    Note(
        lambda case: algorithm(case) == "dpmpp_3m_sde",
        "dpmpp_3m_sde: DPMSolverMultistepScheduler with sde-dpmsolver++ and solver_order 3; dpmpp_2m_sde with order 2.",
    ),
    Note(
        lambda case: algorithm(case) == "ipndm",
        "ipndm: IPNDMScheduler with the model's noise levels in the place of its own, which are of no Stable Diffusion model.",
    ),
    Note(
        lambda case: algorithm(case) == "pndm" and case["task"] in (IMG2IMG, INPAINTING, REFINED),
        "pndm begun in the middle: with skip_prk_steps. Without it diffusers leaves out the first of the Runge-Kutta calls, and the others go by"
        " noise levels that have not been visited.",
    ),
    Note(
        lambda case: case["model"] in ("tiny-ldm", "tiny-ldm-faces", "tiny-ddpm", "tiny-ddim"),
        "latent diffusion and models without text: diffusers' networks and schedulers in the loop of Stable Diffusion's pipelines, for their own know"
        " no picture, and leave out the scaling that half of the schedulers need.",
    ),
    Note(
        lambda case: "base" in case and case["task"] != EDIT,
        "an inpainting model without a mask is given a white one, without a picture a grey one; diffusers' pipeline asks for both.",
    ),
]

# With `allowed`, the error that the reason explains; without it, that one side refuses.
DIFFERENCES = [
    Note(
        lambda case: case["family"] == "SD 1.5, zero SNR" and algorithm(case) in ("ddim", "ddpm", "lcm", "tcd"),
        "Easel answers 422. The first sample is noise only (rescale_betas_zero_snr) and the model predicts that noise, so that the finished sample"
        " is divided by zero. In diffusers lcm and tcd paint NaN; ddim and ddpm clip infinities to ±1, and paint NaN without clip_sample.",
    ),
    Note(
        lambda case: case["task"] == REFINED and algorithm(case) in ("pndm", "heun", "dpm2_ancestral", "dpmpp_2s_ancestral"),
        "A refiner behind steps of several calls. diffusers ends the first pipeline with the last call whose timestep is at or above the begin,"
        " which here is in the middle of a step (Heun's second call has the next step's timestep), and its refiner begins that step anew with a"
        " sample that has already left it. Easel hands over between steps; where diffusers does, too (dpm2, dpmpp_sde), they agree.",
        allowed=0.5,
    ),
]
