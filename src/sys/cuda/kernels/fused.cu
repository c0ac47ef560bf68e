// Element-wise work of the networks in one pass over memory instead of several, for tensors in channels-last layout. Compiled at start for
// the GPU that is there (NVRTC, no header needed); the tests compile the same text for the CPU with emulator.h before it.
//
// All of it is bound by memory: 16 bytes a thread and access, neighbours in neighbouring threads, arithmetic in float32.

struct bf16 {
    unsigned short bits;
};
struct f16 {
    unsigned short bits;
};
// A sign, four bits of exponent, three of mantissa; 448 at most, and nothing infinite.
struct e4m3 {
    unsigned char bits;
};

// ---- numbers -------------------------------------------------------------------------------------------------------------------

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(bf16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }
__device__ inline float to_float(f16 value) { return half_to_float(value.bits); }

__device__ inline void put(float &place, float value) { place = value; }
__device__ inline void put(f16 &place, float value) { place.bits = float_to_half(value); }
// To the nearest, ties to even; what is no number stays none.
__device__ inline void put(bf16 &place, float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(place.bits) : "f"(value));
#else
    const unsigned bits = __float_as_uint(value);
    const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    place.bits = static_cast<unsigned short>(value == value ? rounded : 0x7fffu);
#endif
}

// To the nearest, ties to even, of numbers up to 464; what is no number stays none.
__device__ inline void put(e4m3 &place, float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
    unsigned short pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(value));
    place.bits = static_cast<unsigned char>(pair);
#else
    const unsigned bits = __float_as_uint(value), sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
    unsigned rounded;
    if (value != value) {
        rounded = 0x7fu;
    } else if (magnitude < 0x3c800000u) {
        // Below 2⁻⁶ the steps are all of 2⁻⁹, which is the last bit of a float32 from 2¹⁴ on.
        rounded = __float_as_uint(__uint_as_float(magnitude) + 16384.0f) - 0x46800000u;
    } else {
        rounded = (magnitude - (120u << 23) + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20;
    }
    place.bits = static_cast<unsigned char>(rounded | sign);
#endif
}

// What one thread reads or writes at a time.
template <class T>
struct alignas(16) Pack {
    static constexpr int width = 16 / sizeof(T);
    T values[width];
};

template <class T>
__device__ inline Pack<T> load(const T *from) {
    return *reinterpret_cast<const Pack<T> *>(from);
}

template <class T>
__device__ inline void store(T *to, const Pack<T> &pack) {
    *reinterpret_cast<Pack<T> *>(to) = pack;
}

// ---- group norm ----------------------------------------------------------------------------------------------------------------

// A feature map [samples, cells, channels] and how a launch divides it: blockIdx.x counts pieces of `cells_per_block` cells, blockIdx.y
// samples; threadIdx.x counts packs of channels, threadIdx.y cells.
struct FeatureMap {
    int cells;
    int channels;
    int groups;
    int cells_per_block;
};

// What is added to a sample's channels before the norm; zeros where there is nothing.
template <class T>
__device__ inline float shift_of(const T *shift, const FeatureMap &map, int channel) {
    return shift == nullptr ? 0.0f : to_float(shift[static_cast<long long>(blockIdx.y) * map.channels + channel]);
}

// A number near a group's values, subtracted before they are squared: without it a mean that is large beside the deviation would leave
// nothing of the variance. The group's first value in this sample serves.
template <class T>
__device__ inline float pivot_of(const T *x, const T *shift, const FeatureMap &map, int group) {
    const int channel = group * (map.channels / map.groups);
    const long long sample = static_cast<long long>(blockIdx.y) * map.cells * map.channels;
    return to_float(x[sample + channel]) + shift_of(shift, map, channel);
}

