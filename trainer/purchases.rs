//! Who bought what in one stretch of the log. Whatever is asked of it is answered from those rows alone: made from
//! the training rows, it cannot know the test period.

use std::ops::Range;

use crate::log::Log;

/// The purchases of a range of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchases {
    /// For each user, by code: the items, by code and ascending, with the last row in which the user bought them.
    baskets: Vec<Vec<(u32, u32)>>,
    last_row_by_user: Vec<Option<u32>>,
    last_row_by_item: Vec<Option<u32>>,
    items: Vec<u32>,
}

impl Purchases {
    /// Collects the purchases of `rows`.
    pub fn of(log: &Log, rows: Range<usize>) -> Self {
        let mut baskets = vec![Vec::new(); log.users.distinct()];
        let mut last_row_by_user = vec![None; log.users.distinct()];
        let mut last_row_by_item = vec![None; log.items.distinct()];
        for row in rows {
            let (user, item) = (log.users.codes()[row], log.items.codes()[row]);
            let row = u32::try_from(row).expect("a log of fewer than four billion rows");
            baskets[user as usize].push((item, row));
            last_row_by_user[user as usize] = Some(row);
            last_row_by_item[item as usize] = Some(row);
        }
        baskets.iter_mut().for_each(keep_last_of_each_item);
        let sold = last_row_by_item.iter().enumerate().filter(|(_, row)| row.is_some());
        let items = sold.map(|(item, _)| u32::try_from(item).expect("a code")).collect();
        Self { baskets, last_row_by_user, last_row_by_item, items }
    }

    /// The items that anyone bought, ascending.
    pub fn items(&self) -> &[u32] {
        &self.items
    }

    /// The users, by code.
    pub fn users(&self) -> Range<u32> {
        0..u32::try_from(self.baskets.len()).expect("a code")
    }

    /// What `user` bought: items, ascending, each with the last row of its purchase.
    pub fn basket(&self, user: u32) -> &[(u32, u32)] {
        &self.baskets[user as usize]
    }

    /// Whether `user` bought `item`.
    pub fn bought(&self, user: u32, item: u32) -> bool {
        self.basket(user).binary_search_by_key(&item, |&(item, _)| item).is_ok()
    }

    /// The last row of `user`.
    pub fn last_row_of_user(&self, user: u32) -> Option<u32> {
        self.last_row_by_user[user as usize]
    }

    /// The last row of `item`.
    pub fn last_row_of_item(&self, item: u32) -> Option<u32> {
        self.last_row_by_item[item as usize]
    }
}

/// Rows come in their order, so the last of equal items is the latest.
fn keep_last_of_each_item(basket: &mut Vec<(u32, u32)>) {
    basket.sort_unstable_by_key(|&(item, row)| (item, std::cmp::Reverse(row)));
    basket.dedup_by_key(|&mut (item, _)| item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Ids;

    fn log() -> Log {
        Log {
            users: Ids::of(["a", "b", "a", "a", "c"]),
            items: Ids::of(["x", "x", "y", "x", "z"]),
            times: vec![1, 2, 3, 4, 5],
            ..Log::default()
        }
    }

    #[test]
    fn a_basket_holds_each_item_once_with_its_last_row() {
        let purchases = Purchases::of(&log(), 0..5);
        assert_eq!(purchases.basket(0), [(0, 3), (1, 2)]);
        assert!(purchases.bought(1, 0) && !purchases.bought(1, 1));
        assert_eq!((purchases.last_row_of_user(0), purchases.last_row_of_item(0)), (Some(3), Some(3)));
    }

    #[test]
    fn rows_outside_the_range_are_unknown() {
        let purchases = Purchases::of(&log(), 0..3);
        assert_eq!(purchases.items(), [0, 1]);
        assert_eq!(purchases.last_row_of_user(2), None);
        assert_eq!(purchases.basket(0), [(0, 0), (1, 2)]);
        assert!(!purchases.bought(2, 2));
    }
}
