//! `pairs.cu` on a device, beside rows that are put together here.

use super::{
    Bench, Checked, NOT_THERE, POISON,
    numbers::{Numbers, words},
};
use crate::engine::cuda::device::{Argument, DeviceError, signed};

impl Bench {
    pub(super) fn check_pairs(&mut self) -> Checked {
        // Words are right or are not.
        let mut checked = Checked::new("pairs", 0.0);
        for (rows, _) in self.batches.clone() {
            for id_columns in [COLUMNS, 4, 0] {
                let case = Pairs::new(rows, id_columns);
                checked.begin(format!("{rows} rows of {id_columns} ids and other words"));
                let result = self.pairs(&case, &mut checked);
                checked.end(result);
            }
        }
        checked
    }

    fn pairs(&mut self, case: &Pairs, checked: &mut Checked) -> Result<(), DeviceError> {
        let &Pairs { rows, id_columns, .. } = case;
        let sources: Vec<u8> = SOURCES.iter().flat_map(|source| source.to_le_bytes()).collect();
        let [user, items, sources] =
            [self.put(&words(&case.user))?, self.put(&words(&case.items))?, self.put(&sources)?];
        let widths = [id_columns, COLUMNS - id_columns];
        let room = widths.map(|width| (rows * width + 1) * 4);
        let [ids, dense] = [self.put(&vec![POISON; room[0]])?, self.put(&vec![POISON; room[1]])?];
        let unsigned = |number: usize| Argument::Unsigned(u32::try_from(number).expect("a few"));
        let arguments = [
            Argument::Memory(user.at(0)),
            Argument::Memory(items.at(0)),
            signed(ITEM_COLUMNS),
            Argument::Memory(sources.at(0)),
            signed(COLUMNS),
            signed(id_columns),
            unsigned(FIRST),
            unsigned(rows),
            Argument::Memory(ids.at(0)),
            Argument::Memory(dense.at(0)),
        ];
        // A thread more than there are words, of which a launch must have one.
        self.launch(kernels::PAIRS.kernels[0], rows * COLUMNS + 1, &arguments)?;
        for ((memory, bytes), expected) in [ids, dense].iter().zip(room).zip(case.expected()) {
            let found = self.fetch(memory.at(0), bytes)?;
            let (there, rest) = found.split_at(bytes - 4);
            checked.expect(there == words(&expected), "other words");
            checked.expect(rest == [POISON; 4], NOT_THERE);
        }
        Ok(())
    }
}

/// Which of an item's words stands in each column, -1 for the user's.
const SOURCES: [i32; 7] = [-1, 1, 0, -1, 2, -1, 1];
const COLUMNS: usize = SOURCES.len();
const ITEM_COLUMNS: usize = 3;
/// The item of the first row.
const FIRST: usize = 11;

/// A user and items.
struct Pairs {
    rows: usize,
    id_columns: usize,
    user: Vec<usize>,
    items: Vec<usize>,
}

impl Pairs {
    fn new(rows: usize, id_columns: usize) -> Self {
        let mut numbers = Numbers(29);
        let mut take = |count: usize| (0..count).map(|_| numbers.below(1 << 30) as usize).collect();
        Self { rows, id_columns, user: take(COLUMNS), items: take((FIRST + rows) * ITEM_COLUMNS) }
    }

    /// Ids and the other words.
    fn expected(&self) -> [Vec<usize>; 2] {
        let word = |row: usize, column: usize| match usize::try_from(SOURCES[column]) {
            Ok(source) => self.items[(FIRST + row) * ITEM_COLUMNS + source],
            Err(_) => self.user[column],
        };
        let all = |columns: std::ops::Range<usize>| {
            (0..self.rows).flat_map(|row| columns.clone().map(move |column| word(row, column))).collect()
        };
        [all(0..self.id_columns), all(self.id_columns..COLUMNS)]
    }
}
