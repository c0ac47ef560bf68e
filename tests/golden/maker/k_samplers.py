"""What diffusers' classes do not have: k-diffusion's samplers on the noise levels of a diffusers scheduler, and iPNDM on them."""

import importlib
import importlib.util
import sys
import types

import torch
from diffusers import IPNDMScheduler

from .scheduler_classes import split_name


def samplers():
    """`k_diffusion.sampling` without the rest of the package, which imports far more than the samplers need."""
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, target_dims: x[(...,) + (None,) * (target_dims - x.ndim)]
    odes = types.ModuleType("torchdiffeq")
    odes.odeint = None
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils, "torchdiffeq": odes}
    return importlib.import_module("k_diffusion.sampling")


sampling = samplers()
SAMPLERS = {
    "euler_ancestral": sampling.sample_euler_ancestral,
    "dpm2": sampling.sample_dpm_2,
    "dpm2_ancestral": sampling.sample_dpm_2_ancestral,
    "dpmpp_2s_ancestral": sampling.sample_dpmpp_2s_ancestral,
    "dpmpp_sde": sampling.sample_dpmpp_sde,
    "dpmpp_2m_sde": sampling.sample_dpmpp_2m_sde,
}
TWO_CALLS = ["dpm2", "dpm2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"]


class BrownianPath:
    """The noise of a step of DPM++ SDE: the increments of one Brownian path to its middle and to its end, from two draws."""

    def __init__(self, noise):
        self.noise, self.middle = noise, None

    def __call__(self, sigma, sigma_next):
        if self.middle is None:
            self.middle = (sigma_next, self.noise())
            return self.middle[1]
        (middle, first), self.middle = self.middle, None
        old = float((sigma - middle) / (sigma - sigma_next))
        return first * old**0.5 + self.noise() * (1 - old) ** 0.5


def is_needed(case):
    """No class of diffusers has the algorithm, its `eta`, or its sigma schedule, or it does not take the prediction type."""
    algorithm, suffix = split_name(case["scheduler"])
    if algorithm not in SAMPLERS:
        return False
    beyond = algorithm == "euler_ancestral" and suffix not in ("", "_sgm_uniform")
    unpredicted = algorithm != "dpmpp_2m_sde" and case["config"].get("prediction_type") == "sample"
    return algorithm == "dpmpp_2s_ancestral" or "eta" in case or beyond or unpredicted


class Model:
    """The fake model as k-diffusion calls it: (x, σ) to the predicted finished sample."""

    def __init__(self, scheduler, sigmas, calls_per_step):
        self.scheduler, self.timesteps = scheduler, []
        levels = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5
        self.log_sigmas = levels.log().numpy()
        # The timesteps of the steps are the scheduler's; between them there is only σ.
        self.first_calls = [] if scheduler.order == 2 else scheduler.timesteps.tolist()[-(len(sigmas) - 1) :]
        self.calls_per_step, self.is_second = calls_per_step, False

    def __call__(self, x, sigma):
        sigma = sigma[0]
        if self.is_second or not self.first_calls:
            t = float(self.scheduler._sigma_to_t(sigma.numpy(), self.log_sigmas))
        else:
            t = self.first_calls.pop(0)
        self.is_second = False
        self.timesteps.append(t)
        model_output = x / (sigma**2 + 1) ** 0.5 * (t / (t + 1))
        return predicted(self.scheduler, x, sigma, model_output)

    def after_first_call(self, _state):
        self.is_second = self.calls_per_step == 2


def predicted(scheduler, x, sigma, model_output):
    variance = sigma**2 + 1
    return {
        "epsilon": x - sigma * model_output,
        "v_prediction": x / variance - model_output * sigma / variance**0.5,
        "sample": model_output,
    }[scheduler.config.prediction_type]


def step_sigmas(scheduler):
    """The noise levels between steps: a class of second order has those within its steps, too."""
    sigmas = scheduler.sigmas
    if scheduler.order == 1:
        return sigmas
    return torch.cat([sigmas[:1], sigmas[1:-1:2], sigmas[-1:]]).unique(sorted=True).flip(0)


def loop(case, scheduler, start, noise):
    """k-diffusion's sampler on the scheduler's noise levels from the begin; only the last sample is kept."""
    algorithm = split_name(case["scheduler"])[0]
    sigmas = step_sigmas(scheduler)[start["skipped"] :]
    sample = start["sample"]
    is_scaled = algorithm == "dpmpp_2m_sde"
    if is_scaled:  # diffusers' class works on samples of variance 1
        sample = sample * (sigmas[0] ** 2 + 1) ** 0.5
    model = Model(scheduler, sigmas, 2 if algorithm in TWO_CALLS else 1)
    if algorithm != "dpm2":
        noise = BrownianPath(noise) if algorithm == "dpmpp_sde" else noise
        options = {"noise_sampler": lambda *between: noise(*between)} | ({"eta": case["eta"]} if "eta" in case else {})
    else:
        options = {}
    sample = SAMPLERS[algorithm](model, sample, sigmas, callback=model.after_first_call, disable=True, **options)
    timesteps = torch.tensor(model.timesteps, dtype=torch.float64)
    return {"timesteps": timesteps, "init_noise_sigma": scheduler.init_noise_sigma, "samples": {len(timesteps): sample}}


def ipndm(scheduler, start):
    """diffusers' `IPNDMScheduler` with the model's noise levels in the place of its own, on samples of variance 1; it takes v."""
    sigmas = scheduler.sigmas[start["skipped"] :]
    signals = 1 / (sigmas**2 + 1) ** 0.5
    made = IPNDMScheduler()
    made.set_timesteps(len(sigmas) - 1)
    made.alphas, made.betas = signals, sigmas * signals
    made.set_begin_index(0)
    sample, samples = start["sample"], {}
    for call, t in enumerate(start["timesteps"]):
        sigma, signal = sigmas[call], signals[call]
        model_output = sample * signal * (float(t) / (float(t) + 1.0))
        x0 = predicted(scheduler, sample, sigma, model_output)
        velocity = ((sample - x0) / sigma) * signal - x0 * sigma * signal
        scaled = made.step(velocity, made.timesteps[call], sample * signal).prev_sample
        sample = scaled / signals[call + 1]
        samples[call + 1] = sample
    return {"timesteps": start["timesteps"].double(), "init_noise_sigma": scheduler.init_noise_sigma, "samples": samples}
