"""diffusers' side: answers cases with the seconds that they take. See sides.py.

    python diffusers_side.py FOLDER DEVICE DTYPE THREADS [--compile]

What is timed is what diffusers' own pipeline does for that part. With `--compile`, as its page on speed advises: channels_last, fused
projections, and `torch.compile(mode="max-autotune", fullgraph=True)` of the UNet and the VAE's decoder.
"""

import argparse
import json
import sys
import time

import torch
from diffusers import DDIMScheduler, DiffusionPipeline

GUIDANCE_SCALE = 7.5


class Diffusers:
    def __init__(self, options):
        self.device, self.dtype = torch.device(options.device), getattr(torch, options.dtype)
        self.pipe = DiffusionPipeline.from_pretrained(options.folder, dtype=self.dtype, local_files_only=True).to(self.device)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        self.prompts, self.moving = 0, None
        if options.compile:
            self.compile()

    def compile(self):
        for module in (self.pipe.unet, self.pipe.vae):
            module.to(memory_format=torch.channels_last)
        self.pipe.fuse_qkv_projections()
        # Each shape by itself: the second would else be compiled for all shapes at once, and be the slower for it.
        compiled = {"mode": "max-autotune", "fullgraph": True, "dynamic": False}
        self.pipe.unet = torch.compile(self.pipe.unet, **compiled)
        self.pipe.vae.decode = torch.compile(self.pipe.vae.decode, **compiled)

    @torch.no_grad()
    def time(self, case):
        run = getattr(self, case["part"])(case)
        self.wait()
        start = time.perf_counter()
        run()
        self.wait()
        seconds = time.perf_counter() - start
        return seconds / case.get("steps", 1) if case["part"] == "unet" else seconds

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def memory(self):
        """The most bytes of a GPU's memory that torch has had since this was last asked; nothing of a CPU."""
        if self.device.type != "cuda":
            return {}
        peak = torch.cuda.max_memory_reserved(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return {"peak_gpu_memory_bytes": peak}

    def prompt(self):
        self.prompts += 1
        return f"a photograph of a red house by a lake, number {self.prompts}"

    def text_encoder(self, case):
        prompt = self.prompt()
        return lambda: self.encode(prompt, guided=False)

    def encode(self, prompt, guided):
        encode = self.pipe.encode_prompt
        return encode(prompt, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=guided)

    def unet(self, case):
        """The loop of the pipeline, with as many pictures as the rows are for."""
        key = (case.get("rows", 2), case["size"])
        if self.moving is None or self.moving.key != key or self.moving.left < case.get("steps", 1):
            self.moving = Moving(self, key)
        return lambda: [self.moving.step() for _ in range(case.get("steps", 1))]

    def vae_decode(self, case):
        side = case["size"] // self.pipe.vae_scale_factor
        latents = torch.randn(1, 4, side, side, device=self.device, dtype=self.dtype)

        def decode():
            image = self.pipe.vae.decode(latents / self.pipe.vae.config.scaling_factor, return_dict=False)[0]
            self.pipe.image_processor.postprocess(image, output_type="pil")

        return decode

    def whole(self, case):
        guided = case.get("guided", True)
        size = {"width": case["size"], "height": case["size"], "num_inference_steps": case["steps"]}
        prompts = [self.prompt() for _ in range(case.get("canvases", 1))]
        return lambda: self.pipe(prompts, guidance_scale=GUIDANCE_SCALE if guided else 0.0, **size)


class Moving:
    """Pictures in the middle of their steps."""

    LONG = 150

    def __init__(self, side, key):
        rows, size = key
        self.key, self.pipe, self.at = key, side.pipe, 0
        self.guided = rows % 2 == 0
        self.scheduler = side.pipe.scheduler
        self.scheduler.set_timesteps(self.LONG, device=side.device)
        cells = size // side.pipe.vae_scale_factor
        pictures = rows // 2 if self.guided else rows
        self.latents = torch.randn(pictures, 4, cells, cells, device=side.device, dtype=side.dtype)
        self.condition(side, rows, size)

    def condition(self, side, rows, size):
        encoded = side.encode(side.prompt(), guided=False)
        self.embeds = encoded[0].repeat(rows, 1, 1)
        self.added = None
        if side.pipe.unet.config.addition_embed_type == "text_time":
            time_ids = torch.tensor([[size, size, 0, 0, size, size]] * rows, device=side.device, dtype=side.dtype)
            self.added = {"text_embeds": encoded[2].repeat(rows, 1), "time_ids": time_ids}

    @property
    def left(self):
        return self.LONG - self.at

    def step(self):
        timestep = self.scheduler.timesteps[self.at]
        model_input = torch.cat([self.latents] * 2) if self.guided else self.latents
        model_input = self.scheduler.scale_model_input(model_input, timestep)
        unet = self.pipe.unet
        noise_pred = unet(model_input, timestep, self.embeds, added_cond_kwargs=self.added, return_dict=False)[0]
        if self.guided:
            uncond, text = noise_pred.chunk(2)
            noise_pred = uncond + GUIDANCE_SCALE * (text - uncond)
        self.latents = self.scheduler.step(noise_pred, timestep, self.latents, return_dict=False)[0]
        self.at += 1


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    side = Diffusers(options)
    say({"ready": str(options.folder), "device": options.device, "dtype": options.dtype, "threads": torch.get_num_threads()})
    for line in sys.stdin:
        say({"seconds": side.time(json.loads(line)), **side.memory()})


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("device")
    parser.add_argument("dtype")
    parser.add_argument("threads", type=int)
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def say(answer):
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
