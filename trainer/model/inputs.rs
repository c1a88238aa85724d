//! The input of a network: which columns of a batch it sees, and where in the input each of them goes.
//!
//! An input has the embeddings of single ids in the order of their columns, then one for each list, pooled from those of
//! its ids, and then dense values. Columns that follow each other are copied in one go, so that lists cost nothing where
//! there are none.

use std::ops::Range;

use millrace::features::{ListColumns, Pooling};

use super::Batch;

/// Where the columns of a batch go in the input of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputLayout {
    singles: Vec<Range<usize>>,
    lists: Vec<ListColumns>,
    dense: Vec<Range<usize>>,
    dimension: usize,
    width: usize,
    /// For each column of ids where its embedding starts, or that of its list.
    starts: Vec<Option<usize>>,
}

impl InputLayout {
    /// The input that the columns `ids` and the dense values `dense` make, both of which ascend. `lists` are those of the
    /// whole batch; each is among `ids` as a whole or not at all.
    pub fn new(
        ids: impl IntoIterator<Item = usize>,
        lists: &[ListColumns],
        dense: impl IntoIterator<Item = usize>,
        dimension: usize,
    ) -> Self {
        let is_listed = |column: &usize| lists.iter().any(|list| list.columns().contains(column));
        let (listed, single): (Vec<usize>, Vec<usize>) = ids.into_iter().partition(is_listed);
        let lists: Vec<ListColumns> =
            lists.iter().filter(|list| listed.contains(&list.first)).copied().collect();
        let each = single.iter().map(|&column| column..column + 1);
        let columns: Vec<Range<usize>> = each.chain(lists.iter().map(ListColumns::columns)).collect();
        let mut starts = vec![None; columns.iter().map(|columns| columns.end).max().unwrap_or(0)];
        for (embedding, columns) in columns.iter().enumerate() {
            starts[columns.clone()].fill(Some(embedding * dimension));
        }
        let (singles, dense) = (runs(single), runs(dense));
        let width = columns.len() * dimension + dense.iter().map(Range::len).sum::<usize>();
        Self { singles, lists, dense, dimension, width, starts }
    }

    /// Numbers in the input of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Numbers in an embedding.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The columns of single ids, which ascend.
    pub fn singles(&self) -> Vec<usize> {
        self.singles.iter().cloned().flatten().collect()
    }

    /// The lists.
    pub fn lists(&self) -> &[ListColumns] {
        &self.lists
    }

    /// The columns of dense values, which ascend.
    pub fn dense(&self) -> Vec<usize> {
        self.dense.iter().cloned().flatten().collect()
    }

    /// Where in the input of a row each number of the input `part` is, whose columns are all among these.
    pub(crate) fn places_of(&self, part: &Self) -> Vec<usize> {
        let embeddings = part.singles().into_iter().chain(part.lists.iter().map(|list| list.first));
        let embeddings = embeddings.flat_map(|column| self.embedding(column));
        let (all, first) = (self.dense(), self.width - self.dense().len());
        let place = |column| all.iter().position(|&other| other == column).expect("a part of the whole");
        embeddings.chain(part.dense().into_iter().map(|column| first + place(column))).collect()
    }

    /// Where in the input of a row the embedding of the id in `column` is, or that of its list.
    ///
    /// # Panics
    /// Where it has none in this input.
    pub(super) fn embedding(&self, column: usize) -> Range<usize> {
        let start = self.starts[column].expect("a column of this input");
        start..start + self.dimension
    }

    /// Whether the id in `column` has its embedding in this input.
    pub(super) fn has(&self, column: usize) -> bool {
        self.starts.get(column).is_some_and(Option::is_some)
    }

    /// Writes the input of each row of `batch`, whose ids have their embeddings in `table`.
    pub(super) fn fill(&self, batch: &Batch<'_>, table: &[f32], input: &mut Vec<f32>) {
        let dimension = self.dimension;
        let embedding = |id: u32| &table[id as usize * dimension..][..dimension];
        input.clear();
        for (ids, dense) in batch.rows() {
            for &id in self.singles.iter().flat_map(|columns| &ids[columns.clone()]) {
                input.extend_from_slice(embedding(id));
            }
            for list in &self.lists {
                let start = input.len();
                input.resize(start + dimension, 0.0);
                pool(list, ids, embedding, &mut input[start..]);
            }
            self.dense.iter().for_each(|columns| input.extend_from_slice(&dense[columns.clone()]));
        }
    }

