"""What a request's shortcuts cost: pictures with `cache_interval`, `guidance_interval` and `fp8_linears` against the exact ones of the same
seeds.

    python tests/parity/shortcuts.py http://127.0.0.1:8080 [RESULT.json [SHORTCUT …]]

Paints 24 pictures of the demo model for each shortcut through a running server (its default size and scheduler), one at a time, the shortcuts
in turn for each picture, and says of each: PSNR against the exact picture (the mean, and the worst), in how many the colour that the prompt
names is there (as `tests/golden/colours.py` counts them), the time of the denoising against the exact picture's (the median of the ratios) and
what part of the UNet's floating-point operations it does, which `torch.utils.flop_counter` counts in diffusers' UNet (those in fp8 are as many).
The shortcuts are all of SHORTCUTS, or those that are named; `fp8_linears` wants a model with that setting. Needs the packages of
`tests/golden/requirements.txt`.
"""

import io
import json
import statistics
import sys
import urllib.request
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
from colours import DEMO, PALETTE, PROMPTS, is_there  # noqa: E402
from maker.deep_cache import DeepCache  # noqa: E402

SEEDS = (1, 2)
STEPS, GUIDANCE = 25, 5.0
SHORTCUTS = {
    "exact": {},
    **{f"cache_interval {n}": {"cache_interval": n} for n in (2, 3, 5)},
    **{f"guidance_interval [{a}, {b}]": {"guidance_interval": [a, b]} for a, b in ((0, 0.8), (0, 0.6), (0.2, 0.8), (0.2, 1))},
    "fp8_linears": {"fp8_linears": True},
    "cache_interval 2, guidance_interval [0, 0.8]": {"cache_interval": 2, "guidance_interval": [0, 0.8]},
}


def paint(server, prompt, seed, shortcut):
    """A picture, and the seconds of its steps."""
    body = {"prompt": prompt, "seed": seed, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "preview_every": 0} | shortcut
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    with urllib.request.urlopen(urllib.request.Request(f"{server}/v1/generate", json.dumps(body).encode(), headers)) as answer:
        job = json.load(answer)
    with urllib.request.urlopen(server + job["images"][0]["url"]) as picture:
        return Image.open(io.BytesIO(picture.read())).convert("RGB"), job["timings"]["denoise_ms"] / 1000


def psnr(picture, exact):
    error = np.mean((np.asarray(picture, float) - np.asarray(exact, float)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def finite(decibels):
    """JSON has no infinity, which is the exact picture's."""
    return float(decibels) if np.isfinite(decibels) else None


@torch.no_grad()
def unet_flops(folder):
    """Of one row of the model's own size: a whole call's, and a shallow one's."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
        sample = torch.empty(1, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
        prompt = torch.empty(1, 77, unet.config.cross_attention_dim)
        DeepCache(unet, 2)
        flops = []
        for _ in range(2):
            with FlopCounterMode(display=False) as counter:
                unet.forward(sample, torch.empty(()), prompt)
            flops.append(counter.get_total_flops())
    return flops


def flops_of(shortcut, whole, shallow):
    """Of all steps; a call is whole where the rows change."""
    start, end = (int(fraction * STEPS) for fraction in shortcut.get("guidance_interval", (0, 1)))
    interval, total, age, before = shortcut.get("cache_interval", 1), 0, 0, None
    for step in range(STEPS):
        rows = 2 if start <= step < end else 1
        age = 0 if rows != before or age + 1 == interval else age + 1
        total, before = total + rows * (shallow if age else whole), rows
    return total


def main():
    server = sys.argv[1].rstrip("/")
    named = ["exact", *sys.argv[3:]] if len(sys.argv) > 3 else list(SHORTCUTS)
    whole, shallow = unet_flops(DEMO / "unet")
    print(f"a shallow call of the demo model's UNet has {shallow / whole:.3f} of a whole one's operations")
    seen = {name: [] for name in named}
    paint(server, PROMPTS[0], 0, {})
    for prompt in PROMPTS:
        colour = next(word for word in prompt.split() if word in PALETTE)
        for seed in SEEDS:
            painted = {name: paint(server, prompt, seed, SHORTCUTS[name]) for name in named}
            exact, seconds = painted["exact"]
            for name, (picture, own) in painted.items():
                seen[name].append((psnr(picture, exact), is_there(picture, colour), own / seconds))
    result = {}
    for name, pictures in seen.items():
        fidelity, colours, times = zip(*pictures)
        result[name] = {
            "psnr_mean": finite(np.mean(fidelity)),
            "psnr_worst": finite(min(fidelity)),
            "colours": int(sum(colours)),
            "pictures": len(pictures),
            "time": statistics.median(times),
            "flops": flops_of(SHORTCUTS[name], whole, shallow) / flops_of({}, whole, shallow),
        }
        row = result[name]
        print(
            f"| {name} | {np.mean(fidelity):.1f} | {min(fidelity):.1f} | {row['colours']} of {row['pictures']} "
            f"| {row['flops']:.2f} | {row['time']:.2f} |"
        )
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps({"steps": STEPS, "guidance_scale": GUIDANCE, "shortcuts": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
