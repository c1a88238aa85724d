// Dense: a layer of few rows, where its weights are all that counts: output = input * weights + bias.
//
//   input    [rows, pitch]     of 16 bytes, with zeros at the end
//   rows     at most the number in the kernel's name
//   weights  [outputs, pitch]  of 16 bytes: those of each output side by side, with zeros at the end
//   bias     [outputs]
//   relu     1 where negative numbers are made zero, 0 where they are kept
//   output   [rows, outputs]   out
//
// Launch: one warp an output, blocks of one dimension and a multiple of 32 threads. `input` and `weights` are 16-byte
// aligned. Weights are read before anything is waited for, so no kernel may write them; sums are in single precision.

template <typename T, int ROWS>
struct Sums {
    float numbers[ROWS];

    /// Adds the products of a chunk of weights with the same chunk of every row.
    __device__ void add(const Chunk<T>& weights, const Chunk<T>* input, int rows, int pitch) {
        float wide[Chunk<T>::SIZE];
        for (int i = 0; i < Chunk<T>::SIZE; ++i) {
            wide[i] = widen(weights.numbers[i]);
        }
        for (int row = 0; row < ROWS; ++row) {
            if (row < rows) {
                const Chunk<T> chunk = input[static_cast<unsigned long long>(row) * pitch];
                for (int i = 0; i < Chunk<T>::SIZE; ++i) {
                    numbers[row] += wide[i] * widen(chunk.numbers[i]);
                }
            }
        }
    }
};

template <typename T, int ROWS>
__device__ void dense(
    const Chunk<T>* input, int rows, int pitch, const Chunk<T>* weights, const T* bias, int outputs, int relu, T* output
) {
    // Chunks that a lane asks for before it waits: all of a row of 2,048 halves, or of 1,024 numbers of single precision.
    constexpr int AHEAD = 8;
    const unsigned warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x % 32);
    let_next_start();
    // The same for all lanes of a warp, which meet again in the sums.
    if (warp >= static_cast<unsigned>(outputs)) {
        return;
    }
    const Chunk<T>* of_output = weights + static_cast<unsigned long long>(warp) * pitch;
    Chunk<T> ahead[AHEAD];
    for (int i = 0; i < AHEAD; ++i) {
        if (lane + i * 32 < pitch) {
            ahead[i] = of_output[lane + i * 32];
        }
    }
    wait_for_earlier();
    Sums<T, ROWS> sums = {};
    for (int i = 0; i < AHEAD; ++i) {
        if (lane + i * 32 < pitch) {
            sums.add(ahead[i], input + lane + i * 32, rows, pitch);
        }
    }
    for (int place = lane + AHEAD * 32; place < pitch; place += 32) {
        sums.add(of_output[place], input + place, rows, pitch);
    }
    float mine = 0.0f;
    for (int row = 0; row < ROWS; ++row) {
        const float sum = warp_sum(sums.numbers[row]);
        mine = lane == row ? sum : mine;
    }
    if (lane < rows) {
        mine += widen(bias[warp]);
        narrow(relu && mine < 0.0f ? 0.0f : mine, output[static_cast<unsigned long long>(lane) * outputs + warp]);
    }
}

extern "C" __global__ void dense_1_f32(
    const Chunk<float>* input, int rows, int pitch, const Chunk<float>* weights, const float* bias, int outputs, int relu,
    float* output
) {
    dense<float, 1>(input, rows, pitch, weights, bias, outputs, relu, output);
}

extern "C" __global__ void dense_1_f16(
    const Chunk<half>* input, int rows, int pitch, const Chunk<half>* weights, const half* bias, int outputs, int relu,
    half* output
) {
    dense<half, 1>(input, rows, pitch, weights, bias, outputs, relu, output);
}

extern "C" __global__ void dense_8_f32(
    const Chunk<float>* input, int rows, int pitch, const Chunk<float>* weights, const float* bias, int outputs, int relu,
    float* output
) {
    dense<float, 8>(input, rows, pitch, weights, bias, outputs, relu, output);
}

extern "C" __global__ void dense_8_f16(
    const Chunk<half>* input, int rows, int pitch, const Chunk<half>* weights, const half* bias, int outputs, int relu,
    half* output
) {
    dense<half, 8>(input, rows, pitch, weights, bias, outputs, relu, output);
}
