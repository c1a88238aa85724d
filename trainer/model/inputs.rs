//! The input of a network: which columns of a batch it sees, and where in the input each of them goes.
//!
//! An input has the embeddings of its columns in their order, those of a list pooled into one, and then dense values.
//! Columns of single ids that follow each other are copied in one go, so that lists cost nothing where there are none.

use std::ops::Range;

use millrace::features::{ListColumns, Pooling};

use super::Batch;

/// Where the columns of a batch go in the input of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputLayout {
    segments: Vec<Segment>,
    dense: Vec<Range<usize>>,
    dimension: usize,
    width: usize,
    /// For each column of ids where its embedding starts, or that of its list.
    starts: Vec<usize>,
}

/// Some columns of ids that go side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// An embedding each.
    Single(Range<usize>),
    /// One embedding of all that are not padding.
    Pooled(ListColumns),
}

impl Segment {
    /// The columns.
    pub fn columns(&self) -> Range<usize> {
        match self {
            Self::Single(columns) => columns.clone(),
            Self::Pooled(list) => list.columns(),
        }
    }

    /// The embeddings that come of them.
    pub fn embeddings(&self) -> usize {
        match self {
            Self::Single(columns) => columns.len(),
            Self::Pooled(_) => 1,
        }
    }
}

impl InputLayout {
    /// The input that the columns `ids`, which ascend, and the dense values `dense` make. `lists` are those of the whole
    /// batch; one that starts among `ids` must be there as a whole.
    pub fn new(
        ids: impl IntoIterator<Item = usize>,
        lists: &[ListColumns],
        dense: impl IntoIterator<Item = usize>,
        dimension: usize,
    ) -> Self {
        let mut segments: Vec<Segment> = Vec::new();
        let mut starts = Vec::new();
        let mut embeddings = 0;
        for column in ids {
            let list = lists.iter().find(|list| list.columns().contains(&column));
            starts.resize(column, usize::MAX);
            match (list, segments.last_mut()) {
                (Some(list), _) if list.first != column => {
                    starts.push((embeddings - 1) * dimension);
                    continue;
                }
                (Some(list), _) => segments.push(Segment::Pooled(*list)),
                (None, Some(Segment::Single(columns))) if columns.end == column => columns.end += 1,
                (None, _) => segments.push(Segment::Single(column..column + 1)),
            }
            starts.push(embeddings * dimension);
            embeddings += 1;
        }
        let mut runs: Vec<Range<usize>> = Vec::new();
        for column in dense {
            match runs.last_mut() {
                Some(run) if run.end == column => run.end += 1,
                _ => runs.push(column..column + 1),
            }
        }
        let width = embeddings * dimension + runs.iter().map(Range::len).sum::<usize>();
        Self { segments, dense: runs, dimension, width, starts }
    }

    /// Numbers in the input of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Numbers in an embedding.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The columns of ids, in the order of the input.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The dense values, in the order of the input.
    pub fn dense(&self) -> &[Range<usize>] {
        &self.dense
    }

    /// Where in the input of a row the embedding of the id in `column` is, or that of its list.
    pub(super) fn embedding(&self, column: usize) -> Range<usize> {
        let start = self.starts[column];
        start..start + self.dimension
    }

    /// Writes the input of each row of `batch`, whose ids have their embeddings in `table`.
    pub(super) fn fill(&self, batch: &Batch<'_>, table: &[f32], input: &mut Vec<f32>) {
        let dimension = self.dimension;
        let embedding = |id: u32| &table[id as usize * dimension..][..dimension];
        input.clear();
        for (ids, dense) in batch.rows() {
            for segment in &self.segments {
                match segment {
                    Segment::Single(columns) => {
                        ids[columns.clone()].iter().for_each(|&id| input.extend_from_slice(embedding(id)));
                    }
                    Segment::Pooled(list) => {
                        let start = input.len();
                        input.resize(start + dimension, 0.0);
                        pool(list, ids, embedding, &mut input[start..]);
                    }
                }
            }
            self.dense.iter().for_each(|columns| input.extend_from_slice(&dense[columns.clone()]));
        }
    }

    /// Turns the derivative by each row's input into that by the embedding of each id in it: a mean's counts for each of
    /// its values by their number.
    pub(super) fn share(&self, batch: &Batch<'_>, by_input: &mut [f32]) {
        let means = self.segments.iter().filter_map(|segment| match segment {
            Segment::Pooled(list) if list.list.pooling == Pooling::Mean => Some(list),
            _ => None,
        });
        for list in means {
            let place = self.embedding(list.first);
            for ((ids, _), by_input) in batch.rows().zip(by_input.chunks_exact_mut(self.width)) {
                let count = count(list, ids);
                by_input[place.clone()].iter_mut().for_each(|by| *by /= count);
            }
        }
    }
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
    fn single_ids_are_one_segment() {
        let layout = InputLayout::new(0..3, &[], 0..2, 2);
        assert_eq!((layout.segments(), layout.width()), (&[Segment::Single(0..3)][..], 8));
        assert_eq!(filled(&layout, &[5, 0, 7, 9], &[0.5, -1.0]), [5.0, 0.5, 0.0, 0.0, 7.0, 0.7, 0.5, -1.0]);
    }

    #[test]
    fn lists_are_pooled_without_their_padding() {
        let lists = [list(1, 3, 4, Pooling::Mean), list(5, 2, 9, Pooling::Sum)];
        let layout = InputLayout::new(0..7, &lists, 0..0, 2);
        let columns: Vec<_> = layout.segments().iter().map(Segment::columns).collect();
        assert_eq!(columns, [0..1, 1..4, 4..5, 5..7]);
        assert_eq!((layout.embedding(3), layout.embedding(4), layout.embedding(6)), (2..4, 4..6, 6..8));
        let near = |found: Vec<f32>, expected: &[f32]| {
            assert_eq!(found.len(), expected.len());
            assert!(
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6),
                "{found:?} is not {expected:?}"
            );
        };
        near(filled(&layout, &[1, 5, 6, 4, 8, 10, 11], &[]), &[1.0, 0.1, 5.5, 0.55, 8.0, 0.8, 21.0, 2.1]);
        near(filled(&layout, &[1, 4, 4, 4, 8, 9, 9], &[]), &[1.0, 0.1, 0.0, 0.0, 8.0, 0.8, 0.0, 0.0]);
    }

    #[test]
    fn a_network_may_see_some_columns_alone() {
        let lists = [list(1, 2, 4, Pooling::Sum)];
        let layout = InputLayout::new([1, 2, 4], &lists, [0, 2], 2);
        assert_eq!(filled(&layout, &[1, 5, 4, 3, 7], &[0.25, 0.5, 0.75]), [5.0, 0.5, 7.0, 0.7, 0.25, 0.75]);
    }
}
