//! Where everything of a network lies in a GPU's memory, and how large it is: pure, checked arithmetic, done before anything
//! is allocated.
//!
//! Kernels move sixteen bytes at once, so embeddings, rows of activations and weights are filled up with zeros to multiples
//! of that. Weights are laid out for what they are multiplied with: zeros meet zeros, and a unit that is only there to
//! fill up comes to zero.
//!
//! A slot's graphs are made for numbers of rows that a batch is rounded up to. Where a batch is copied our kernels read from
//! the device how many rows there are and skip the others; products of matrices compute them as well, and where kernels fetch
//! a batch from the host, all of them do. That costs nothing while a batch is small, and keeps the steps above that small.

use super::device::{CHUNK_BYTES, Precision};
use crate::engine::{
    Network,
    network::{Layer, LayerKind},
};

/// A network too large to count in what the kernels count in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network has more {0} than the GPU's kernels can count")]
pub struct PlanError(&'static str);

/// A piece of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// The layout of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) precision: Precision,
    pub(super) id_columns: usize,
    pub(super) dense_columns: usize,
    /// The first layer's input.
    pub(super) input: Spread,
    pub(super) version: VersionLayout,
    pub(super) slot: SlotLayout,
    pub(super) layers: Vec<LayerPlan>,
    /// What the last layer sees.
    pub(super) last_input: Spread,
    /// In ascending order; the last one is for the largest batch.
    pub(super) buckets: Vec<Bucket>,
    /// The most bytes of a bucket that kernels fetch from the host.
    direct_bytes: usize,
}

/// What the slots of a version share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VersionLayout {
    pub(super) embeddings: Part,
    pub(super) wide: Part,
    pub(super) fields: Part,
    pub(super) last: Part,
    /// The rows of each bucket, a word each.
    pub(super) bucket_rows: Part,
    pub(super) bytes: usize,
}

/// What each slot has of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotLayout {
    /// The first layer's input.
    pub(super) input: Part,
    /// What layers leave, in turn.
    pub(super) hidden: [Part; 2],
    pub(super) workspace: Part,
    /// What is exchanged with the host, which has as much pinned.
    pub(super) exchange: Part,
    pub(super) bytes: usize,
}

/// A layer before the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LayerPlan {
    pub(super) kind: LayerKind,
    pub(super) inputs: Spread,
    pub(super) outputs: Spread,
    pub(super) weights: Part,
    pub(super) bias: Part,
}

/// What lies in a GPU's memory of the items of a catalogue, which all searches of it share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ItemsLayout {
    pub(super) count: u32,
    /// Words of an item.
    pub(super) columns: usize,
    /// `[count, columns]`: the columns of rows that are the item's.
    pub(super) items: Part,
    /// A word for each column of a row: which of an item's words stands there, or -1 for the user's.
    pub(super) sources: Part,
    /// The rows of every block but the last one, those of that, and the items, a word each.
    pub(super) counts: Part,
    pub(super) bytes: usize,
}

/// What each search of a catalogue has of its own. The host has as much pinned as there is before `scores`: from `user` on it
/// goes to the device, and up to there it comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SearchLayout {
    /// The words that kernels raise for an id that is none, and for a score that is no finite number.
    pub(super) faults: Part,
    /// The keys of the best items.
    pub(super) found: Part,
    /// The row of the user.
    pub(super) user: Part,
    /// Items that are not wanted.
    pub(super) excluded: Part,
    pub(super) scores: Part,
    /// The best keys of every tile of the scores, and of what those leave, in turn.
    pub(super) keys: [Part; 2],
    pub(super) bytes: usize,
}

/// What is exchanged for batches of so many rows at most, by its offset: ids `[rows, id_columns]`, dense values
/// `[rows, dense_columns]`, the header, scores `[rows]`. Everything to the end of the header goes to the device, and
/// everything from its start comes back; where all of it is small, kernels read and write it in the host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) rows: usize,
    pub(super) dense: usize,
    /// The number of rows that there are, and the word that kernels raise for an id that is not.
    pub(super) header: usize,
    pub(super) scores: usize,
    pub(super) end: usize,
}

