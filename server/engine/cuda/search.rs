//! A catalogue on a GPU: the columns of its items lie there, and a search scores a user with each of them and keeps the best,
//! so that nothing of an item goes over the bus and only the best come back.
//!
//! ```text
//! user ─▶ for each block of items: rows (pairs) ─▶ gather, layers, head of a slot ─▶ scores ─▶ top-k ─▶ keys
//! ```
//!
//! A block is as large as the largest batch of the model, and is computed as such a batch is, by the same kernels and
//! products, so a score is the one that a row would get. The launches are put into the stream one by one, for what they name
//! differs from block to block, and waited for every [`TURN`] blocks, so that a search which nobody waits for ends early.

use std::{ops::Range, sync::Arc};

use super::{
    CudaEngine, CudaModel, RESERVED_BYTES,
    device::{Address, Argument, DeviceError, Launch, signed},
    engine::Exchange,
    memory::{Memory, Pinned},
    plan::{ItemsLayout, Part, SearchLayout},
    resident::Resident,
};
use crate::{
    engine::{Engine, EngineError},
    tensor::{Rows, Signature},
};

/// What is to be held of a catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    /// How many items, at least one.
    pub count: u32,
    /// Of each column of ids, and then of each of dense values, whether it is the item's. Every other one is the user's.
    pub is_items: &'a [bool],
    /// Searches that it is held for.
    pub searches: usize,
}

/// What is asked of a catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// A row of one. What it says of an item is not looked at.
    pub user: &'a Rows,
    /// How many items, from 1 to [`CudaSearch::MOST_ITEMS`].
    pub k: usize,
    /// Items that are not to be answered, ascending, each once.
    pub excluded: &'a [u32],
}

/// What came of a search.
#[derive(Clone, Debug, PartialEq)]
pub enum Searched {
    /// The best items by their numbers, with their scores, best first; of two with one score the one with the smaller number.
    Best(Vec<(u32, f32)>),
    /// The score of some item is no finite number.
    NotFinite,
    /// Nobody waits for it any more.
    Stopped,
}

/// Items in a GPU's memory, of which searches are opened.
pub struct CudaItems {
    held: Arc<Held>,
    signature: Signature,
}

/// What searches share.
struct Held {
    layout: ItemsLayout,
    search: SearchLayout,
    memory: Memory,
    resident: Arc<Resident>,
}

/// A search of items on a GPU, with a slot of its own, which answers batches as well.
pub struct CudaSearch {
    /// Declared first, so that it has waited before the memory that its work touches is given back.
    engine: CudaEngine,
    memory: Memory,
    pinned: Pinned,
    held: Arc<Held>,
}

impl CudaModel {
    /// Puts the items of a catalogue into the GPU's memory, if there is room for them and for all searches. `fill` replaces
    /// rows by those of a range of items with any user, and says whether to go on; `None` where it does not.
    pub fn hold_items(
        &self,
        items: Items<'_>,
        mut fill: impl FnMut(Range<u32>, &mut Rows) -> bool,
    ) -> Result<Option<CudaItems>, EngineError> {
        let resident = &self.resident;
        let row_columns = resident.plan.id_columns + resident.plan.dense_columns;
        if items.is_items.len() != row_columns {
            return Err(EngineError::other_rows());
        }
        let columns = items.is_items.iter().filter(|&&is_items| is_items).count();
        let layout = ItemsLayout::new(items.count, (columns, row_columns))?;
        let search = SearchLayout::new(&layout, row_columns)?;
        self.admit(&layout, &search, items.searches)?;
        let mut memory = Memory::new(&resident.device, layout.bytes)?;
        let most = resident.plan.max_rows();
        let rest = blocks(items.count, most).last().map_or(0, |last| last.len());
        let counts = [most, rest, items.count as usize].map(|count| u32::try_from(count).expect("counted"));
        memory.upload(layout.counts.offset, bytemuck::cast_slice(&counts))?;
        memory.upload(layout.sources.offset, bytemuck::cast_slice(&sources(items.is_items)))?;
        let (mut rows, mut words) = (Rows::new(&self.signature), Vec::new());
        for range in blocks(items.count, PIECE_ITEMS) {
            rows.clear();
            if !fill(range.clone(), &mut rows) {
                return Ok(None);
            }
            assert_eq!(rows.len(), range.len(), "a row an item");
            words.clear();
            self.item_words(&rows, items.is_items, &mut words)?;
            let offset = layout.items.offset + range.start as usize * columns * size_of::<u32>();
            memory.upload(offset, bytemuck::cast_slice(&words))?;
        }
        let held = Held { layout, search, memory, resident: Arc::clone(resident) };
        Ok(Some(CudaItems { held: Arc::new(held), signature: self.signature.clone() }))
    }

