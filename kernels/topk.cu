// Top-k: the best of many items, without those that are excluded.
//
// An item is a key of 64 bits: its score in the upper half, so that greater keys have better scores, and the complement of
// its number in the lower one, so that of two items with one score the one with the smaller number is better. 0 is no item:
// an excluded one, or one whose score is no number.
//
// topk_items
//   count     one word         how many items there are, at most what the grid is made for
//   scores    [count]
//   excluded  [excluded_count] items in ascending order
//   best      [blocks, k]      out: of each tile the best keys in descending order, filled up with 0
//   fault     one word         set to 1 where the score of an item, an excluded one or not, is infinite or no number
// topk_keys
//   keys      [key_count]      what the other one or this one has left
//   best      [blocks, k]      out, as above
//
// Launch: a block a tile of 2,048 items or keys, of any multiple of 32 threads; k is at most 1,024, so that each launch of
// `topk_keys` on what the last one has left leaves at most half of it, until one block is left with the answer. Blocks of
// tiles without items write zeros, so one captured grid does for any number of items.

typedef unsigned long long Key;

constexpr int TILE = 2048;

__device__ inline Key key_of(float score, unsigned item) {
    const unsigned bits = __float_as_uint(score);
    // Negative numbers the other way around, and all above zero.
    const unsigned ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return score == score ? static_cast<Key>(ordered) << 32 | (0xffffffffu - item) : 0;
}

__device__ inline bool is_among(unsigned item, const unsigned* items, int count) {
    int first = 0;
    while (count > 0) {
        const int middle = count / 2;
        if (items[first + middle] == item) {
            return true;
        }
        if (items[first + middle] < item) {
            first += middle + 1;
            count -= middle + 1;
        } else {
            count = middle;
        }
    }
    return false;
}

__device__ inline bool is_finite(float score) {
    return (__float_as_uint(score) & 0x7f800000u) != 0x7f800000u;
}

/// Sorts a tile in descending order, by the block together: bitonic, in steps that exchange pairs at a distance.
__device__ inline void sort_tile(Key* tile) {
    for (int length = 2; length <= TILE; length *= 2) {
        for (int distance = length / 2; distance > 0; distance /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < TILE / 2; pair += blockDim.x) {
                const int left = pair / distance * 2 * distance + pair % distance;
                const int right = left + distance;
                const bool descending = (left & length) == 0;
                if ((tile[left] < tile[right]) == descending) {
                    const Key key = tile[left];
                    tile[left] = tile[right];
                    tile[right] = key;
                }
            }
        }
    }
    __syncthreads();
}

__device__ inline void leave_best(const Key* tile, int k, Key* best) {
    for (int place = threadIdx.x; place < k; place += blockDim.x) {
        best[static_cast<Key>(blockIdx.x) * k + place] = tile[place];
    }
}

extern "C" __global__ void topk_items(
    const unsigned* count, const float* scores, const unsigned* excluded, int excluded_count, int k, Key* best,
    unsigned* fault
) {
    __shared__ Key tile[TILE];
    let_next_start();
    wait_for_earlier();
    for (int place = threadIdx.x; place < TILE; place += blockDim.x) {
        const unsigned item = blockIdx.x * TILE + place;
        Key key = 0;
        if (item < *count) {
            const float score = scores[item];
            if (!is_finite(score)) {
                *fault = 1;
            }
            key = is_among(item, excluded, excluded_count) ? 0 : key_of(score, item);
        }
        tile[place] = key;
    }
    sort_tile(tile);
    leave_best(tile, k, best);
}

extern "C" __global__ void topk_keys(const Key* keys, unsigned key_count, int k, Key* best) {
    __shared__ Key tile[TILE];
    let_next_start();
    wait_for_earlier();
    for (int place = threadIdx.x; place < TILE; place += blockDim.x) {
        const unsigned number = blockIdx.x * TILE + place;
        tile[place] = number < key_count ? keys[number] : 0;
    }
    sort_tile(tile);
    leave_best(tile, k, best);
}
