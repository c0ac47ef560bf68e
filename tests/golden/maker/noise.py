"""`noise.json`: the noise of both sources. Each case has a seed and the draws that follow each other from one generator.

- `cases`: torch's CPU noise, `torch.randn(count, generator=torch.Generator("cpu").manual_seed(seed))` in float32. Counts below 16,
  and counts that 16 does not divide, take other paths in torch. Seeds are masked to 32 bits there: seed 2^32 + 7 draws what 7 draws.
- `philox`: what AUTOMATIC1111 draws on a GPU, by philox.py beside this file. There seed 2^32 + 7 is another seed than 7.
"""

import numpy
import torch

from . import philox
from .paths import write_json

SEEDS = [0, 7, 2**32 + 7, 2**53 - 1]
SINGLE_DRAWS = [[3], [15], [16], [17], [24], [100], [1024]]
# An odd count below 16 leaves half a Box-Muller pair, which the next draw from the same generator may or may not use.
CONSECUTIVE_DRAWS = [[3, 3], [5, 16, 3], [24, 24], [17, 15], [15, 1, 100]]
PHILOX_DRAWS = [[12], [1, 64, 1], [5, 5, 5, 5, 5, 5]]


def make():
    cases = [case(seed, counts) for seed in SEEDS for counts in SINGLE_DRAWS]
    cases += [case(7, counts) for counts in CONSECUTIVE_DRAWS]
    philox_cases = [philox_case(seed, counts) for seed in SEEDS for counts in PHILOX_DRAWS]
    write_json("noise.json", {"dtype": "float32", "cases": cases, "philox": philox_cases})


def case(seed, counts):
    generator = torch.Generator("cpu").manual_seed(seed)
    draws = [shortest(torch.randn(count, generator=generator, dtype=torch.float32)) for count in counts]
    return {"seed": seed, "draws": draws}


def philox_case(seed, counts):
    draws = [shortest(philox.randn(seed, draw, count)) for draw, count in enumerate(counts)]
    return {"seed": seed, "draws": draws}


def shortest(numbers):
    """The shortest decimals that read back as the same float32 numbers."""
    return [float(numpy.format_float_positional(number, unique=True)) for number in numpy.asarray(numbers)]
