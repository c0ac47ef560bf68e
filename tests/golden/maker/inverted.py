"""k-diffusion's samplers behind the door of a diffusers scheduler, so that any pipeline can paint with them.

A sampler calls the model; a pipeline calls the scheduler. So the sampler runs on a thread of its own: where it calls the model it waits for
`step`, which brings the model's output and answers the sample that the sampler asks about next, or its last.
"""

import queue
import threading

import torch

from .k_samplers import SAMPLERS, predicted
from .scheduler_classes import split_name


class SamplerAsScheduler:
    """DPM++ 2S ancestral has two calls a step, and one in the last: the layout of diffusers' second-order schedulers."""

    order = 2

    def __init__(self, name, base):
        self.sampler, self.base, self.config = SAMPLERS[split_name(name)[0]], base, base.config
        self.begin, self.asked = 0, None

    def set_timesteps(self, num_inference_steps, device=None):
        self.base.set_timesteps(num_inference_steps)
        self.levels = []
        self.run(torch.zeros(1), lambda x, sigma: self.levels.append(sigma[0].item()) or x, lambda *_: torch.zeros(1))
        log_sigmas = ((1 - self.base.alphas_cumprod) / self.base.alphas_cumprod).sqrt().log().numpy()
        known = dict(zip(self.base.sigmas.tolist(), self.base.timesteps.tolist(), strict=False))
        times = [known[level] if level in known else float(self.base._sigma_to_t(torch.tensor(level).numpy(), log_sigmas)) for level in self.levels]
        self.timesteps = torch.tensor(times)
        self.num_inference_steps, self.asked, self.call = num_inference_steps, None, 0

    @property
    def init_noise_sigma(self):
        return self.base.init_noise_sigma

    def set_begin_index(self, begin):
        self.begin = self.call = begin

    def add_noise(self, original, noise, timesteps):
        return original + noise * self.levels[self.timesteps.tolist().index(float(timesteps[0]))]

    def scale_model_input(self, sample, timestep):
        return sample / (self.levels[self.call] ** 2 + 1) ** 0.5

    def run(self, sample, model, noise):
        sigmas = self.base.sigmas[self.begin // 2 :]
        return self.sampler(model, sample, sigmas, disable=True, noise_sampler=noise)

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        if self.asked is None:
            self.start(sample, generator)
        sigma = torch.tensor(self.levels[self.call])
        self.call += 1
        self.answers.put(predicted(self.base, sample, sigma, model_output))
        found = self.asked.get()
        if isinstance(found, Exception):
            raise found
        return (found,)

    def start(self, sample, generator):
        self.asked, self.answers = queue.Queue(), queue.Queue()
        first = True

        def model(x, _sigma):
            nonlocal first
            if not first:  # the first is the sample that the pipeline has already asked about
                self.asked.put(x)
            first = False
            return self.answers.get()

        def noise(*_):
            one = generator[0] if isinstance(generator, list) else generator
            return torch.randn(sample.shape, generator=one)

        def work():
            try:
                self.asked.put(self.run(sample, model, noise))
            except Exception as error:  # handed to the pipeline
                self.asked.put(error)

        threading.Thread(target=work, daemon=True).start()