/// How a row's numbers lie: in groups of one width that are each filled up to whole chunks, and a tail that is too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    groups: usize,
    width: usize,
    padded_width: usize,
    /// Numbers from the start of a row to that of the next.
    pub(super) pitch: usize,
}

impl Plan {
    /// The layout of `network` for batches of up to `max_rows`.
    pub(super) fn new(
        network: &Network,
        precision: Precision,
        max_rows: usize,
        direct_bytes: usize,
    ) -> Result<Self, PlanError> {
        let input = Spread::new(
            (network.fields.len(), network.embeddings.dimension()),
            network.dense_columns,
            precision,
        )?;
        let mut version = Layout::default();
        let row_bytes = count(input.padded_width.checked_mul(precision.bytes()), "bytes in an embedding")?;
        let [embeddings, wide, fields] = [
            version.place(network.embeddings.rows(), row_bytes)?,
            version.place(network.wide.rows(), 4)?,
            version.place(network.fields.len(), size_of::<kernels::Field>())?,
        ];
        let mut layers: Vec<LayerPlan> = Vec::with_capacity(network.layers.len());
        for layer in &network.layers {
            let inputs = layers.last().map_or(input, |layer| layer.outputs);
            layers.push(LayerPlan::new(layer, (input, inputs), precision, &mut version)?);
        }
        let last_input = layers.last().map_or(input, |layer| layer.outputs);
        let last = version.place(last_input.pitch, precision.bytes())?;
        let (id_columns, dense_columns) = (network.id_columns, network.dense_columns);
        let buckets = bucket_rows(max_rows).into_iter();
        let buckets: Result<Vec<_>, _> =
            buckets.map(|rows| Bucket::new(rows, id_columns, dense_columns)).collect();
        let buckets = buckets?;
        let widest = layers.iter().map(|layer| layer.outputs.pitch).max().unwrap_or(0);
        let slot = SlotLayout::new(max_rows, (input.pitch, widest), precision, &buckets)?;
        let exchanged = id_columns.max(dense_columns);
        check_counts(max_rows, input.pitch.max(widest).max(exchanged))?;
        let bucket_rows = version.place(buckets.len(), 4)?;
        let version = VersionLayout { embeddings, wide, fields, last, bucket_rows, bytes: version.bytes };
        Ok(Self {
            precision,
            id_columns,
            dense_columns,
            input,
            version,
            slot,
            layers,
            last_input,
            buckets,
            direct_bytes,
        })
    }

    /// The number of the smallest bucket that `rows` fit into.
    pub(super) fn bucket(&self, rows: usize) -> Option<usize> {
        let number = self.buckets.partition_point(|bucket| bucket.rows < rows);
        (number < self.buckets.len()).then_some(number)
    }

    /// Whether kernels reach into the host's memory for a bucket: two copies take longer than that as long as it is small. All
    /// of its rows are computed then, whose number lies near them; those that are not there have ids of zeros.
    pub(super) fn is_direct(&self, bucket: &Bucket) -> bool {
        bucket.end <= self.direct_bytes
    }

    /// The most rows of a batch.
    pub(super) fn max_rows(&self) -> usize {
        self.buckets.last().map_or(0, |bucket| bucket.rows)
    }

    /// Bytes of the device for a version with so many slots.
    pub(super) fn bytes(&self, slots: usize) -> Option<usize> {
        self.slot.bytes.checked_mul(slots)?.checked_add(self.version.bytes)
    }

    /// Sixteen-byte chunks of an embedding.
    pub(super) fn embedding_chunks(&self) -> usize {
        self.input.padded_width / self.precision.per_chunk()
    }
}

impl ItemsLayout {
    /// The items of a catalogue of `count`, which have `columns` of a row's `row_columns`.
    pub(super) fn new(count: u32, (columns, row_columns): (usize, usize)) -> Result<Self, PlanError> {
        let mut layout = Layout::default();
        let words = |columns: usize| self::count(columns.checked_mul(WORD), "words in an item");
        Ok(Self {
            count,
            columns,
            items: layout.place(count as usize, words(columns)?)?,
            sources: layout.place(row_columns, WORD)?,
            counts: layout.place(3, WORD)?,
            bytes: layout.bytes,
        })
    }
}