// Mean and sum of squared deviations of each group in this block's cells: partials [samples, pieces, groups, 2].
template <class T>
__device__ inline void group_norm_statistics(const T *__restrict__ x, const T *__restrict__ shift, float *__restrict__ partials, FeatureMap map) {
    EASEL_SHARED(memory); // [blockDim.y, channels] sums, then as many squares
    constexpr int width = Pack<T>::width;
    const int first = threadIdx.x * width, per_group = map.channels / map.groups;
    const int begin = blockIdx.x * map.cells_per_block, end = min(begin + map.cells_per_block, map.cells);
    const T *sample = x + static_cast<long long>(blockIdx.y) * map.cells * map.channels + first;

    float offset[width], sum[width], square[width];
    for (int i = 0; i < width; i++) {
        offset[i] = shift_of(shift, map, first + i) - pivot_of(x, shift, map, (first + i) / per_group);
        sum[i] = square[i] = 0.0f;
    }
#pragma unroll 4
    for (int cell = begin + threadIdx.y; cell < end; cell += blockDim.y) {
        const Pack<T> pack = load(sample + static_cast<long long>(cell) * map.channels);
        for (int i = 0; i < width; i++) {
            const float value = to_float(pack.values[i]) + offset[i];
            sum[i] += value;
            square[i] += value * value;
        }
    }

    float *sums = memory, *squares = memory + blockDim.y * map.channels;
    for (int i = 0; i < width; i++) {
        sums[threadIdx.y * map.channels + first + i] = sum[i];
        squares[threadIdx.y * map.channels + first + i] = square[i];
    }
    __syncthreads();
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    for (int channel = thread; channel < map.channels; channel += threads) {
        for (int row = 1; row < static_cast<int>(blockDim.y); row++) {
            sums[channel] += sums[row * map.channels + channel];
            squares[channel] += squares[row * map.channels + channel];
        }
    }
    __syncthreads();
    for (int group = thread; group < map.groups; group += threads) {
        float total = 0.0f, total_square = 0.0f;
        for (int channel = group * per_group; channel < (group + 1) * per_group; channel++) {
            total += sums[channel];
            total_square += squares[channel];
        }
        const float mean = total / (static_cast<float>(end - begin) * per_group);
        float *place = partials + ((static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x) * map.groups + group) * 2;
        place[0] = mean + pivot_of(x, shift, map, group);
        place[1] = fmaxf(total_square - total * mean, 0.0f);
    }
}

// Adds up what the threads hold for their group (thread % groups); every thread gets its group's sum. `memory` has a float a thread.
__device__ inline float sum_of_group(float *memory, float value, const FeatureMap &map) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, lanes = blockDim.x * blockDim.y / map.groups;
    __syncthreads();
    memory[thread] = value;
    __syncthreads();
    float sum = 0.0f;
    for (int lane = 0; lane < lanes; lane++) sum += memory[lane * map.groups + thread % map.groups];
    return sum;
}

// out = act((x + shift − mean) / deviation · weight + bias), with the pieces' statistics brought together first (Chan et al., 1983). Needs
// at least as many threads as groups.
template <class T>
__device__ inline void group_norm_apply(const T *__restrict__ x, const T *__restrict__ shift, const T *__restrict__ weight,
                                        const T *__restrict__ bias, const float *__restrict__ partials, T *__restrict__ out, FeatureMap map,
                                        float eps, int silu) {
    EASEL_SHARED(memory); // a float a thread, then a mean and a reciprocal deviation a group
    constexpr int width = Pack<T>::width;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    const int lanes = threads / map.groups, group = thread % map.groups, lane = thread / map.groups;
    const int per_group = map.channels / map.groups, pieces = gridDim.x;
    const float *statistics = partials + static_cast<long long>(blockIdx.y) * pieces * map.groups * 2;
    const auto count_of = [&](int piece) { return min(map.cells_per_block, map.cells - piece * map.cells_per_block); };

    // Threads beyond the last whole lane hold nothing.
    float held = 0.0f;
    for (int piece = lane; lane < lanes && piece < pieces; piece += lanes) {
        held += statistics[(piece * map.groups + group) * 2] * count_of(piece);
    }
    const float mean = sum_of_group(memory, held, map) / map.cells;
    held = 0.0f;
    for (int piece = lane; lane < lanes && piece < pieces; piece += lanes) {
        const float *own = statistics + (piece * map.groups + group) * 2;
        held += own[1] + (own[0] - mean) * (own[0] - mean) * count_of(piece) * per_group;
    }
    const float variance = sum_of_group(memory, held, map) / (static_cast<float>(map.cells) * per_group);
    float *means = memory + threads, *reciprocals = means + map.groups;
    if (thread < map.groups) {
        means[group] = mean;
        reciprocals[group] = 1.0f / sqrtf(variance + eps);
    }
    __syncthreads();

    const int first = threadIdx.x * width;
    float centre[width], scale[width], offset[width];
    for (int i = 0; i < width; i++) {
        const int own = (first + i) / per_group;
        centre[i] = means[own] - shift_of(shift, map, first + i);
        scale[i] = reciprocals[own] * to_float(weight[first + i]);
        offset[i] = to_float(bias[first + i]);
    }
    const long long sample = static_cast<long long>(blockIdx.y) * map.cells * map.channels + first;
    const int begin = blockIdx.x * map.cells_per_block, end = min(begin + map.cells_per_block, map.cells);
#pragma unroll 4
    for (int cell = begin + threadIdx.y; cell < end; cell += blockDim.y) {
        const long long place = sample + static_cast<long long>(cell) * map.channels;
        Pack<T> pack = load(x + place);
        for (int i = 0; i < width; i++) {
            const float value = (to_float(pack.values[i]) - centre[i]) * scale[i] + offset[i];
            put(pack.values[i], silu ? value / (1.0f + expf(-value)) : value);
        }
        store(out + place, pack);
    }
}

