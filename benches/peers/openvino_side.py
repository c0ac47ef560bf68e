"""OpenVINO's side: the UNet's step on the CPU, converted from diffusers' module with static shapes. See sides.py.

    python openvino_side.py FOLDER f32|bf16 THREADS

The shapes are those of the first case. Guidance and the scheduler are diffusers' own, as on diffusers' side.
"""

import gc
import json
import sys
import time

import openvino
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

GUIDANCE_SCALE = 7.5
TOKENS = 77
STEPS = 150


class Plain(torch.nn.Module):
    """A UNet that takes and gives tensors."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, embeds):
        return self.unet(sample, timestep, embeds, return_dict=False)[0]


class OpenVino:
    def __init__(self, folder, precision, threads):
        self.folder, self.precision, self.threads = folder, precision, threads
        self.compiled, self.scheduler, self.at = None, DDIMScheduler.from_pretrained(folder, subfolder="scheduler"), 0

    def prepare(self, case):
        if case["part"] != "unet" or case.get("rows", 2) % 2:
            raise ValueError("the UNet's step with guidance is what OpenVINO is timed with")
        rows, cells = case.get("rows", 2), case["size"] // 8
        unet = UNet2DConditionModel.from_pretrained(self.folder, subfolder="unet", dtype=torch.float32).eval()
        width = unet.config.cross_attention_dim
        example = (torch.zeros(rows, 4, cells, cells), torch.tensor(1.0), torch.zeros(rows, TOKENS, width))
        model = openvino.convert_model(Plain(unet), example_input=example, input=[tensor.shape for tensor in example])
        hints = {"INFERENCE_PRECISION_HINT": self.precision, "INFERENCE_NUM_THREADS": self.threads, "PERFORMANCE_HINT": "LATENCY"}
        self.compiled = openvino.Core().compile_model(model, "CPU", hints)
        del unet, model
        gc.collect()
        self.embeds = torch.randn(rows, TOKENS, width)
        self.begin(rows // 2, cells)

    def begin(self, pictures, cells):
        self.scheduler.set_timesteps(STEPS)
        self.at, self.latents = 0, torch.randn(pictures, 4, cells, cells)

    @torch.no_grad()
    def time(self, case):
        if self.compiled is None:
            self.prepare(case)
        steps = case.get("steps", 1)
        if self.at + steps > STEPS:
            self.begin(len(self.latents), self.latents.shape[-1])
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - start) / steps

    def step(self):
        timestep = self.scheduler.timesteps[self.at]
        inputs = [torch.cat([self.latents] * 2), timestep.float(), self.embeds]
        noise_pred = torch.from_numpy(self.compiled([tensor.numpy() for tensor in inputs])[0])
        uncond, text = noise_pred.chunk(2)
        noise_pred = uncond + GUIDANCE_SCALE * (text - uncond)
        self.latents = self.scheduler.step(noise_pred, timestep, self.latents, return_dict=False)[0]
        self.at += 1


def main():
    folder, precision, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    side = OpenVino(folder, precision, int(threads))
    say({"ready": folder, "device": "cpu", "dtype": precision, "threads": int(threads)})
    for line in sys.stdin:
        say({"seconds": side.time(json.loads(line))})


def say(answer):
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