    fn admit(&self, items: &ItemsLayout, search: &SearchLayout, searches: usize) -> Result<(), EngineError> {
        let each = self.resident.plan.slot.bytes.checked_add(search.bytes);
        let needed = each.and_then(|each| each.checked_mul(searches)?.checked_add(items.bytes));
        let (needed, free) = (needed.unwrap_or(usize::MAX), self.resident.device.free_bytes()?);
        if needed > free.saturating_sub(RESERVED_BYTES) {
            return Err(EngineError::CatalogueMemory { needed, free, reserved: RESERVED_BYTES });
        }
        Ok(())
    }

    /// Appends the words of rows that are their items', row after row.
    fn item_words(&self, rows: &Rows, is_items: &[bool], to: &mut Vec<u32>) -> Result<(), EngineError> {
        let (ids, dense) = self.resident.numbers(rows)?;
        for row in 0..rows.len() {
            let words = words_of(row, &self.resident, (ids, dense));
            to.extend(words.zip(is_items).filter_map(|(word, is_items)| is_items.then_some(word)));
        }
        Ok(())
    }
}

impl CudaItems {
    /// A search, whose slot is ready as that of [`CudaModel::open`] is.
    pub fn open(&self) -> Result<CudaSearch, EngineError> {
        let held = Arc::clone(&self.held);
        let engine = CudaEngine::open(Arc::clone(&held.resident), &self.signature)?;
        let memory = Memory::new(&held.resident.device, held.search.bytes)?;
        let pinned = Pinned::new(&held.resident.device, held.search.exchanged())?;
        Ok(CudaSearch { engine, memory, pinned, held })
    }

    /// Bytes of the GPU that it takes with so many searches, their slots among them.
    pub fn bytes(&self, searches: usize) -> usize {
        let each = self.held.resident.plan.slot.bytes.saturating_add(self.held.search.bytes);
        each.saturating_mul(searches).saturating_add(self.held.layout.bytes)
    }
}

impl Engine for CudaSearch {
    fn signature(&self) -> &Signature {
        self.engine.signature()
    }

    fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError> {
        self.engine.run(rows, scores)
    }
}

impl CudaSearch {
    /// The most items that it answers.
    pub const MOST_ITEMS: usize = kernels::TOPK_ITEMS;

    /// Whether it can be asked for so many items without so many.
    pub fn takes(&self, k: usize, excluded: usize) -> bool {
        let room = self.held.search.excluded.bytes / size_of::<u32>();
        (1..=Self::MOST_ITEMS).contains(&k) && excluded <= room
    }

    /// The best items for a user. Every now and then `go_on` is asked whether anybody still waits.
    ///
    /// # Panics
    /// Where it does not take as many items, or as many that are excluded.
    pub fn best(
        &mut self,
        search: Search<'_>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Searched, EngineError> {
        assert!(self.takes(search.k, search.excluded.len()), "within its bounds");
        self.engine.usable()?;
        self.write(search)?;
        match self.compute(search, go_on) {
            Ok(true) => self.read(search.k),
            Ok(false) => Ok(Searched::Stopped),
            Err(error) => Err(self.engine.fail(error)),
        }
    }

    fn write(&mut self, Search { user, excluded, .. }: Search<'_>) -> Result<(), EngineError> {
        let resident = &self.held.resident;
        let words = resident.numbers(user)?;
        if user.len() != 1 {
            return Err(EngineError::other_rows());
        }
        let words: Vec<u32> = words_of(0, resident, words).collect();
        let SearchLayout { faults, user, excluded: place, .. } = self.held.search;
        self.pinned.write(faults.offset, &vec![0; faults.bytes]);
        self.pinned.write(user.offset, bytemuck::cast_slice(&words));
        self.pinned.write(place.offset, bytemuck::cast_slice(excluded));
        Ok(())
    }

