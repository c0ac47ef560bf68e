"""`noise.json`: torch's CPU noise, `torch.randn(count, generator=torch.Generator("cpu").manual_seed(seed))` in float32.

Each case has a seed and the draws that follow each other from one generator. Counts below 16, and counts that 16 does not
divide, take other paths in torch. Seeds are masked to 32 bits there: seed 2^32 + 7 draws what 7 draws.
"""

import numpy
import torch

from .paths import write_json

SEEDS = [0, 7, 2**32 + 7, 2**53 - 1]
SINGLE_DRAWS = [[3], [15], [16], [17], [24], [100], [1024]]
# An odd count below 16 leaves half a Box-Muller pair, which the next draw from the same generator may or may not use.
CONSECUTIVE_DRAWS = [[3, 3], [5, 16, 3], [24, 24], [17, 15], [15, 1, 100]]


def make():
    cases = [case(seed, counts) for seed in SEEDS for counts in SINGLE_DRAWS]
    cases += [case(7, counts) for counts in CONSECUTIVE_DRAWS]
    write_json("noise.json", {"dtype": "float32", "cases": cases})


def case(seed, counts):
    generator = torch.Generator("cpu").manual_seed(seed)
    draws = [shortest(torch.randn(count, generator=generator, dtype=torch.float32)) for count in counts]
    return {"seed": seed, "draws": draws}


def shortest(tensor):
    """The shortest decimals that read back as the same float32 numbers."""
    return [float(numpy.format_float_positional(number, unique=True)) for number in tensor.numpy()]
