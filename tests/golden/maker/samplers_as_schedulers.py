"""What diffusers' classes do not have, behind the door of a diffusers scheduler, so that any pipeline can paint with it.

DPM++ SDE with noise from the picture's own generator (its class draws from a Brownian tree); iPNDM on the model's noise levels; PNDM
for models that predict the finished sample; and k-diffusion's samplers, where k_samplers.py says that one is needed.
"""

import queue
import threading

import torch
from diffusers import DPMSolverSDEScheduler, IPNDMScheduler, PNDMScheduler

from .k_samplers import SAMPLERS, TWO_CALLS, BrownianPath, is_needed, predicted, step_sigmas
from .scheduler_classes import make_scheduler, split_name


def painting_scheduler(name, config):
    """The scheduler that a request names, for a pipeline."""
    algorithm = split_name(name)[0]
    base = make_scheduler(name, config)
    if is_needed({"scheduler": name, "config": base.config}):
        return SamplerAsScheduler(algorithm, base)
    if algorithm == "ipndm":
        return IPNDMOnModelSigmas(base)
    if algorithm == "pndm" and base.config.prediction_type == "sample":
        return PNDMOnSamples.from_config(base.config, prediction_type="epsilon")
    return DPMSolverSDEWithOwnNoise.from_config(base.config) if algorithm == "dpmpp_sde" else base


def drawing(shape, generator):
    """Draws for one picture as diffusers' `randn_tensor` does."""
    [one] = generator if isinstance(generator, list) else [generator]
    return lambda *_between: torch.randn(shape, generator=one)


class DPMSolverSDEWithOwnNoise(DPMSolverSDEScheduler):
    """diffusers' class with Gaussian noise a call from the pipeline's generator in the place of its Brownian tree."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        if self.noise_sampler is None:
            self.noise_sampler = BrownianPath(drawing(sample.shape, generator))
        return super().step(model_output, timestep, sample, return_dict=return_dict)


class PNDMOnSamples(PNDMScheduler):
    """diffusers' class for models that predict the finished sample, which it refuses: ε is made of what it adds up, where v would be."""

    def _get_prev_sample(self, sample, timestep, prev_timestep, model_output):
        alpha_prod_t = self.alphas_cumprod[timestep]
        epsilon = (sample - alpha_prod_t**0.5 * model_output) / (1 - alpha_prod_t) ** 0.5
        return super()._get_prev_sample(sample, timestep, prev_timestep, epsilon)


class OnModelSigmas:
    """What a pipeline asks of every scheduler, on the noise levels of another one, `base`: `levels` and `timesteps`, one a call."""

    def __init__(self, base, order):
        self.base, self.config, self.order = base, base.config, order

    def begin_with(self, steps, levels, timesteps):
        self.num_inference_steps, self.levels, self.timesteps = steps, levels, timesteps
        self.set_begin_index(0)

    def set_begin_index(self, begin):
        self.begin = self.call = begin

    @property
    def init_noise_sigma(self):
        return self.base.init_noise_sigma

    def scale_model_input(self, sample, timestep):
        return sample / (self.levels[self.call] ** 2 + 1) ** 0.5

    def add_noise(self, original, noise, timesteps):
        """The levels are found by the timesteps' values: no two calls have the same."""
        return original + noise * self.levels[self.timesteps.tolist().index(float(timesteps[0]))]


class IPNDMOnModelSigmas(OnModelSigmas):
    """diffusers' `IPNDMScheduler` with the model's noise levels in the place of its own, on samples of variance 1; it takes v."""

    def __init__(self, base):
        super().__init__(base, order=1)

    def set_timesteps(self, num_inference_steps, device=None):
        self.base.set_timesteps(num_inference_steps)
        self.begin_with(num_inference_steps, self.base.sigmas.tolist(), self.base.timesteps)
        self.made = IPNDMScheduler()
        self.made.set_timesteps(num_inference_steps)
        self.made.alphas = 1 / (self.base.sigmas**2 + 1) ** 0.5
        self.made.betas = self.base.sigmas * self.made.alphas

    def step(self, model_output, timestep, sample, return_dict=True):
        if self.made.begin_index is None:
            self.made.set_begin_index(self.begin)
        sigma, signal = self.base.sigmas[self.call], self.made.alphas[self.call]
        x0 = predicted(self.base, sample, sigma, model_output)
        velocity = (sample - x0) / sigma * signal - x0 * sigma * signal
        scaled = self.made.step(velocity, self.made.timesteps[self.call], sample * signal).prev_sample
        self.call += 1
        return (scaled / self.made.alphas[self.call],)


class SamplerAsScheduler(OnModelSigmas):
    """A sampler calls the model; a pipeline calls the scheduler. So the sampler runs on a thread of its own: where it calls the model it waits
    for `step`, which brings the model's output and answers the sample that the sampler asks about next, or its last.

    Two calls a step, and one in the last, have the layout of diffusers' second-order schedulers.
    """

    def __init__(self, algorithm, base):
        super().__init__(base, order=2 if algorithm in TWO_CALLS else 1)
        self.sampler, self.brownian, self.random = SAMPLERS[algorithm], algorithm == "dpmpp_sde", algorithm != "dpm2"

    def set_timesteps(self, num_inference_steps, device=None):
        self.base.set_timesteps(num_inference_steps)
        levels = []
        self.begin = 0
        self.run(torch.zeros(1), lambda x, sigma: levels.append(sigma[0].item()) or x, lambda *_: torch.zeros(1))
        log_sigmas = ((1 - self.base.alphas_cumprod) / self.base.alphas_cumprod).sqrt().log().numpy()
        # The timesteps of the steps are the base's; between them there is only σ.
        known = dict(zip(self.base.sigmas.tolist(), self.base.timesteps.tolist(), strict=False)) if self.base.order == 1 else {}
        between = lambda level: float(self.base._sigma_to_t(torch.tensor(level).numpy(), log_sigmas))
        times = [known[level] if level in known else between(level) for level in levels]
        self.begin_with(num_inference_steps, levels, torch.tensor(times))
        self.asked = None

    def run(self, sample, model, noise):
        sigmas = step_sigmas(self.base)[self.begin // self.order :]
        options = {"noise_sampler": BrownianPath(noise) if self.brownian else noise} if self.random else {}
        return self.sampler(model, sample, sigmas, disable=True, **options)

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        if self.asked is None:
            self.start(sample, drawing(sample.shape, generator))
        sigma = torch.tensor(self.levels[self.call])
        self.call += 1
        self.answers.put((sample, predicted(self.base, sample, sigma, model_output)))
        found = self.asked.get()
        if isinstance(found, Exception):
            raise found
        return (found,)

    def start(self, sample, noise):
        self.asked, self.answers = queue.Queue(), queue.Queue()
        first = sample.clone()

        def model(x, _sigma):
            if x is not first:  # which the pipeline has already asked about
                self.asked.put(x.clone())
            # A pipeline may have changed the sample in between: an inpainting one lays the picture around it.
            changed, x0 = self.answers.get()
            x.copy_(changed)
            return x0

        def work():
            try:
                with torch.no_grad():
                    self.asked.put(self.run(first, model, noise))
            except Exception as error:  # handed to the pipeline
                self.asked.put(error)

        threading.Thread(target=work, daemon=True).start()
