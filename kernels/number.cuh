// What every kernel file begins with: the numbers of tables and activations. Each file is compiled after this one, by NVRTC
// as one text and by nvcc through -include, so that no header of CUDA's has to be found at run time.

/// A number of half precision, as it lies in memory.
struct half {
    unsigned short bits;
};

/// Sixteen bytes: what a thread loads and stores at once.
template <typename T>
struct alignas(16) Chunk {
    static constexpr int SIZE = 16 / sizeof(T);
    T numbers[SIZE];
};

__device__ inline float widen(float number) {
    return number;
}

/// What is launched behind this kernel may start from here on, as far as there is room for it, and waits in its turn.
__device__ inline void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Waits for what was launched before this kernel, which may have started before that was done. Until then nothing may be
/// written, and nothing read but what no kernel writes. Loads must not be told that nothing else writes where they read
/// (`__restrict__`), or they could be moved to before this.
__device__ inline void wait_for_earlier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#ifdef __CUDACC__
__device__ inline float widen(half number) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(number.bits));
    return wide;
}

__device__ inline void narrow(float number, half& to) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(number));
}
#else
// Outside of CUDA whoever includes this says how.
float widen(half number);
void narrow(float number, half& to);
#endif

__device__ inline void narrow(float number, float& to) {
    to = number;
}

/// The sum over the 32 lanes of a warp, in each of them.
__device__ inline float warp_sum(float number) {
    for (int distance = 16; distance > 0; distance /= 2) {
        number += __shfl_xor_sync(0xffffffffu, number, distance);
    }
    return number;
}