impl SearchLayout {
    /// What searches `items` for users whose rows have so many columns.
    pub(super) fn new(items: &ItemsLayout, row_columns: usize) -> Result<Self, PlanError> {
        let mut layout = Layout::default();
        let items = items.count as usize;
        let keys = |tiles: usize| count(tiles.checked_mul(kernels::TOPK_ITEMS), "keys of items");
        let tiles = items.div_ceil(kernels::TOPK_TILE);
        let first = keys(tiles)?;
        let second = keys(first.div_ceil(kernels::TOPK_TILE))?;
        Ok(Self {
            faults: layout.place(2, WORD)?,
            found: layout.place(kernels::TOPK_ITEMS, KEY)?,
            user: layout.place(row_columns, WORD)?,
            excluded: layout.place(items.min(MOST_EXCLUDED), WORD)?,
            scores: layout.place(items, WORD)?,
            keys: [layout.place(first, KEY)?, layout.place(second, KEY)?],
            bytes: layout.bytes,
        })
    }

    /// Bytes that are exchanged with the host.
    pub(super) fn exchanged(&self) -> usize {
        self.scores.offset
    }
}

impl LayerPlan {
    fn new(
        layer: &Layer,
        (first, inputs): (Spread, Spread),
        precision: Precision,
        version: &mut Layout,
    ) -> Result<Self, PlanError> {
        let outputs = match layer.kind {
            LayerKind::Relu => Spread::new((1, layer.outputs), 0, precision)?,
            // It is multiplied by the first layer's input, number by number.
            LayerKind::Cross => first,
        };
        let row_bytes = count(inputs.pitch.checked_mul(precision.bytes()), "weights in a layer")?;
        Ok(Self {
            kind: layer.kind,
            inputs,
            outputs,
            weights: version.place(outputs.pitch, row_bytes)?,
            bias: version.place(outputs.pitch, precision.bytes())?,
        })
    }
}

impl SlotLayout {
    fn new(
        max_rows: usize,
        (input, widest): (usize, usize),
        precision: Precision,
        buckets: &[Bucket],
    ) -> Result<Self, PlanError> {
        let mut layout = Layout::default();
        let row = |pitch: usize| count(pitch.checked_mul(precision.bytes()), "numbers in a row");
        let exchange = buckets.iter().map(|bucket| bucket.end).max().unwrap_or(0);
        Ok(Self {
            input: layout.place(max_rows, row(input)?)?,
            hidden: [layout.place(max_rows, row(widest)?)?, layout.place(max_rows, row(widest)?)?],
            workspace: layout.place(WORKSPACE_BYTES, 1)?,
            exchange: layout.place(exchange, 1)?,
            bytes: layout.bytes,
        })
    }
}

impl Bucket {
    /// Bytes of the header, of which the first two words are used.
    pub(super) const HEADER_BYTES: usize = CHUNK_BYTES;
    /// Where in the header the kernels raise their word.
    pub(super) const FAULT: usize = 4;

    fn new(rows: usize, id_columns: usize, dense_columns: usize) -> Result<Self, PlanError> {
        let words = |columns: usize| rows.checked_mul(columns)?.checked_mul(4);
        let sum = |start: usize, words: Option<usize>| start.checked_add(words?);
        let what = "rows in a batch";
        let dense = count(sum(0, words(id_columns)), what)?;
        let header = count(sum(dense, words(dense_columns)), what)?;
        let header = count(header.checked_next_multiple_of(CHUNK_BYTES), what)?;
        let scores = count(header.checked_add(Self::HEADER_BYTES), what)?;
        let end = count(sum(scores, words(1)), what)?;
        Ok(Self { rows, dense, header, scores, end })
    }
}

impl Spread {
    fn new((groups, width): (usize, usize), tail: usize, precision: Precision) -> Result<Self, PlanError> {
        let padded = |numbers: usize| numbers.checked_next_multiple_of(precision.per_chunk());
        let pitch = || groups.checked_mul(padded(width)?)?.checked_add(padded(tail)?);
        let what = "numbers in a row";
        Ok(Self { groups, width, padded_width: count(padded(width), what)?, pitch: count(pitch(), what)? })
    }

    /// Where number `index` of a row lies.
    pub(super) fn place(&self, index: usize) -> usize {
        let grouped = self.groups * self.width;
        if index < grouped {
            index / self.width * self.padded_width + index % self.width
        } else {
            self.groups * self.padded_width + index - grouped
        }
    }
}