// ---- the rest ------------------------------------------------------------------------------------------------------------------

// projected [rows, 2 · inner] → out [rows, inner]: the first half times the exact GELU of the second (Shazeer, 2020).
template <class T>
__device__ inline void geglu(const T *__restrict__ projected, T *__restrict__ out, long long packs, int inner) {
    constexpr int width = Pack<T>::width;
    const int packs_a_row = inner / width;
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long index = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; index < packs; index += step) {
        const T *row = projected + index / packs_a_row * 2 * inner + index % packs_a_row * width;
        Pack<T> hidden = load(row);
        const Pack<T> gate = load(row + inner);
        for (int i = 0; i < width; i++) {
            const float value = to_float(gate.values[i]);
            put(hidden.values[i], to_float(hidden.values[i]) * (0.5f * value * (1.0f + erff(value * 0.70710678118654752f))));
        }
        store(out + index * width, hidden);
    }
}

// x += bias + residual, for x [cells, channels]: what a convolution's bias and the connection past it are otherwise two passes for.
template <class T>
__device__ inline void add_bias_residual(T *__restrict__ x, const T *__restrict__ bias, const T *__restrict__ residual, long long packs,
                                         int channels) {
    constexpr int width = Pack<T>::width;
    const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long index = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; index < packs; index += step) {
        Pack<T> sum = load(x + index * width);
        const Pack<T> own_bias = load(bias + index % (channels / width) * width), past = load(residual + index * width);
        for (int i = 0; i < width; i++) {
            put(sum.values[i], to_float(sum.values[i]) + to_float(own_bias.values[i]) + to_float(past.values[i]));
        }
        store(x + index * width, sum);
    }
}

// Each row of x [rows, width], one a block, scaled so that its largest magnitude, or `least`, becomes 448: out [rows, width], and in
// scales [rows] what the row's values are multiples of. The number of threads is a power of two.
template <class T>
__device__ inline void scale_rows(const T *__restrict__ x, e4m3 *__restrict__ out, float *__restrict__ scales, int width, float least) {
    EASEL_SHARED(memory); // a float a thread
    constexpr int pack_width = Pack<T>::width;
    const long long first = static_cast<long long>(blockIdx.x) * width;
    const int thread = threadIdx.x, packs = width / pack_width;
    float largest = 0.0f;
    for (int pack = thread; pack < packs; pack += blockDim.x) {
        const Pack<T> values = load(x + first + pack * pack_width);
        for (int i = 0; i < pack_width; i++) largest = fmaxf(largest, fabsf(to_float(values.values[i])));
    }
    memory[thread] = largest;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) memory[thread] = fmaxf(memory[thread], memory[thread + half]);
    }
    __syncthreads();
    largest = fmaxf(memory[0], least);
    const float factor = 448.0f / largest;
    // The row is still in the cache.
    for (int pack = thread; pack < packs; pack += blockDim.x) {
        const Pack<T> values = load(x + first + pack * pack_width);
        struct alignas(pack_width) {
            e4m3 values[pack_width];
        } scaled;
        for (int i = 0; i < pack_width; i++) put(scaled.values[i], to_float(values.values[i]) * factor);
        *reinterpret_cast<decltype(scaled) *>(out + first + pack * pack_width) = scaled;
    }
    if (thread == 0) scales[blockIdx.x] = largest / 448.0f;
}

// One kernel of each for every dtype, by names that a program can ask for.
#define EASEL_KERNELS(T)                                                                                                               \
    extern "C" __global__ void group_norm_statistics_##T(const T *x, const T *shift, float *partials, FeatureMap map) {                \
        group_norm_statistics(x, shift, partials, map);                                                                                \
    }                                                                                                                                  \
    extern "C" __global__ void group_norm_apply_##T(const T *x, const T *shift, const T *weight, const T *bias, const float *partials, \
                                                    T *out, FeatureMap map, float eps, int silu) {                                     \
        group_norm_apply(x, shift, weight, bias, partials, out, map, eps, silu);                                                       \
    }                                                                                                                                  \
    extern "C" __global__ void geglu_##T(const T *projected, T *out, long long packs, int inner) {                                     \
        geglu(projected, out, packs, inner);                                                                                           \
    }                                                                                                                                  \
    extern "C" __global__ void add_bias_residual_##T(T *x, const T *bias, const T *residual, long long packs, int channels) {          \
        add_bias_residual(x, bias, residual, packs, channels);                                                                         \
    }                                                                                                                                  \
    extern "C" __global__ void scale_rows_##T(const T *x, e4m3 *out, float *scales, int width, float least) {                          \
        scale_rows(x, out, scales, width, least);                                                                                      \
    }

EASEL_KERNELS(float)
EASEL_KERNELS(bf16)
EASEL_KERNELS(f16)
