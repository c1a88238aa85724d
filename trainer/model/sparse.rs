//! Updates of the table rows that a batch names, and of no others, however large the table is.
//!
//! A batch names popular ids many times, each time at another place with a gradient of its own. Sorted by row, the
//! places of one row lie side by side: an optimiser sees each row once, with its gradients in the order of the batch.
//! The table is cut between rows for several threads, so that the result does not depend on how many there are.

/// A table row and a place in the batch that names it. They ascend by row, then by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touch(u64);

impl Touch {
    fn new(row: u32, place: usize) -> Self {
        let place = u32::try_from(place).expect("a batch of fewer than four billion ids");
        Self(u64::from(row) << 32 | u64::from(place))
    }

    /// The row in the table.
    pub fn row(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// The place in the batch.
    #[expect(clippy::cast_possible_truncation, reason = "the other 32 bits are the row")]
    pub fn place(self) -> usize {
        self.0 as u32 as usize
    }
}

/// All touches of a batch with these ids, in their order.
pub fn touches(ids: &[u32]) -> Vec<Touch> {
    let mut touches: Vec<Touch> = ids.iter().zip(0..).map(|(&row, place)| Touch::new(row, place)).collect();
    // No two are equal, so there is only one order.
    touches.sort_unstable();
    touches
}

/// All touches of a batch with these ids but those of `rows`, which ascend.
pub(super) fn touches_but(ids: &[u32], rows: &[u32]) -> Vec<Touch> {
    if rows.is_empty() {
        return touches(ids);
    }
    let others = ids.iter().zip(0..).filter(|(row, _)| rows.binary_search(row).is_err());
    let mut touches: Vec<Touch> = others.map(|(&row, place)| Touch::new(row, place)).collect();
    touches.sort_unstable();
    touches
}

/// The first touches, those of rows below `rows`.
pub(super) fn below(touches: &[Touch], rows: usize) -> &[Touch] {
    &touches[..touches.partition_point(|touch| touch.row() < rows)]
}

/// A stretch of a table that can be cut between rows.
pub(super) trait Stretch: Sized + Send {
    /// The stretches before and from `row`, which counts from the table's first row.
    fn split(self, row: usize) -> (Self, Self);

    /// Takes one step in `row`, which counts from the table's first row and is touched at all of `places`.
    fn step(&mut self, row: usize, places: &[Touch]);
}

/// Takes one step in each touched row of the stretch.
pub(super) fn step<S: Stretch>(mut stretch: S, touches: &[Touch]) {
    if touches.len() > TOUCHES_A_TASK {
        let middle = touches[touches.len() / 2].row();
        let (low, high) = touches.split_at(touches.partition_point(|touch| touch.row() < middle));
        // All touches of one row stay together; a batch of nothing else is not cut.
        if !low.is_empty() {
            let (low_stretch, high_stretch) = stretch.split(middle);
            rayon::join(|| step(low_stretch, low), || step(high_stretch, high));
            return;
        }
    }
    for places in touches.chunk_by(|one, other| one.row() == other.row()) {
        stretch.step(places[0].row(), places);
    }
}

/// Fewer than this are not worth another task.
const TOUCHES_A_TASK: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Collects the places of each row.
    struct Places<'a> {
        first: usize,
        rows: &'a mut [Vec<usize>],
    }

    impl Stretch for Places<'_> {
        fn split(self, row: usize) -> (Self, Self) {
            let (low, high) = self.rows.split_at_mut(row - self.first);
            (Self { first: self.first, rows: low }, Self { first: row, rows: high })
        }

        fn step(&mut self, row: usize, places: &[Touch]) {
            self.rows[row - self.first].extend(places.iter().map(|touch| touch.place()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn each_touched_row_is_stepped_once_with_its_places_in_order(
            ids in prop::collection::vec(prop_oneof![0u32..50, Just(7)], 0..3 * TOUCHES_A_TASK),
        ) {
            let mut rows = vec![Vec::new(); 50];
            step(Places { first: 0, rows: &mut rows }, &touches(&ids));
            for (row, places) in (0..).zip(rows) {
                let expected: Vec<usize> = (0..ids.len()).filter(|&place| ids[place] == row).collect();
                prop_assert_eq!(places, expected);
            }
        }
    }

    #[test]
    fn the_touches_of_some_rows_can_be_left_out() {
        let ids = [5, 2, 9, 5, 0];
        let found: Vec<_> =
            touches_but(&ids, &[2, 5]).iter().map(|touch| (touch.row(), touch.place())).collect();
        assert_eq!(found, [(0, 4), (9, 2)]);
        assert_eq!(touches_but(&ids, &[]), touches(&ids));
    }

    #[test]
    fn the_touches_of_the_first_rows_come_first() {
        let touches = touches(&[5, 2, 5, 9]);
        let low: Vec<_> = below(&touches, 6).iter().map(|touch| (touch.row(), touch.place())).collect();
        assert_eq!(low, [(2, 1), (5, 0), (5, 2)]);
        assert!(below(&touches, 2).is_empty());
    }
}
