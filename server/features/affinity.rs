//! How alike an item is to what a customer has bought: the sum of its similarities to the items of the customer's
//! basket. Both the baskets and the most similar items of each item are as of the end of training.
//!
//! A table of scores by customer and item would grow with their product; this one grows with the log. A lookup asks a
//! filter of the basket for each similar item, and searches the basket for the few that it lets pass: a third of the time
//! and less of a walk along both lists, whose every step waits for the one before.
//!
//! The file is little-endian: the 8 bytes `MRAFFI01`; then twice, for baskets and for similar items, the number of
//! lists as U32, the number of their entries as U32, the lists' ends as U32 and the entries, rows of the second
//! feature's vocabulary, as U32, ascending within a list; last the similarities of the second entries as F32.

use serde::{Deserialize, Serialize};

use super::HistoryError;

/// A number that says how alike an id of the second feature is to those which the first feature's id goes with. It is
/// standardised to `(ln(1 + sum) - mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// What it is called; nobody sends it.
    pub name: String,
    /// The feature with baskets and the feature of what is in them, both with vocabularies.
    pub of: [String; 2],
    /// The mean that is taken off.
    pub mean: f32,
    /// What the rest is divided by, above zero.
    pub std: f32,
}

impl Affinity {
    /// The name of the table's file in the features folder.
    pub fn file(&self) -> String {
        format!("{}.affinity", self.name)
    }
}

/// Baskets and similarities, by rows of the vocabularies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AffinityTable {
    /// Rows of the second feature, ascending.
    baskets: Lists<u32>,
    /// The bits of the [`Filter`] of each basket.
    filters: Lists<u64>,
    /// Rows of the second feature, ascending, each with its similarity beside it: a lookup is mostly waiting for memory.
    similar: Lists<(u32, f32)>,
    /// One more than the greatest row of the second feature.
    rows: usize,
}

/// Lists, end to end.
#[derive(Clone, Debug, Default, PartialEq)]
struct Lists<T> {
    ends: Vec<u32>,
    entries: Vec<T>,
}

impl AffinityTable {
    /// The table of `baskets`, each ascending, by row of the first feature, and of the `similar` items of each row of
    /// the second feature, ascending.
    ///
    /// # Panics
    /// With four billion entries or more.
    pub fn new(baskets: &[Vec<u32>], similar: &[Vec<(u32, f32)>]) -> Self {
        let baskets = Lists::of(baskets.iter().map(|basket| basket.iter().copied()));
        Self::of(baskets, Lists::of(similar.iter().map(|list| list.iter().copied())))
    }

    fn of(baskets: Lists<u32>, similar: Lists<(u32, f32)>) -> Self {
        let all = similar.entries.iter().map(|(row, _)| row).chain(&baskets.entries);
        let rows = all.max().map_or(0, |&row| row as usize + 1);
        let filters = Lists::of(baskets.iter().map(|basket| bits(basket, rows)));
        Self { baskets, filters, similar, rows }
    }

    /// The logarithm of one plus the sum of the similarities of `item` to what is in the basket of `owner`; 0 where
    /// nothing is known of either.
    pub fn get(&self, owner: u32, item: u32) -> f32 {
        let filter = Filter(self.filters.list(owner));
        let similar = self.similar.list(item);
        let mut sum = 0.0;
        if filter.is_exact(self.rows) {
            filter.pass(similar, |_, similarity| sum += similarity);
        } else {
            let basket = self.baskets.list(owner);
            filter.pass(similar, |row, similarity| {
                if basket.binary_search(&row).is_ok() {
                    sum += similarity;
                }
            });
        }
        sum.ln_1p()
    }

    /// The table as its file holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        self.baskets.write(&mut bytes, |&row| row);
        self.similar.write(&mut bytes, |&(row, _)| row);
        bytes.extend(self.similar.entries.iter().flat_map(|(_, similarity)| similarity.to_le_bytes()));
        bytes
    }

    /// Reads a table for vocabularies with `rows` of the two features.
    pub fn from_bytes(bytes: &[u8], rows: [usize; 2]) -> Result<Self, HistoryError> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(HistoryError::Format("is no table of affinities"))?;
        let baskets = Lists::read(&mut rest, rows[0], rows[1])?;
        let Lists { ends, entries } = Lists::read(&mut rest, rows[1], rows[1])?;
        let similarities = words(&mut rest, entries.len())?;
        let entries: Vec<(u32, f32)> =
            entries.into_iter().zip(similarities.map(f32::from_le_bytes)).collect();
        // A sum of similarities must have a logarithm.
        if !entries.iter().all(|(_, similarity)| (0.0..=1.0).contains(similarity)) {
            return Err(HistoryError::Format("holds a similarity that is not between 0 and 1"));
        }
        if !rest.is_empty() {
            return Err(HistoryError::Format("is longer than it says"));
        }
        Ok(Self::of(baskets, Lists { ends, entries }))
    }
}

