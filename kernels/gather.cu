// Gather: the embeddings of a row's ids side by side, lists pooled, and its numbers behind them: the first layer's input.
//
//   rows      one word           how many rows there are, at most what the grid is made for
//   ids       [rows, id_columns] rows of the table; what lies outside of it counts as zeros and raises `fault`
//   dense     [rows, dense_columns]
//   fields    [field_count]      what is pooled to one embedding
//   table     [table_rows, chunks] of 16 bytes; rows whose embedding is no multiple of that end in zeros
//   input     [rows, pitch]      out, of 16 bytes: `chunks` for each field, then the dense numbers, then zeros
//   fault     one word           set to 1 where an id lies outside of the table
//
// Launch: one thread a chunk of `input`, blocks of one dimension, any size. All chunks are 16-byte aligned. Threads of
// rows that are not there end at once, so one captured grid does for any number of rows. Threads and numbers of a batch are
// counted in 32 bits: rows times pitch, id columns and dense columns are below 2^31 each. A table may have more.

/// Columns of ids that make one embedding: their sum, or their mean over those that are above the padding.
struct Field {
    int first_column;
    int columns;
    int padding;
    /// Whether it is the mean. Where every id is the padding it is zero, as is the padding's embedding.
    int mean;
};

template <typename T>
__device__ void gather(
    const unsigned* rows, const int* ids, int id_columns, const float* dense,
    int dense_columns, const Field* fields, int field_count, const Chunk<T>* table,
    unsigned table_rows, int chunks, int pitch, Chunk<T>* input, unsigned* fault
) {
    let_next_start();
    wait_for_earlier();
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned row = thread / static_cast<unsigned>(pitch);
    const int place = static_cast<int>(thread - row * static_cast<unsigned>(pitch));
    if (row >= *rows) {
        return;
    }
    Chunk<T>* to = input + thread;
    const int number = place / chunks;
    if (number >= field_count) {
        const float* from = dense + row * static_cast<unsigned>(dense_columns);
        const int first = (place - field_count * chunks) * Chunk<T>::SIZE;
        Chunk<T> chunk;
        for (int i = 0; i < Chunk<T>::SIZE; ++i) {
            narrow(first + i < dense_columns ? from[first + i] : 0.0f, chunk.numbers[i]);
        }
        *to = chunk;
        return;
    }
    const Field field = fields[number];
    const int* from = ids + row * static_cast<unsigned>(id_columns) + field.first_column;
    const int part = place % chunks;
    if (field.columns == 1) {
        // Moved as it is.
        const unsigned id = static_cast<unsigned>(*from);
        if (id < table_rows) {
            *to = table[static_cast<unsigned long long>(id) * chunks + part];
            return;
        }
    }
    float sums[Chunk<T>::SIZE] = {};
    int counted = 0;
    for (int column = 0; column < field.columns; ++column) {
        const unsigned id = static_cast<unsigned>(from[column]);
        if (id >= table_rows) {
            *fault = 1;
            continue;
        }
        counted += from[column] > field.padding;
        const Chunk<T> chunk = table[static_cast<unsigned long long>(id) * chunks + part];
        for (int i = 0; i < Chunk<T>::SIZE; ++i) {
            sums[i] += widen(chunk.numbers[i]);
        }
    }
    const float share = field.mean && counted > 1 ? 1.0f / counted : 1.0f;
    Chunk<T> chunk;
    for (int i = 0; i < Chunk<T>::SIZE; ++i) {
        narrow(sums[i] * share, chunk.numbers[i]);
    }
    *to = chunk;
}

extern "C" __global__ void gather_f32(
    const unsigned* rows, const int* ids, int id_columns, const float* dense,
    int dense_columns, const Field* fields, int field_count, const Chunk<float>* table,
    unsigned table_rows, int chunks, int pitch, Chunk<float>* input, unsigned* fault
) {
    gather(
        rows, ids, id_columns, dense, dense_columns, fields, field_count, table, table_rows, chunks, pitch, input, fault
    );
}

extern "C" __global__ void gather_f16(
    const unsigned* rows, const int* ids, int id_columns, const float* dense,
    int dense_columns, const Field* fields, int field_count, const Chunk<half>* table,
    unsigned table_rows, int chunks, int pitch, Chunk<half>* input, unsigned* fault
) {
    gather(
        rows, ids, id_columns, dense, dense_columns, fields, field_count, table, table_rows, chunks, pitch, input, fault
    );
}