    /// Whether it came to an end.
    fn compute(
        &mut self,
        Search { k, excluded, .. }: Search<'_>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, DeviceError> {
        let held = Arc::clone(&self.held);
        let bytes = held.search.excluded.offset + size_of_val(excluded);
        let (to, from) = (self.memory.at(0), self.pinned.at(0));
        // SAFETY: Both are as large as the layout says, belong to this search, which outlives its stream, and are left alone
        // until the work is done.
        unsafe { self.engine.slot.stream.copy_in(to, from, bytes) }?;
        for (number, block) in blocks(held.layout.count, held.resident.plan.max_rows()).enumerate() {
            if number > 0 && number.is_multiple_of(TURN) {
                self.engine.slot.stream.wait()?;
                if !go_on() {
                    return Ok(false);
                }
            }
            self.score(block)?;
        }
        self.keep_best(k, excluded.len())?;
        let bytes = held.search.found.offset + k * size_of::<u64>();
        let (to, from) = (self.pinned.at(0), self.memory.at(0));
        // SAFETY: As above.
        unsafe { self.engine.slot.stream.copy_out(to, from, bytes) }?;
        self.engine.slot.stream.wait()?;
        Ok(true)
    }

    /// Puts the work of a block into the stream.
    fn score(&mut self, block: Range<u32>) -> Result<(), DeviceError> {
        let held = Arc::clone(&self.held);
        let Resident { plan, .. } = &*held.resident;
        let rows = block.end - block.start;
        let number = plan.bucket(rows as usize).expect("a block is no larger than the largest bucket");
        let bucket = plan.buckets[number];
        let columns = plan.id_columns + plan.dense_columns;
        let start = self.engine.slot.part(plan.slot.exchange);
        let [user, scores, fault] =
            [held.search.user, held.search.scores, held.search.faults].map(|part| self.at(part));
        let arguments = [
            Argument::Memory(user),
            Argument::Memory(held.at(held.layout.items)),
            signed(held.layout.columns),
            Argument::Memory(held.at(held.layout.sources)),
            signed(columns),
            signed(plan.id_columns),
            Argument::Unsigned(block.start),
            Argument::Unsigned(rows),
            Argument::Memory(start),
            Argument::Memory(start.at(bucket.dense)),
        ];
        self.engine.slot.launch(kernels::PAIRS.kernels[0], rows as usize * columns, &arguments)?;
        // The last block may be as large as the others, and is found beside them then.
        let is_full = rows as usize == plan.max_rows();
        let rows = held.at(held.layout.counts).at(if is_full { FULL } else { REST } * size_of::<u32>());
        let scores = scores.at(block.start as usize * size_of::<f32>());
        self.engine.slot.compute(bucket, Exchange { start, rows, scores, fault })
    }

    /// Puts the work into the stream that leaves the keys of the best items where they are found: of each tile first, and then
    /// of what that leaves.
    fn keep_best(&mut self, k: usize, excluded: usize) -> Result<(), DeviceError> {
        let held = Arc::clone(&self.held);
        let SearchLayout { faults, found, excluded: without, scores, keys, .. } = &held.search;
        let mut tiles = (held.layout.count as usize).div_ceil(kernels::TOPK_TILE);
        let place = |tiles: usize, turn: usize| if tiles == 1 { *found } else { keys[turn % 2] };
        let mut best = self.at(place(tiles, 0));
        let arguments = [
            Argument::Memory(held.at(held.layout.counts).at(ITEMS * size_of::<u32>())),
            Argument::Memory(self.at(*scores)),
            Argument::Memory(self.at(*without)),
            signed(excluded),
            signed(k),
            Argument::Memory(best),
            Argument::Memory(self.at(*faults).at(NOT_FINITE)),
        ];
        let [items_kernel, keys_kernel] = [0, 1].map(|number| kernels::TOPK.kernels[number]);
        self.engine.slot.launch(items_kernel, tiles * Launch::BLOCK as usize, &arguments)?;
        let mut turn = 0;
        while tiles > 1 {
            let keys = tiles * k;
            tiles = keys.div_ceil(kernels::TOPK_TILE);
            turn += 1;
            let fewer = self.at(place(tiles, turn));
            let keys = u32::try_from(keys).expect("half as many as items, or fewer");
            let arguments =
                [Argument::Memory(best), Argument::Unsigned(keys), signed(k), Argument::Memory(fewer)];
            self.engine.slot.launch(keys_kernel, tiles * Launch::BLOCK as usize, &arguments)?;
            best = fewer;
        }
        Ok(())
    }

    fn read(&self, k: usize) -> Result<Searched, EngineError> {
        let SearchLayout { faults, found, .. } = self.held.search;
        let mut words = [0_u32; 2];
        self.pinned.read(faults.offset, bytemuck::cast_slice_mut(&mut words));
        let mut keys = vec![0_u64; k];
        self.pinned.read(found.offset, bytemuck::cast_slice_mut(&mut keys));
        match words {
            [0, 0] => Ok(Searched::Best(keys.into_iter().filter_map(kernels::item_of).collect())),
            [0, _] => Ok(Searched::NotFinite),
            _ => Err(EngineError::Ids),
        }
    }