impl<T> Lists<T> {
    fn of<List: IntoIterator<Item = T>>(lists: impl Iterator<Item = List>) -> Self {
        let mut all = Self { ends: Vec::new(), entries: Vec::new() };
        for list in lists {
            all.entries.extend(list);
            all.ends.push(u32::try_from(all.entries.len()).expect("fewer than four billion entries"));
        }
        all
    }

    /// The list of `row`, which is empty beyond the last one.
    fn list(&self, row: u32) -> &[T] {
        let row = row as usize;
        let Some(&end) = self.ends.get(row) else { return &[] };
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[start as usize..end as usize]
    }

    fn iter(&self) -> impl Iterator<Item = &[T]> {
        (0..).take(self.ends.len()).map(|row| self.list(row))
    }

    /// Writes the lists of the rows of their entries.
    fn write(&self, bytes: &mut Vec<u8>, row: impl Fn(&T) -> u32) {
        for length in [self.ends.len(), self.entries.len()] {
            bytes.extend(u32::try_from(length).expect("bounded as the ends are").to_le_bytes());
        }
        let entries = self.entries.iter().map(row);
        bytes.extend(self.ends.iter().copied().chain(entries).flat_map(u32::to_le_bytes));
    }
}

impl Lists<u32> {
    /// Reads at most `lists` lists of rows below `rows`.
    fn read(bytes: &mut &[u8], lists: usize, rows: usize) -> Result<Self, HistoryError> {
        let refused = |what| Err(HistoryError::Format(what));
        let head: Vec<usize> = words(bytes, 2)?.map(|word| u32::from_le_bytes(word) as usize).collect();
        let ends: Vec<u32> = words(bytes, head[0])?.map(u32::from_le_bytes).collect();
        let entries: Vec<u32> = words(bytes, head[1])?.map(u32::from_le_bytes).collect();
        if ends.len() > lists || entries.iter().any(|&row| row == 0 || row as usize >= rows) {
            return refused("names a row that is in no vocabulary");
        }
        let last = ends.last().map_or(0, |&end| end as usize);
        if !ends.is_sorted() || last != entries.len() {
            return refused("has lists that do not follow each other");
        }
        let read = Self { ends, entries };
        if read.iter().all(|list| list.is_sorted_by(|one, next| one < next)) {
            Ok(read)
        } else {
            refused("has a list that does not ascend")
        }
    }
}

/// A set of bits, in which every row of a basket has its own or shares it with others: a power of two of words, or none
/// where the basket is empty.
struct Filter<'a>(&'a [u64]);

/// The bits of the filter of `basket`, whose rows lie below `rows`: one for each row, where that is affordable.
fn bits(basket: &[u32], rows: usize) -> Vec<u64> {
    if basket.is_empty() {
        return Vec::new();
    }
    let exact = rows.next_power_of_two();
    let affordable = exact <= basket.len() * MOST_BITS_PER_ROW;
    let bits = if affordable { exact } else { (basket.len() * BITS_PER_ROW).next_power_of_two() };
    let mut words = vec![0; bits.div_ceil(WORD)];
    for &row in basket {
        let bit = place(row, words.len());
        words[bit / WORD] |= 1 << (bit % WORD);
    }
    words
}

impl Filter<'_> {
    /// Whether each of `rows` has a bit for itself.
    fn is_exact(&self, rows: usize) -> bool {
        self.0.len() * WORD >= rows
    }

    /// Calls `visit` with those of `similar` that are in the basket, in their order and, unless the filter is exact, with
    /// one in sixteen or so of the others.
    fn pass(&self, similar: &[(u32, f32)], mut visit: impl FnMut(u32, f32)) {
        let Self(words) = self;
        if words.is_empty() {
            return;
        }
        for similar in similar.chunks(WORD) {
            // Collected without a branch, which no processor could foresee.
            let mut passed = 0_u64;
            for (at, &(row, _)) in similar.iter().enumerate() {
                let bit = place(row, words.len());
                passed |= (words[bit / WORD] >> (bit % WORD) & 1) << at;
            }
            while passed != 0 {
                let (row, similarity) = similar[passed.trailing_zeros() as usize];
                visit(row, similarity);
                passed &= passed - 1;
            }
        }
    }
}

/// The bit of `row` among those of a power of two of `words`. Rows of a vocabulary follow each other, so their last bits
/// spread well.
fn place(row: u32, words: usize) -> usize {
    row as usize & (words * WORD - 1)
}

