"""Makes the golden files beside this script from diffusers, the reference that Easel is held against.

Run it from the project's root, in a virtual environment of its own (some 10 minutes on two cores):

    python3 -m venv .venv && .venv/bin/pip install -r tests/golden/requirements.txt
    .venv/bin/pip install --no-deps -r tests/golden/requirements-samplers.txt
    .venv/bin/python tests/golden/make.py            # everything
    .venv/bin/python tests/golden/make.py noise      # one part: noise, tokens, prompts, schedulers, layers, tiny, pictures

Each part says in its own file under `maker/` what it writes and what it holds. Everything runs on the CPU in float32 (the
schedulers in float64), on one thread, without downloading anything: the models are `models/demo` and the small ones with
random weights that the part `tiny` makes. `flops`, `pictures` and `inpainting` need what `tiny` has made.
"""

import importlib
import sys

import torch

PARTS = ["noise", "tokens", "prompts", "schedulers", "layers", "tiny", "tiny_latent", "latent", "flops", "pictures", "inpainting", "families"]


def main():
    wanted = sys.argv[1:] or PARTS
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        sys.exit(f"no part is named {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    for part in wanted:
        print(f"making {part}", flush=True)
        importlib.import_module(f"maker.{part}").make()


if __name__ == "__main__":
    main()
