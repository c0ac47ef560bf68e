// Runs fused.cu on a CPU, for the tests: a thread of the machine for each thread of a block, one block after the other. Put before it;
// `easel_emulate` is behind it, in emulator_end.h.

#include <algorithm>
#include <barrier>
#include <bit>
#include <math.h>
#include <cstring>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define EASEL_SHARED(name) float *name = emulated_memory

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;
static float *emulated_memory;
static std::barrier<> *emulated_barrier;

static void __syncthreads() { emulated_barrier->arrive_and_wait(); }
static float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
static unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
static float half_to_float(unsigned short bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }
static unsigned short float_to_half(float value) { return std::bit_cast<unsigned short>(static_cast<_Float16>(value)); }
using std::min;