/// Takes `count` words of four bytes off the front.
fn words<'a>(
    bytes: &mut &'a [u8],
    count: usize,
) -> Result<impl Iterator<Item = [u8; 4]> + use<'a>, HistoryError> {
    let length = count.checked_mul(4).filter(|&length| length <= bytes.len());
    let length = length.ok_or(HistoryError::Format("is shorter than it says"))?;
    let (words, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(words.chunks_exact(4).map(|word| word.try_into().expect("4 bytes")))
}

/// Bits of a word of a filter.
const WORD: usize = 64;
/// Bits of a filter for each row of its basket: with fewer, searches for what is not there take longer than they save in
/// memory.
const BITS_PER_ROW: usize = 16;
/// The same where they make a filter exact, and nothing has to be searched for.
const MOST_BITS_PER_ROW: usize = 128;
/// What a file of this format begins with.
const MAGIC: &[u8] = b"MRAFFI01";

#[cfg(test)]
mod tests {
    use proptest::{
        collection::{btree_map, btree_set},
        prelude::*,
    };

    use super::*;

    /// Owner 1 has items 1 and 3, owner 2 has item 2; item 2 is like 1 and 3, item 1 like 2.
    fn table() -> AffinityTable {
        let baskets = [vec![], vec![1, 3], vec![2]];
        let similar = [vec![], vec![(2, 0.5)], vec![(1, 0.5), (3, 0.25)], vec![(2, 0.25)]];
        AffinityTable::new(&baskets, &similar)
    }

    fn near(found: f32, sum: f32) {
        assert!((found - sum.ln_1p()).abs() < 1e-6, "{found} is not that of {sum}");
    }

    #[test]
    fn similarities_to_what_is_in_the_basket_are_summed() {
        let table = table();
        near(table.get(1, 2), 0.75);
        near(table.get(2, 1), 0.5);
        near(table.get(1, 1), 0.0);
    }

    #[test]
    fn nothing_is_known_of_rows_beyond_the_table() {
        let table = table();
        for (owner, item) in [(0, 2), (1, 0), (9, 2), (1, 9)] {
            near(table.get(owner, item), 0.0);
        }
        near(AffinityTable::default().get(1, 1), 0.0);
    }

    proptest! {
        #[test]
        fn the_filter_loses_nothing_and_adds_nothing(
            (basket, similar) in prop_oneof![Just(100_u32), Just(3_000), Just(100_000)].prop_flat_map(|rows| {
                (btree_set(1..rows, 0..90), btree_map(1..rows, 0.0_f32..1.0, 0..90))
            }),
        ) {
            let similar: Vec<(u32, f32)> = similar.into_iter().collect();
            let common = similar.iter().filter(|(item, _)| basket.contains(item));
            let expected: f32 = common.map(|(_, similarity)| similarity).sum();
            let basket: Vec<u32> = basket.into_iter().collect();
            let table = AffinityTable::new(&[vec![], basket], &[vec![], similar]);
            prop_assert!((table.get(1, 1) - expected.ln_1p()).abs() < 1e-6);
        }
    }

    #[test]
    fn a_file_gives_back_the_table() {
        assert_eq!(AffinityTable::from_bytes(&table().to_bytes(), [3, 4]).expect("read"), table());
    }

    #[test]
    fn a_damaged_file_is_refused_and_says_how() {
        let refusal =
            |bytes: &[u8], rows| AffinityTable::from_bytes(bytes, rows).expect_err("refused").to_string();
        let good = table().to_bytes();
        assert!(refusal(b"MRHIST01", [3, 4]).contains("no table"));
        assert!(refusal(&good, [2, 4]).contains("no vocabulary"));
        assert!(refusal(&good, [3, 3]).contains("no vocabulary"));
        assert!(refusal(&[&good[..], &[0]].concat(), [3, 4]).contains("longer"));
        for length in 8..good.len() {
            assert!(refusal(&good[..length], [3, 4]).contains("shorter"), "{length} bytes");
        }
        let changed = |at: usize, bytes: [u8; 4]| {
            let mut file = good.clone();
            file[at..at + 4].copy_from_slice(&bytes);
            refusal(&file, [3, 4])
        };
        // After the magic: 3 lists, 3 entries, the ends 0 2 3, the entries 1 3 2.
        assert!(changed(20, 9_u32.to_le_bytes()).contains("follow"));
        assert!(changed(28, 3_u32.to_le_bytes()).contains("ascend"));
        assert!(changed(good.len() - 4, f32::NAN.to_le_bytes()).contains("between 0 and 1"));
    }
}
