// What Easel asks of libtorch's CUDA half that its C++ interface offers and tch does not: graphs, streams, events, attention's kernels and
// how much memory there was at most. Host code only: a C++ compiler builds it from the headers of the wheels (.cargo/libtorch_shim.sh) into
// libeasel_cuda.so, which src/sys/cuda/ loads behind libtorch_cuda.so. ATen/cuda/CUDAContext.h is not included: it wants CUDA's C++ library.
//
// Every function that can fail answers null or what went wrong, in a text that the thread's next call overwrites. `tensor` is an `at::Tensor *` as tch keeps it.

#include <ATen/Context.h>
#include <ATen/Tensor.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Event.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <string>

#define EASEL extern "C" __attribute__((visibility("default")))

namespace {

template <class F>
const char *guarded(F &&body) noexcept {
    static thread_local std::string problem;
    try {
        body();
        return nullptr;
    } catch (const c10::Error &error) {
        problem = error.what_without_backtrace();
    } catch (const std::exception &error) {
        problem = error.what();
    } catch (...) {
        problem = "an error that says nothing";
    }
    return problem.c_str();
}

// A stream as Rust holds it.
struct Stream {
    int64_t id;
    int64_t device;
};

c10::cuda::CUDAStream unpacked(Stream stream) {
    return c10::cuda::CUDAStream::unpack3(stream.id, static_cast<c10::DeviceIndex>(stream.device), c10::DeviceType::CUDA);
}

Stream packed(const c10::cuda::CUDAStream &stream) {
    const auto parts = stream.pack3();
    return {parts.stream_id, parts.device_index};
}

// The name of a pool of memory as Rust holds it.
struct Pool {
    uint64_t first;
    uint64_t second;
};

at::cuda::MempoolId_t unpacked(Pool pool) { return {pool.first, pool.second}; }

} // namespace

// Goes up with every change of this interface.
EASEL int32_t easel_cuda_interface() { return 3; }

EASEL const char *easel_stream_new(int64_t device, Stream *stream) {
    return guarded([&] { *stream = packed(c10::cuda::getStreamFromPool(false, static_cast<c10::DeviceIndex>(device))); });
}

// The device becomes the thread's own: recordings, and what the driver itself launches, are the current device's, whatever the stream's is.
EASEL const char *easel_stream_current(int64_t device, Stream *stream) {
    return guarded([&] {
        const auto index = static_cast<c10::DeviceIndex>(device);
        c10::cuda::set_device(index);
        *stream = packed(c10::cuda::getCurrentCUDAStream(index));
    });
}

EASEL const char *easel_stream_make_current(Stream stream) {
    return guarded([&] { c10::cuda::setCurrentCUDAStream(unpacked(stream)); });
}

// The driver's name of a stream, for what is launched by the driver itself.
EASEL const char *easel_stream_handle(Stream stream, void **handle) {
    return guarded([&] { *handle = unpacked(stream).stream(); });
}

// The memory of `tensor` is not given to others before what `stream` has been told so far is done.
EASEL const char *easel_stream_uses(Stream stream, const at::Tensor *tensor) {
    return guarded([&] { c10::cuda::CUDACachingAllocator::recordStream(tensor->storage().data_ptr(), unpacked(stream)); });
}

// One that keeps no time costs the device less.
EASEL const char *easel_event_new(Stream stream, int32_t keeps_time, c10::Event **event) {
    return guarded([&] {
        const auto flag = keeps_time != 0 ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT;
        auto made = std::make_unique<c10::Event>(c10::DeviceType::CUDA, flag);
        made->record(unpacked(stream));
        *event = made.release();
    });
}

EASEL const char *easel_event_block(const c10::Event *event, Stream stream) {
    return guarded([&] { event->block(unpacked(stream)); });
}

EASEL const char *easel_event_query(const c10::Event *event, int32_t *is_done) {
    return guarded([&] { *is_done = event->query() ? 1 : 0; });
}

EASEL const char *easel_event_wait(const c10::Event *event) {
    return guarded([&] { event->synchronize(); });
}

// Between two events that keep time and that the device has come to.
EASEL const char *easel_event_elapsed(const c10::Event *from, const c10::Event *to, double *milliseconds) {
    return guarded([&] { *milliseconds = from->elapsedTime(*to); });
}

EASEL void easel_event_free(c10::Event *event) { delete event; }

// A new pool. One whose graphs have all gone takes no more of them: libtorch refuses it.
EASEL const char *easel_graph_pool(Pool *pool) {
    return guarded([&] {
        const auto made = at::cuda::graph_pool_handle();
        *pool = {made.first, made.second};
    });
}

// Begins to record what the current stream is told, which must not be the default stream. Other threads go on as they like.
EASEL const char *easel_graph_begin(Pool pool, at::cuda::CUDAGraph **graph) {
    return guarded([&] {
        auto made = std::make_unique<at::cuda::CUDAGraph>();
        made->capture_begin(unpacked(pool), cudaStreamCaptureModeThreadLocal);
        *graph = made.release();
    });
}

// Where the recording has failed, libtorch leaves its allocator as if it still went on, and the pool as if it had this graph, so that its memory
// never came back. Where only what comes behind the recording has failed, the allocator refuses to end it again, and nothing is released twice.
EASEL const char *easel_graph_end(at::cuda::CUDAGraph *graph, Pool pool) {
    return guarded([&] {
        try {
            graph->capture_end();
        } catch (...) {
            const auto device = c10::cuda::getCurrentCUDAStream().device_index();
            guarded([&] {
                c10::cuda::CUDACachingAllocator::endAllocateToPool(device, unpacked(pool));
                c10::cuda::CUDACachingAllocator::releasePool(device, unpacked(pool));
            });
            throw;
        }
    });
}

EASEL const char *easel_graph_replay(at::cuda::CUDAGraph *graph) {
    return guarded([&] { graph->replay(); });
}

EASEL void easel_graph_free(at::cuda::CUDAGraph *graph) {
    guarded([&] { delete graph; });
}

// Which of attention's kernels may be used: bits 1 flash, 2 memory-efficient, 4 cuDNN, 8 plain.
EASEL const char *easel_attention_kernels(int32_t allowed) {
    return guarded([&] {
        auto &context = at::globalContext();
        context.setSDPUseFlash((allowed & 1) != 0);
        context.setSDPUseMemEfficient((allowed & 2) != 0);
        context.setSDPUseCuDNN((allowed & 4) != 0);
        context.setSDPUseMath((allowed & 8) != 0);
    });
}

// Bytes that libtorch has taken of the device's memory: now, and at most since the last reset.
EASEL const char *easel_memory_reserved(int64_t device, int64_t *now, int64_t *peak) {
    return guarded([&] {
        const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
        *now = stats.reserved_bytes[0].current;
        *peak = stats.reserved_bytes[0].peak;
    });
}

EASEL const char *easel_memory_reset_peak(int64_t device) {
    return guarded([&] { c10::cuda::CUDACachingAllocator::resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}