    /// Turns the derivative by each row's input into that by the embedding of each id in it: a mean's counts for each of
    /// its values by their number.
    pub(super) fn share(&self, batch: &Batch<'_>, by_input: &mut [f32]) {
        let means = self.lists.iter().filter(|list| list.list.pooling == Pooling::Mean);
        for list in means {
            let place = self.embedding(list.first);
            for ((ids, _), by_input) in batch.rows().zip(by_input.chunks_exact_mut(self.width)) {
                let count = count(list, ids);
                by_input[place.clone()].iter_mut().for_each(|by| *by /= count);
            }
        }
    }
}

/// The stretches of columns that follow each other.
fn runs(columns: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for column in columns {
        match runs.last_mut() {
            Some(run) if run.end == column => run.end += 1,
            _ => runs.push(column..column + 1),
        }
    }
    runs
}

/// Adds up the embeddings of a list in `pooled`, which is zero, and divides them where it is a mean.
fn pool<'t>(list: &ListColumns, ids: &[u32], embedding: impl Fn(u32) -> &'t [f32], pooled: &mut [f32]) {
    for &id in ids[list.columns()].iter().filter(|&&id| id != list.padding) {
        pooled.iter_mut().zip(embedding(id)).for_each(|(sum, weight)| *sum += weight);
    }
    if list.list.pooling == Pooling::Mean {
        let count = count(list, ids);
        for sum in pooled {
            *sum /= count;
        }
    }
}

/// The number of values of a list, 1 at least.
fn count(list: &ListColumns, ids: &[u32]) -> f32 {
    ids[list.columns()].iter().filter(|&&id| id != list.padding).count().max(1) as f32
}

#[cfg(test)]
mod tests {
    use millrace::features::List;

    use super::*;

    fn list(first: usize, max: usize, padding: u32, pooling: Pooling) -> ListColumns {
        ListColumns { first, list: List { max, pooling }, padding }
    }

    /// The embedding of an id is the id and its tenth.
    fn table() -> Vec<f32> {
        (0..20_u8).flat_map(|id| [f32::from(id), f32::from(id) / 10.0]).collect()
    }

    fn filled(layout: &InputLayout, ids: &[u32], dense: &[f32]) -> Vec<f32> {
        let (columns, dense_columns) = (ids.len(), dense.len());
        let batch = Batch { columns, dense_columns, len: 1, ids: ids.into(), dense };
        let mut input = Vec::new();
        layout.fill(&batch, &table(), &mut input);
        assert_eq!(input.len(), layout.width());
        input
    }

    #[test]
    fn single_ids_lie_side_by_side() {
        let layout = InputLayout::new(0..3, &[], 0..2, 2);
        assert_eq!((layout.singles(), layout.lists(), layout.width()), (vec![0, 1, 2], &[][..], 8));
        assert_eq!(filled(&layout, &[5, 0, 7, 9], &[0.5, -1.0]), [5.0, 0.5, 0.0, 0.0, 7.0, 0.7, 0.5, -1.0]);
    }

    #[test]
    fn lists_are_pooled_without_their_padding_behind_single_ids() {
        let lists = [list(1, 3, 4, Pooling::Mean), list(5, 2, 9, Pooling::Sum)];
        let layout = InputLayout::new(0..7, &lists, 0..0, 2);
        assert_eq!((layout.singles(), layout.lists()), (vec![0, 4], &lists[..]));
        assert_eq!((layout.embedding(3), layout.embedding(4), layout.embedding(6)), (4..6, 2..4, 6..8));
        let near = |found: Vec<f32>, expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(near, "{found:?} is not {expected:?}");
        };
        near(filled(&layout, &[1, 5, 6, 4, 8, 10, 11], &[]), &[1.0, 0.1, 8.0, 0.8, 5.5, 0.55, 21.0, 2.1]);
        near(filled(&layout, &[1, 4, 4, 4, 8, 9, 9], &[]), &[1.0, 0.1, 8.0, 0.8, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_network_may_see_some_columns_alone() {
        let lists = [list(1, 2, 4, Pooling::Sum)];
        let layout = InputLayout::new([1, 2, 4], &lists, [0, 2], 2);
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|column| layout.has(column)),
            [false, true, true, false, true, false]
        );
        assert_eq!(filled(&layout, &[1, 5, 4, 3, 7], &[0.25, 0.5, 0.75]), [7.0, 0.7, 5.0, 0.5, 0.25, 0.75]);
    }
}
