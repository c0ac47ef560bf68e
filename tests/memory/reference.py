"""diffusers' side: says `ready`, loads when told to, says `loaded`, paints when told to, says `painted`.

A process of its own, whose memory run.py reads from outside, as it does the server's. Arguments: folder, dtype, threads, side, steps.
"""

import sys

import torch
from diffusers import DiffusionPipeline


def main():
    folder, dtype, threads, side, steps = sys.argv[1:]
    torch.set_num_threads(int(threads))
    turn("ready")
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    turn("loaded")
    generator = torch.Generator("cpu").manual_seed(7)
    size = {"width": int(side), "height": int(side)}
    pipe("a red house", num_inference_steps=int(steps), guidance_scale=7.5, generator=generator, **size)
    turn("painted")


def turn(word):
    """Says what is done, and waits for the word to go on."""
    print(word, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
