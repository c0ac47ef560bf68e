// Put behind fused.cu: starts a kernel by its name, with the driver's way of giving arguments.

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(arguments[I])...);
}

template <class... A>
static void emulate(void (*kernel)(A...), Index grid, Index block, size_t shared_bytes, void **arguments) {
    // What was in a GPU's shared memory before is not zeros either.
    std::vector<float> memory(shared_bytes / sizeof(float), nanf(""));
    const long threads = static_cast<long>(block.x) * block.y;
    std::barrier<> barrier(threads);
    emulated_memory = memory.data(), emulated_barrier = &barrier, blockDim = block, gridDim = grid;
    std::vector<std::thread> running;
    for (long thread = 0; thread < threads; thread++) {
        running.emplace_back([=, &barrier] {
            threadIdx = {static_cast<unsigned>(thread % block.x), static_cast<unsigned>(thread / block.x), 0};
            for (unsigned at = 0; at < grid.x * grid.y; at++) {
                blockIdx = {at % grid.x, at / grid.x, 0};
                call(kernel, arguments, std::index_sequence_for<A...>());
                barrier.arrive_and_wait();
            }
        });
    }
    for (auto &thread : running) thread.join();
}

// grid and block are [x, y]. Answers 0 for a kernel that is not there. One call at a time.
extern "C" int easel_emulate(const char *name, const unsigned *grid, const unsigned *block, unsigned shared_bytes, void **arguments) {
    const Index blocks{grid[0], grid[1], 1}, threads{block[0], block[1], 1};
#define EASEL_EMULATE(kernel)                                                                                                          \
    if (std::strcmp(name, #kernel) == 0) return emulate(kernel, blocks, threads, shared_bytes, arguments), 1;
#define EASEL_EMULATE_ALL(T)                                                                                                           \
    EASEL_EMULATE(group_norm_statistics_##T)                                                                                           \
    EASEL_EMULATE(group_norm_apply_##T)                                                                                                \
    EASEL_EMULATE(geglu_##T)                                                                                                           \
    EASEL_EMULATE(add_bias_residual_##T)                                                                                               \
    EASEL_EMULATE(scale_rows_##T)
    EASEL_EMULATE_ALL(float)
    EASEL_EMULATE_ALL(bf16)
    EASEL_EMULATE_ALL(f16)
    return 0;
}
