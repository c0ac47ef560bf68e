"""torch's CUDA noise without a GPU, from the generator's paper (Salmon et al., 2011) in whole Python numbers.

The counter's words are the draw's number (2 words) and the number's place in the draw (2 words); the key is the seed. The first two
words of each block become one normal number by Box-Muller, with CUDA's float32 constants in float64, as AUTOMATIC1111 calculates.
"""

import math

import numpy

WORD = 2**32
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
UNIT = float(numpy.float32(2.3283064e-10))
UNIT_TURN = float(numpy.float32(2.3283064e-10 * 6.2831855))


def randn(seed, draw, count):
    """The float32 numbers of the draw with this number (the first is 0) from a generator of this seed."""
    blocks = (block(draw + (place << 64), seed) for place in range(count))
    return [numpy.float32(normal(words % WORD, words // WORD % WORD)) for words in blocks]


def block(counter, key):
    """Ten rounds of Philox4x32 on a counter of 128 bits with a key of 64, the lowest word first."""
    x = [counter >> (32 * word) & (WORD - 1) for word in range(4)]
    for number in range(10):
        keys = [(key >> (32 * lane) & (WORD - 1)) + number * KEY_STEPS[lane] & (WORD - 1) for lane in range(2)]
        products = [x[0] * MULTIPLIERS[0], x[2] * MULTIPLIERS[1]]
        x = [
            products[1] // WORD ^ x[1] ^ keys[0],
            products[1] % WORD,
            products[0] // WORD ^ x[3] ^ keys[1],
            products[0] % WORD,
        ]
    return sum(word << (32 * place) for place, word in enumerate(x))


def normal(first, second):
    """Box-Muller on two words; `_curand_box_muller`'s first result."""
    radius = math.sqrt(-2 * math.log(first * UNIT + UNIT / 2))
    return radius * math.sin(second * UNIT_TURN + UNIT_TURN / 2)