    fn at(&self, part: Part) -> Address {
        self.memory.at(part.offset)
    }
}

impl Held {
    fn at(&self, part: Part) -> Address {
        self.memory.at(part.offset)
    }
}

/// The words of a row: its ids, and then its dense values as they are.
fn words_of<'r>(
    row: usize,
    resident: &Resident,
    (ids, dense): (&'r [i32], &'r [f32]),
) -> impl Iterator<Item = u32> + 'r {
    let (id_columns, dense_columns) = (resident.plan.id_columns, resident.plan.dense_columns);
    let ids = ids[row * id_columns..][..id_columns].iter().map(|id| id.cast_unsigned());
    let dense = dense[row * dense_columns..][..dense_columns].iter().map(|number| number.to_bits());
    ids.chain(dense)
}

/// Which of an item's words stands in each column, -1 for the user's.
fn sources(is_items: &[bool]) -> Vec<i32> {
    let mut next = 0..;
    is_items.iter().map(|&is_items| if is_items { next.next().unwrap_or(-1) } else { -1 }).collect()
}

/// The numbers below `items` in blocks of so many.
fn blocks(items: u32, rows: usize) -> impl Iterator<Item = Range<u32>> {
    let length = u32::try_from(rows).unwrap_or(u32::MAX);
    (0..items).step_by(rows).map(move |first| first..items.min(first.saturating_add(length)))
}

/// Blocks that are waited for together: about a millisecond's, beside which a wait costs little.
const TURN: usize = 32;

/// Items that are in memory at a time while they are uploaded.
const PIECE_ITEMS: usize = 4096;

/// Where the words of `ItemsLayout::counts` lie.
const FULL: usize = 0;
const REST: usize = 1;
const ITEMS: usize = 2;

