// Runs the kernels on the processor: a thread of the system for each of a block's, one block after the other. It knows
// of CUDA what the kernels use, so that their results can be tested where there is no GPU; of time it says nothing.

#include <algorithm>
#include <barrier>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#define __device__
#define __global__
// Blocks run one after the other, so what a block shares can outlive it.
#define __shared__ static

struct Index {
    unsigned x;
};

static thread_local Index blockIdx, threadIdx;
static Index blockDim;

// A warp's threads meet twice for each shuffle: after they have written, and after they have read.
struct Warp {
    std::barrier<> meeting{32};
    float numbers[32];
};

static thread_local Warp* warp;
static std::barrier<>* block_meeting;

static void __syncthreads() {
    block_meeting->arrive_and_wait();
}

static unsigned __float_as_uint(float number) {
    return std::bit_cast<unsigned>(number);
}

static float __shfl_xor_sync(unsigned mask, float number, int distance) {
    if (mask != 0xffffffffu) {
        std::abort();
    }
    const unsigned lane = threadIdx.x % 32;
    warp->numbers[lane] = number;
    warp->meeting.arrive_and_wait();
    const float other = warp->numbers[lane ^ static_cast<unsigned>(distance)];
    warp->meeting.arrive_and_wait();
    return other;
}

#include "../number.cuh"

float widen(half number) {
    const int exponent = number.bits >> 10 & 31;
    const float fraction = static_cast<float>(number.bits & 1023);
    const float size = exponent == 0    ? std::ldexp(fraction, -24)
                       : exponent == 31 ? (fraction == 0.0f ? INFINITY : NAN)
                                        : std::ldexp(1024.0f + fraction, exponent - 25);
    return number.bits >> 15 ? -size : size;
}

void narrow(float number, half& to) {
    const std::uint16_t sign = std::signbit(number) ? 0x8000 : 0;
    const float size = std::fabs(number);
    if (std::isnan(number)) {
        to.bits = 0x7fff;
    } else if (size >= 65520.0f) {
        to.bits = sign | 0x7c00;
    } else {
        // In units of the last place, to the nearest, and to the even one of two; a carry goes on into the exponent.
        const int exponent = std::max(size == 0.0f ? -14 : std::ilogb(size), -14);
        const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
        to.bits = sign | static_cast<std::uint16_t>((exponent + 14) * 1024 + steps);
    }
}

#include "../cross.cu"
#include "../dense.cu"
#include "../gather.cu"
#include "../head.cu"
#include "../pairs.cu"
#include "../topk.cu"

template <typename... A, std::size_t... I>
static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(arguments[I])...);
}

template <typename... A>
static void launch(void (*kernel)(A...), unsigned grid, unsigned block, void** arguments) {
    blockDim.x = block;
    for (unsigned number = 0; number < grid; ++number) {
        std::vector<Warp> warps((block + 31) / 32);
        std::barrier<> meeting(block);
        block_meeting = &meeting;
        std::vector<std::thread> threads;
        for (unsigned thread = 0; thread < block; ++thread) {
            threads.emplace_back([&, thread] {
                blockIdx.x = number;
                threadIdx.x = thread;
                warp = &warps[thread / 32];
                call(kernel, arguments, std::index_sequence_for<A...>());
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
    }
}

/// Runs a kernel as `cuLaunchKernel` does: each argument is a pointer to its value. Returns 0, or 1 where there is no
/// such kernel.
extern "C" int emulate(const char* name, unsigned grid, unsigned block, void** arguments) {
#define KERNEL(kernel)                                \
    if (std::string_view(name) == #kernel) {          \
        launch(kernel, grid, block, arguments);       \
        return 0;                                     \
    }
    KERNEL(gather_f32)
    KERNEL(gather_f16)
    KERNEL(cross_f32)
    KERNEL(cross_f16)
    KERNEL(dense_1_f32)
    KERNEL(dense_1_f16)
    KERNEL(dense_8_f32)
    KERNEL(dense_8_f16)
    KERNEL(head_f32)
    KERNEL(head_f16)
    KERNEL(pairs)
    KERNEL(topk_items)
    KERNEL(topk_keys)
#undef KERNEL
    return 1;
}