/// An allocation that grows.
#[derive(Default)]
struct Layout {
    bytes: usize,
}

impl Layout {
    /// A place for so many rows of so many bytes.
    fn place(&mut self, rows: usize, row_bytes: usize) -> Result<Part, PlanError> {
        let what = "bytes of one kind";
        let offset = count(self.bytes.checked_next_multiple_of(ALIGNMENT), what)?;
        let bytes = count(rows.checked_mul(row_bytes), what)?;
        self.bytes = count(offset.checked_add(bytes), what)?;
        // No part starts behind the end, not even one of no bytes: a last one has a byte behind it.
        self.bytes = count(self.bytes.checked_add(usize::from(bytes == 0)), what)?;
        Ok(Part { offset, bytes })
    }
}

/// Kernels count rows, columns, chunks, blocks and what a batch has of each in 31 bits.
fn check_counts(max_rows: usize, pitch: usize) -> Result<(), PlanError> {
    let fits = |number: usize| i32::try_from(number).ok().map(drop);
    count(fits(pitch), "numbers in a row")?;
    // A warp for each row of the head is the other launch that grows with the rows.
    count(max_rows.checked_mul(pitch.max(32)).and_then(fits), "numbers in a batch")
}

/// Rows of the buckets: few where a batch costs the same whatever its size, then each at most half as large again.
pub(in crate::engine) fn bucket_rows(max_rows: usize) -> Vec<usize> {
    let next = |&rows: &usize| {
        let next =
            if rows.is_power_of_two() { rows.checked_mul(3)? / 2 } else { (rows / 3).checked_mul(4)? };
        Some(next)
    };
    let small = [1, 8, 32, 128].into_iter();
    let large = std::iter::successors(Some(256), next);
    small.chain(large).take_while(|&rows| rows < max_rows).chain([max_rows]).collect()
}

fn count<T>(number: Option<T>, what: &'static str) -> Result<T, PlanError> {
    number.ok_or(PlanError(what))
}

/// Bytes of an id, of a dense value and of a number of rows.
const WORD: usize = 4;
/// Bytes of an item's key.
const KEY: usize = 8;
/// Items that a search leaves out at most: as many as a request may name, and some.
const MOST_EXCLUDED: usize = 1 << 17;

/// What every part starts at a multiple of; allocations do as well.
pub(super) const ALIGNMENT: usize = 256;

