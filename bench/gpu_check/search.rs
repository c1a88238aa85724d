//! What it takes to find the best items of a catalogue on the GPU, and whether they are those that batches of all rows find.

use std::{ops::Range, time::Instant};

use anyhow::{bail, ensure};
use millrace::{
    engine::{
        Engine,
        cuda::{CudaEngine, CudaModel, CudaSearch, Items, Search, Searched},
    },
    tensor::{Rows, Values},
};

use crate::{
    measure::microseconds,
    report::{Distance, SearchReport},
    subject::Subject,
};

/// A model, and rows of whose columns every other one is the item's.
pub(crate) struct Searching<'m> {
    pub(crate) model: &'m CudaModel,
    pub(crate) subject: &'m Subject,
    pub(crate) tolerance: f64,
}

impl Searching<'_> {
    pub(crate) fn run(&self, engine: &mut CudaEngine, batch_rows: usize) -> anyhow::Result<SearchReport> {
        let network = &self.subject.network;
        let columns = network.id_columns + network.dense_columns;
        let is_items: Vec<bool> = (0..columns).map(is_items).collect();
        let [rows, user] = [(ITEMS, 77), (1, 78)].map(|(count, seed)| self.subject.rows(count, seed));
        let items = Items { count: u32::try_from(ITEMS)?, is_items: &is_items, searches: 1 };
        let fill = |range: Range<u32>, to: &mut Rows| {
            to.extend_from(&rows, range.start as usize..range.end as usize);
            true
        };
        let Some(held) = self.model.hold_items(items, fill)? else { bail!("nobody stopped it") };
        let mut search = held.open()?;
        let found = best(&mut search, &user)?;
        let expected = self.expected(engine, (&user, &rows), batch_rows)?;
        ensure!(found.len() == expected.len(), "{} items", found.len());
        let mut times = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let start = Instant::now();
            best(&mut search, &user)?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let median = times[RUNS / 2];
        Ok(SearchReport {
            items: ITEMS,
            k: K,
            bytes: held.bytes(1),
            from_rows: Distance::new(&found, expected.into_iter(), self.tolerance),
            p50_us: microseconds(median),
            items_per_s: ITEMS as f64 / median.as_secs_f64(),
        })
    }

    /// The best scores that the engine gives the rows of all pairs, in batches.
    fn expected(
        &self,
        engine: &mut CudaEngine,
        (user, items): (&Rows, &Rows),
        batch_rows: usize,
    ) -> anyhow::Result<Vec<f64>> {
        let (mut all, mut scores) = (Vec::with_capacity(ITEMS), Vec::new());
        let mut batch = Rows::new(&self.subject.signature);
        for first in (0..ITEMS).step_by(batch_rows) {
            batch.clear();
            (first..ITEMS.min(first + batch_rows))
                .for_each(|item| push_pair(user, (items, item), &mut batch));
            engine.run(&batch, &mut scores)?;
            all.extend(scores.iter().map(|&score| f64::from(score)));
        }
        all.sort_unstable_by(|one, other| other.total_cmp(one));
        all.truncate(K);
        Ok(all)
    }
}

/// Whether a column is the item's: of ids, and then of dense values.
fn is_items(column: usize) -> bool {
    column % 2 == 1
}

/// Appends the row of the user with an item.
fn push_pair(user: &Rows, (items, item): (&Rows, usize), to: &mut Rows) {
    to.extend_from(user, 0..1);
    let mut before = 0;
    for (input, column) in items.columns().iter().enumerate() {
        let width = column.width();
        for place in (0..width).filter(|place| is_items(before + place)) {
            match column.values() {
                Values::I32(ids) => to.last_i32(input)[place] = ids[item * width + place],
                Values::F32(numbers) => to.last_f32(input)[place] = numbers[item * width + place],
            }
        }
        before += width;
    }
}

fn best(search: &mut CudaSearch, user: &Rows) -> anyhow::Result<Vec<f32>> {
    match search.best(Search { user, k: K, excluded: &[] }, &mut || true)? {
        Searched::Best(best) => Ok(best.into_iter().map(|(_, score)| score).collect()),
        Searched::NotFinite => bail!("a score is no finite number"),
        Searched::Stopped => bail!("nobody stopped it"),
    }
}

pub(crate) const ITEMS: usize = 200_000;
const K: usize = 100;
const RUNS: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn a_pair_has_every_other_column_of_its_item() {
        let subject = Shape::Ranking.subject(1000).expect("small");
        let [items, user] = [(3, 1), (1, 2)].map(|(count, seed)| subject.rows(count, seed));
        let mut pair = Rows::new(&subject.signature);
        push_pair(&user, (&items, 2), &mut pair);
        let mut item = Rows::new(&subject.signature);
        item.extend_from(&items, 2..3);
        let mut user = user;
        for column in 0..26 {
            let from = if column % 2 == 1 { &mut item } else { &mut user };
            assert_eq!(pair.last_i32(0)[column], from.last_i32(0)[column]);
        }
        for column in 0..13 {
            let from = if column % 2 == 1 { &mut item } else { &mut user };
            assert_eq!(pair.last_f32(1)[column].to_bits(), from.last_f32(1)[column].to_bits());
        }
    }
}
