// Pairs: the rows of one user with items that lie side by side, as gather and head read them.
//
//   user     [columns]            words of a row: its ids and then its dense values, of which the user's count
//   items    [.., item_columns]   words of every item
//   sources  [columns]            which of an item's words stands in a column, -1 for the user's
//   columns  id_columns and the dense ones
//   first    the item of the first row
//   rows     how many rows
//   ids      [rows, id_columns]   out
//   dense    [rows, columns - id_columns]   out, all of its words as they are
//
// Launch: one thread a word of the rows, blocks of one dimension, any size. Words of the rows are counted in 32 bits; a
// catalogue may have more.

extern "C" __global__ void pairs(
    const unsigned* user, const unsigned* items, int item_columns, const int* sources, int columns, int id_columns,
    unsigned first, unsigned rows, unsigned* ids, unsigned* dense
) {
    let_next_start();
    wait_for_earlier();
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned row = thread / static_cast<unsigned>(columns);
    if (row >= rows) {
        return;
    }
    const int column = static_cast<int>(thread - row * static_cast<unsigned>(columns));
    const int source = sources[column];
    const unsigned long long item = static_cast<unsigned long long>(first) + row;
    const unsigned word = source < 0 ? user[column] : items[item * static_cast<unsigned>(item_columns) + source];
    if (column < id_columns) {
        ids[row * static_cast<unsigned>(id_columns) + column] = word;
    } else {
        dense[row * static_cast<unsigned>(columns - id_columns) + column - id_columns] = word;
    }
}
