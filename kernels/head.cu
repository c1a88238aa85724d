// Head: the last layer, the wide part and the sigmoid: a row's probability.
//
//   rows         one word           how many rows there are, at most what the grid is made for
//   hidden       [rows, pitch]      of 16 bytes, what the layer before the last one answers, with zeros at the end
//   weights      [pitch]            of 16 bytes, the last layer's, with zeros at the end
//   ids          [rows, id_columns] rows of the wide table; what lies outside of it counts as zero and raises `fault`
//   wide         [wide_rows]
//   bias         one number         of both parts
//   probability  [rows]             out
//   fault        one word           set to 1 where an id lies outside of the table
//
// Launch: one warp a row, blocks of one dimension and a multiple of 32 threads. Warps of rows that are not there end at
// once. `hidden` and `weights` are 16-byte aligned.

template <typename T>
__device__ void head(
    const unsigned* rows, const Chunk<T>* hidden, const Chunk<T>* weights, int pitch, const int* ids, int id_columns,
    const float* wide, unsigned wide_rows, float bias, float* probability, unsigned* fault
) {
    let_next_start();
    wait_for_earlier();
    const unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x % 32);
    // The same for all lanes of a warp, which meet again in the sum.
    if (row >= *rows) {
        return;
    }
    float sum = 0.0f;
    const int* columns = ids + static_cast<unsigned long long>(row) * id_columns;
    // Ids may lie in the host's memory, which is far away: the first one is under way while the layer is computed.
    int id = lane < id_columns ? columns[lane] : 0;
    const Chunk<T>* numbers = hidden + static_cast<unsigned long long>(row) * pitch;
    for (int place = lane; place < pitch; place += 32) {
        const Chunk<T> left = numbers[place];
        const Chunk<T> right = weights[place];
        for (int i = 0; i < Chunk<T>::SIZE; ++i) {
            sum += widen(left.numbers[i]) * widen(right.numbers[i]);
        }
    }
    for (int column = lane; column < id_columns; column += 32) {
        if (column != lane) {
            id = columns[column];
        }
        if (static_cast<unsigned>(id) < wide_rows) {
            sum += wide[static_cast<unsigned>(id)];
        } else {
            *fault = 1;
        }
    }
    sum = warp_sum(sum);
    if (lane == 0) {
        // Large negative logits make the exponential infinite, and the quotient the zero that it should be.
        probability[row] = 1.0f / (1.0f + expf(-(sum + bias)));
    }
}

extern "C" __global__ void head_f32(
    const unsigned* rows, const Chunk<float>* hidden, const Chunk<float>* weights, int pitch, const int* ids,
    int id_columns, const float* wide, unsigned wide_rows, float bias, float* probability, unsigned* fault
) {
    head(rows, hidden, weights, pitch, ids, id_columns, wide, wide_rows, bias, probability, fault);
}

extern "C" __global__ void head_f16(
    const unsigned* rows, const Chunk<half>* hidden, const Chunk<half>* weights, int pitch, const int* ids,
    int id_columns, const float* wide, unsigned wide_rows, float bias, float* probability, unsigned* fault
) {
    head(rows, hidden, weights, pitch, ids, id_columns, wide, wide_rows, bias, probability, fault);
}
