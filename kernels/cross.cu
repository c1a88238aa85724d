// Cross: what a cross layer of DCN-v2 does with its product, number by number: sum = first * sum + input.
//
//   rows   one word        how many rows there are, at most what the grid is made for
//   first  [rows, pitch]   of 16 bytes, what the first layer sees
//   input  [rows, pitch]   of 16 bytes, what this layer sees, which for the first one is `first` itself
//   sum    [rows, pitch]   of 16 bytes, in: the layer's product with its bias; out: what it comes to
//
// Launch: one thread a chunk of `sum`, blocks of one dimension, any size. All chunks are 16-byte aligned. Threads of rows
// that are not there end at once. Threads are counted in 32 bits: rows times pitch is below 2^31.

template <typename T>
__device__ void cross(
    const unsigned* rows, const Chunk<T>* first, const Chunk<T>* input, int pitch, Chunk<T>* sum
) {
    let_next_start();
    wait_for_earlier();
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= *rows * static_cast<unsigned>(pitch)) {
        return;
    }
    const Chunk<T> left = first[thread];
    const Chunk<T> right = input[thread];
    Chunk<T> chunk = sum[thread];
    for (int i = 0; i < Chunk<T>::SIZE; ++i) {
        narrow(widen(left.numbers[i]) * widen(chunk.numbers[i]) + widen(right.numbers[i]), chunk.numbers[i]);
    }
    sum[thread] = chunk;
}

extern "C" __global__ void cross_f32(
    const unsigned* rows, const Chunk<float>* first, const Chunk<float>* input, int pitch, Chunk<float>* sum
) {
    cross(rows, first, input, pitch, sum);
}

extern "C" __global__ void cross_f16(
    const unsigned* rows, const Chunk<half>* first, const Chunk<half>* input, int pitch, Chunk<half>* sum
) {
    cross(rows, first, input, pitch, sum);
}
