//! The rows of a user with items, word by word.

use proptest::{collection::vec, prelude::*};

use crate::emulator::{arguments, launch};

/// Stands where nothing must be written.
const POISON: u32 = u32::MAX / 3;

#[derive(Clone, Debug)]
struct Case {
    /// Which of an item's words stands in each column, -1 for the user's.
    sources: Vec<i32>,
    id_columns: usize,
    user: Vec<u32>,
    items: Vec<u32>,
    item_columns: usize,
    first: usize,
    rows: usize,
    block: u32,
}

prop_compose! {
    fn cases()(item_columns in 0_usize..4, columns in 1_usize..9, items in 1_usize..30)(
        sources in vec(-1..item_columns as i32, columns),
        id_columns in 0..=columns,
        user in vec(any::<u32>(), columns),
        words in vec(any::<u32>(), items * item_columns),
        (first, rows) in (0..items).prop_flat_map(move |first| (Just(first), 0..=items - first)),
        block in prop_oneof![Just(32_u32), Just(96)],
        item_columns in Just(item_columns),
    ) -> Case {
        Case { sources, id_columns, user, items: words, item_columns, first, rows, block }
    }
}

impl Case {
    /// Ids and dense values.
    fn expected(&self) -> [Vec<u32>; 2] {
        let word = |row: usize, column: usize| match usize::try_from(self.sources[column]) {
            Ok(source) => self.items[(self.first + row) * self.item_columns + source],
            Err(_) => self.user[column],
        };
        let words = |columns: std::ops::Range<usize>| {
            (0..self.rows).flat_map(|row| columns.clone().map(move |column| word(row, column))).collect()
        };
        [words(0..self.id_columns), words(self.id_columns..self.sources.len())]
    }

    /// The same as the kernel leaves it, with what must not be written behind both.
    fn found(&self) -> [Vec<u32>; 2] {
        let columns = self.sources.len();
        let room = |columns: usize| vec![POISON; self.rows * columns + 3];
        let (mut ids, mut dense) = (room(self.id_columns), room(columns - self.id_columns));
        // More threads than there are words.
        let grid = (self.rows * columns / self.block as usize) as u32 + 1;
        // SAFETY: The buffers have the shapes that pairs.cu names.
        unsafe {
            launch(
                "pairs",
                grid,
                self.block,
                &mut arguments![
                    self.user.as_ptr(),
                    self.items.as_ptr(),
                    self.item_columns as i32,
                    self.sources.as_ptr(),
                    columns as i32,
                    self.id_columns as i32,
                    self.first as u32,
                    self.rows as u32,
                    ids.as_mut_ptr(),
                    dense.as_mut_ptr(),
                ],
            );
        }
        [ids, dense]
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_row_has_the_words_of_its_user_and_of_its_item(case in cases()) {
        for (found, expected) in case.found().into_iter().zip(case.expected()) {
            let (there, rest) = found.split_at(expected.len());
            prop_assert_eq!(there, expected);
            prop_assert!(rest.iter().all(|&word| word == POISON), "rows that are not there were written");
        }
    }
}