/// What a product of matrices may use meanwhile, as NVIDIA recommends for Hopper.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cuda::sample;

    #[test]
    fn buckets_are_few_below_256_rows_and_at_most_half_as_large_again_above() {
        assert_eq!(bucket_rows(1), [1]);
        assert_eq!(bucket_rows(8), [1, 8]);
        assert_eq!(bucket_rows(100), [1, 8, 32, 100]);
        assert_eq!(bucket_rows(4096), [1, 8, 32, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096]);
    }

    #[test]
    fn a_batch_goes_into_the_smallest_bucket_that_holds_it() {
        let plan = Plan::new(&sample::wide_and_deep(), Precision::Single, 100, 0).expect("small");
        let rows = |rows| plan.bucket(rows).map(|number| plan.buckets[number].rows);
        assert_eq!([0, 1, 2, 8, 9, 100].map(rows), [1, 1, 8, 8, 32, 100].map(Some));
        assert_eq!(rows(101), None);
        assert_eq!(plan.max_rows(), 100);
    }

    #[test]
    fn a_bucket_is_fetched_from_the_host_as_long_as_all_of_it_fits() {
        let end = |plan: &Plan| plan.buckets[1].end;
        let planned =
            |bytes| Plan::new(&sample::wide_and_deep(), Precision::Single, 100, bytes).expect("small");
        let end = end(&planned(0));
        for (bytes, expected) in
            [(0, [false; 3]), (end - 1, [true, false, false]), (end, [true, true, false])]
        {
            let plan = planned(bytes);
            assert_eq!([0, 1, 2].map(|number| plan.is_direct(&plan.buckets[number])), expected, "{bytes}");
        }
    }

    #[test]
    fn numbers_lie_behind_zeros_that_fill_up_each_embedding() {
        // Three embeddings of 5 numbers and 2 dense values, in chunks of 4.
        let spread = Spread::new((3, 5), 2, Precision::Single).expect("small");
        assert_eq!((spread.padded_width, spread.pitch), (8, 28));
        assert_eq!([0, 4, 5, 14, 15, 16].map(|index| spread.place(index)), [0, 4, 8, 20, 24, 25]);
        let half = Spread::new((3, 5), 2, Precision::Half).expect("small");
        assert_eq!((half.padded_width, half.pitch), (8, 32));
    }

    #[test]
    fn parts_are_apart_aligned_and_within_their_allocation() {
        for network in sample::all() {
            for precision in [Precision::Single, Precision::Half] {
                let plan = Plan::new(&network, precision, 77, 0).expect("small");
                let VersionLayout { embeddings, wide, fields, last, bucket_rows, bytes } = plan.version;
                let layers = plan.layers.iter().flat_map(|layer| [layer.weights, layer.bias]);
                check_parts(
                    [embeddings, wide, fields, last, bucket_rows].into_iter().chain(layers).collect(),
                    bytes,
                );
                let SlotLayout { input, hidden: [one, other], workspace, exchange, bytes } = plan.slot;
                check_parts(vec![input, one, other, workspace, exchange], bytes);
            }
        }
    }

    #[test]
    fn a_catalogue_has_room_for_every_item_and_for_the_best_of_every_tile() {
        let tile = u32::try_from(kernels::TOPK_TILE).expect("small");
        for (count, columns, keys) in
            [(1, 0, [1, 1]), (tile, 3, [1, 1]), (tile + 1, 3, [2, 1]), (9 * tile, 1, [9, 5])]
        {
            let items = ItemsLayout::new(count, (columns, 7)).expect("small");
            check_parts(vec![items.items, items.sources, items.counts], items.bytes);
            assert_eq!(items.items.bytes, count as usize * columns * 4);
            let search = SearchLayout::new(&items, 7).expect("small");
            let SearchLayout { faults, found, user, excluded, scores, keys: [first, second], bytes } = search;
            check_parts(vec![faults, found, user, excluded, scores, first, second], bytes);
            assert_eq!(
                [first, second].map(|part| part.bytes),
                keys.map(|tiles| tiles * kernels::TOPK_ITEMS * 8)
            );
            assert!(excluded.offset + excluded.bytes <= search.exchanged());
            assert!(
                faults.offset < found.offset && found.offset < user.offset && user.offset < excluded.offset
            );
        }
    }

    fn check_parts(mut parts: Vec<Part>, bytes: usize) {
        parts.sort_by_key(|part| part.offset);
        for two in parts.windows(2) {
            assert!(two[0].offset + two[0].bytes <= two[1].offset && two[0].offset < two[1].offset);
        }
        assert!(parts.iter().all(|part| part.offset.is_multiple_of(ALIGNMENT) && part.offset < bytes));
        assert!(parts.iter().all(|part| part.offset + part.bytes <= bytes));
    }

    #[test]
    fn what_is_exchanged_has_room_for_every_row() {
        let bucket = Bucket::new(3, 2, 1).expect("small");
        assert_eq!(bucket, Bucket { rows: 3, dense: 24, header: 48, scores: 64, end: 76 });
    }

    #[test]
    fn sizes_that_cannot_be_counted_are_refused() {
        let network = sample::wide_and_deep();
        for rows in [usize::MAX, usize::MAX / 8, 1 << 30] {
            assert!(Plan::new(&network, Precision::Single, rows, 0).is_err(), "{rows}");
        }
        let wide = Network { id_columns: 1 << 10, ..sample::without_layers() };
        let planned = |rows| Plan::new(&wide, Precision::Single, rows, 0).map(drop);
        assert_eq!(planned((1 << 21) - 1), Ok(()));
        assert_eq!(planned(1 << 21), Err(PlanError("numbers in a batch")), "kernels count ids in 31 bits");
        let plan = Plan::new(&network, Precision::Single, 8, 0).expect("small");
        assert_eq!(plan.bytes(2), Some(plan.version.bytes + 2 * plan.slot.bytes));
        assert_eq!(plan.bytes(usize::MAX), None);
    }
}