/// Where the word for a score that is no finite number lies behind that for an id that is none, in bytes.
const NOT_FINITE: usize = 4;

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::engine::{
        Network,
        cuda::{CudaModelOptions, Precision, device::Device, fake::Fake, sample},
    };

    const PLENTY: usize = 8 << 30;

    /// A network on a fake, and items for it.
    struct Shop {
        fake: Arc<Fake>,
        network: Network,
        model: CudaModel,
        is_items: Vec<bool>,
        /// The rows whose columns the items have, and one more, the user.
        rows: Rows,
        count: usize,
    }

    impl Shop {
        /// Of every row's columns the first is the user's, then every other one.
        fn new(network: Network, precision: Precision, (max_rows, count): (usize, usize)) -> Self {
            let fake = Fake::new(PLENTY);
            let device: Arc<dyn Device> = Arc::clone(&fake) as _;
            let max_rows = NonZeroUsize::new(max_rows).expect("not zero");
            let options = CudaModelOptions {
                precision,
                max_rows,
                slots: NonZeroUsize::MIN,
                direct_bytes: CudaModelOptions::DIRECT_BYTES,
            };
            let model = CudaModel::load(device, &network, &sample::signature(&network), options);
            let columns = network.id_columns + network.dense_columns;
            let is_items = (0..columns).map(|column| column % 2 == 1).collect();
            let rows = sample::rows(&network, count + 1);
            Self { fake, network, model: model.expect("loaded"), is_items, rows, count }
        }

        fn small() -> Self {
            Self::new(sample::wide_and_deep(), Precision::Single, (8, 50))
        }

        fn items(&self, searches: usize) -> Items<'_> {
            let count = u32::try_from(self.count).expect("a few");
            Items { count, is_items: &self.is_items, searches }
        }

        fn hold(&self) -> CudaItems {
            let fill = |range: Range<u32>, rows: &mut Rows| {
                rows.extend_from(&self.rows, range.start as usize..range.end as usize);
                true
            };
            self.model.hold_items(self.items(1), fill).expect("room for them").expect("all of them")
        }

        fn user(&self) -> Rows {
            let mut user = Rows::new(&sample::signature(&self.network));
            user.extend_from(&self.rows, self.count..self.count + 1);
            user
        }

        /// The row of the user with an item.
        fn pair(&self, item: usize) -> Rows {
            let mut pair = self.user();
            let ids = self.network.id_columns;
            let mut row = Rows::new(&sample::signature(&self.network));
            row.extend_from(&self.rows, item..item + 1);
            for (column, _) in self.is_items.iter().enumerate().filter(|(_, is_items)| **is_items) {
                if column < ids {
                    pair.last_i32(0)[column] = row.last_i32(0)[column];
                } else {
                    pair.last_f32(1)[column - ids] = row.last_f32(1)[column - ids];
                }
            }
            pair
        }

        /// The best items by the scores that an engine gives their rows.
        fn expected(&self, k: usize, excluded: &[u32]) -> Vec<(u32, f32)> {
            let mut engine = self.model.open().expect("opened");
            let mut score = |item: usize| {
                let mut scores = Vec::new();
                engine.run(&self.pair(item), &mut scores).expect("a score");
                scores[0]
            };
            let all = (0_u32..).zip((0..self.count).map(&mut score));
            let mut all: Vec<_> = all.filter(|(item, _)| !excluded.contains(item)).collect();
            all.sort_by(|(left, a), (right, b)| b.total_cmp(a).then(left.cmp(right)));
            all.truncate(k);
            all
        }
    }

    fn best(search: &mut CudaSearch, user: &Rows, k: usize, excluded: &[u32]) -> Searched {
        search.best(Search { user, k, excluded }, &mut || true).expect("an answer")
    }

    #[test]
    fn the_best_items_are_those_whose_rows_score_best() {
        for network in [sample::wide_and_deep, sample::deep_and_cross, sample::lists, sample::without_layers]
        {
            for precision in [Precision::Single, Precision::Half] {
                // Less than a block, all of one, several with a rest and without.
                for (max_rows, count) in [(40, 1), (40, 40), (16, 33), (8, 64)] {
                    let shop = Shop::new(network(), precision, (max_rows, count));
                    let mut search = shop.hold().open().expect("opened");
                    for k in [1, 5, 100] {
                        let found = best(&mut search, &shop.user(), k, &[]);
                        assert_eq!(found, Searched::Best(shop.expected(k, &[])), "{k} of {count}");
                    }
                }
            }
        }
    }

    #[test]
    fn more_items_than_a_tile_are_searched_and_of_equal_ones_the_first_are_better() {
        // One column with twenty ids is the item's, so that a score is that of many.
        let shop = Shop::new(sample::deep_and_cross(), Precision::Single, (300, 5000));
        let mut search = shop.hold().open().expect("opened");
        for k in [3, 300, CudaSearch::MOST_ITEMS] {
            let found = best(&mut search, &shop.user(), k, &[]);
            assert_eq!(found, Searched::Best(shop.expected(k, &[])), "{k}");
        }
    }

    #[test]
    fn excluded_items_are_not_answered_and_forgotten_afterwards() {
        let shop = Shop::small();
        let mut search = shop.hold().open().expect("opened");
        let all = shop.expected(50, &[]);
        let mut excluded: Vec<u32> = all[..7].iter().map(|(item, _)| *item).collect();
        excluded.sort_unstable();
        let user = shop.user();
        assert_eq!(best(&mut search, &user, 5, &excluded), Searched::Best(all[7..12].to_vec()));
        assert_eq!(best(&mut search, &user, 50, &[]), Searched::Best(all));
        let everything: Vec<u32> = (0..50).collect();
        assert_eq!(best(&mut search, &user, 5, &everything), Searched::Best(Vec::new()));
        assert!(search.takes(CudaSearch::MOST_ITEMS, 50) && !search.takes(1, 51));
        assert!(!search.takes(0, 0) && !search.takes(CudaSearch::MOST_ITEMS + 1, 0));
    }

    #[test]
    fn a_search_answers_batches_as_well_and_neither_disturbs_the_other() {
        let shop = Shop::small();
        let mut search = shop.hold().open().expect("opened");
        let expected = Searched::Best(shop.expected(9, &[]));
        let (rows, mut before, mut after) = (shop.pair(3), Vec::new(), Vec::new());
        search.run(&rows, &mut before).expect("scores");
        assert_eq!(best(&mut search, &shop.user(), 9, &[]), expected);
        search.run(&rows, &mut after).expect("scores");
        assert_eq!(before, after);
        assert_eq!(best(&mut search, &shop.user(), 9, &[]), expected);
    }

    #[test]
    fn a_search_that_nobody_waits_for_ends_after_some_blocks() {
        let shop = Shop::new(sample::without_layers(), Precision::Single, (1, 2 * TURN + 1));
        let mut search = shop.hold().open().expect("opened");
        let user = shop.user();
        let mut asked = 0;
        let mut go_on = || {
            asked += 1;
            asked < 2
        };
        let search_for = Search { user: &user, k: 1, excluded: &[] };
        assert_eq!(search.best(search_for, &mut go_on).expect("no error"), Searched::Stopped);
        assert_eq!(asked, 2, "once between two turns");
        assert_eq!(best(&mut search, &user, 3, &[]), Searched::Best(shop.expected(3, &[])));
    }

    #[test]
    fn what_is_no_score_and_what_is_no_id_fails_its_search_alone() {
        let mut network = sample::deep_and_cross();
        network.last[0] = f32::NAN;
        let shop = Shop::new(network, Precision::Single, (8, 20));
        let mut search = shop.hold().open().expect("opened");
        assert_eq!(best(&mut search, &shop.user(), 3, &[]), Searched::NotFinite);
        let shop = Shop::small();
        let mut search = shop.hold().open().expect("opened");
        let mut bad = shop.user();
        bad.last_i32(0)[0] = -1;
        let error = search.best(Search { user: &bad, k: 1, excluded: &[] }, &mut || true);
        assert!(matches!(error, Err(EngineError::Ids)), "{error:?}");
        assert_eq!(best(&mut search, &shop.user(), 3, &[]), Searched::Best(shop.expected(3, &[])));
    }

    #[test]
    fn users_of_another_signature_are_refused() {
        let shop = Shop::small();
        let mut search = shop.hold().open().expect("opened");
        for other in [sample::rows(&sample::lists(), 1), sample::rows(&shop.network, 2)] {
            let error = search.best(Search { user: &other, k: 1, excluded: &[] }, &mut || true);
            assert!(matches!(error, Err(EngineError::Signature(_))), "{error:?}");
        }
        let items = Items { is_items: &[true], ..shop.items(1) };
        let error = shop.model.hold_items(items, |_, _| true).map(drop);
        assert!(matches!(error, Err(EngineError::Signature(_))));
    }

    #[test]
    fn what_is_held_is_counted_and_given_back() {
        let shop = Shop::small();
        let before = shop.fake.allocated_bytes();
        let items = shop.hold();
        let searches = [(); 2].map(|()| items.open().expect("opened"));
        assert_eq!(shop.fake.allocated_bytes() - before, items.bytes(2));
        drop(items);
        let Shop { fake, model, .. } = shop;
        drop(model);
        assert!(fake.held() > 0, "the tables and the items live as long as a search");
        drop(searches);
        assert_eq!(fake.held(), 0);
    }

    #[test]
    fn a_catalogue_that_does_not_fit_or_is_not_wanted_any_more_is_not_held() {
        let shop = Shop::small();
        let (calls, held) = (shop.fake.calls(), shop.fake.held());
        let many = Items { searches: PLENTY / (32 << 20), ..shop.items(1) };
        let error = shop.model.hold_items(many, |_, _| true).map(drop).expect_err("a slot each");
        assert!(matches!(error, EngineError::CatalogueMemory { free: PLENTY, .. }), "{error}");
        assert_eq!(shop.fake.calls(), calls + 1, "nothing was allocated");
        let stopped = shop.model.hold_items(shop.items(1), |_, _| false).expect("no error");
        assert!(stopped.is_none());
        assert_eq!(shop.fake.held(), held);
    }

    #[test]
    fn a_failure_of_any_call_is_said_for_ever_and_leaves_nothing_behind() {
        let shop = Shop::small();
        let items = shop.hold();
        let user = shop.user();
        let mut search = items.open().expect("opened");
        let before = shop.fake.calls();
        best(&mut search, &user, 2, &[]);
        let calls = shop.fake.calls() - before;
        assert!(calls > 20, "{calls}");
        drop(search);
        let held = shop.fake.held();
        for call in 0..calls {
            let mut search = items.open().expect("opened");
            shop.fake.fail_after(call);
            let mut ask = || {
                let error = search.best(Search { user: &user, k: 2, excluded: &[] }, &mut || true);
                error.expect_err("the device failed").to_string()
            };
            let first = ask();
            assert!(first.contains("the GPU failed") && first.contains("it was told to"), "{first}");
            let calls = shop.fake.calls();
            assert_eq!(ask(), first);
            let error = search.run(&user, &mut Vec::new()).expect_err("the same slot").to_string();
            assert_eq!(error, first);
            assert_eq!(shop.fake.calls(), calls, "the device is left alone");
            drop(search);
            assert_eq!(shop.fake.held(), held, "after call {call}");
        }
    }
}
