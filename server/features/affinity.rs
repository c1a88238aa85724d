//! How alike an item is to what a customer has bought: the sum of its similarities to the items of the customer's
//! basket. Both the baskets and the most similar items of each item are as of the end of training.
//!
//! A table of scores by customer and item would grow with their product; this one grows with the log. A lookup walks
//! along two ascending lists, or searches a basket that is much longer.
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
    baskets: Lists,
    similar: Lists,
    /// Of each entry of `similar`.
    similarities: Vec<f32>,
}

/// Ascending lists of rows, end to end.
#[derive(Clone, Debug, Default, PartialEq)]
struct Lists {
    ends: Vec<u32>,
    entries: Vec<u32>,
}

impl AffinityTable {
    /// The table of `baskets`, each ascending, by row of the first feature, and of the `similar` items of each row of
    /// the second feature, ascending.
    ///
    /// # Panics
    /// With four billion entries or more.
    pub fn new(baskets: &[Vec<u32>], similar: &[Vec<(u32, f32)>]) -> Self {
        let items = similar.iter().map(|list| list.iter().map(|&(item, _)| item));
        Self {
            baskets: Lists::of(baskets.iter().map(|basket| basket.iter().copied())),
            similar: Lists::of(items),
            similarities: similar.iter().flatten().map(|&(_, similarity)| similarity).collect(),
        }
    }

    /// The logarithm of one plus the sum of the similarities of `item` to what is in the basket of `owner`; 0 where
    /// nothing is known of either.
    pub fn get(&self, owner: u32, item: u32) -> f32 {
        let (start, similar) = self.similar.list(item);
        let similarities = &self.similarities[start..start + similar.len()];
        let (_, basket) = self.baskets.list(owner);
        sum_of_common(similar, similarities, basket).ln_1p()
    }

    /// The table as its file holds it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        self.baskets.write(&mut bytes);
        self.similar.write(&mut bytes);
        bytes.extend(self.similarities.iter().flat_map(|similarity| similarity.to_le_bytes()));
        bytes
    }

    /// Reads a table for vocabularies with `rows` of the two features.
    pub fn from_bytes(bytes: &[u8], rows: [usize; 2]) -> Result<Self, HistoryError> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(HistoryError::Format("is no table of affinities"))?;
        let baskets = Lists::read(&mut rest, rows[0], rows[1])?;
        let similar = Lists::read(&mut rest, rows[1], rows[1])?;
        let similarities = words(&mut rest, similar.entries.len())?;
        let similarities: Vec<f32> = similarities.map(f32::from_le_bytes).collect();
        // A sum of similarities must have a logarithm.
        if !similarities.iter().all(|similarity| (0.0..=1.0).contains(similarity)) {
            return Err(HistoryError::Format("holds a similarity that is not between 0 and 1"));
        }
        if !rest.is_empty() {
            return Err(HistoryError::Format("is longer than it says"));
        }
        Ok(Self { baskets, similar, similarities })
    }
}

impl Lists {
    fn of<List: Iterator<Item = u32>>(lists: impl Iterator<Item = List>) -> Self {
        let mut all = Self::default();
        for list in lists {
            all.entries.extend(list);
            all.ends.push(u32::try_from(all.entries.len()).expect("fewer than four billion entries"));
        }
        all
    }

    /// A list and where it starts.
    fn list(&self, row: u32) -> (usize, &[u32]) {
        let row = row as usize;
        let Some(&end) = self.ends.get(row) else { return (0, &[]) };
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        (start, &self.entries[start..end as usize])
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        for length in [self.ends.len(), self.entries.len()] {
            bytes.extend(u32::try_from(length).expect("bounded as the ends are").to_le_bytes());
        }
        bytes.extend(self.ends.iter().chain(&self.entries).flat_map(|word| word.to_le_bytes()));
    }

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
        let ascends = |row| read.list(row).1.is_sorted_by(|one, next| one < next);
        if (0..).take(read.ends.len()).all(ascends) {
            Ok(read)
        } else {
            refused("has a list that does not ascend")
        }
    }
}

/// The sum of the similarities of those of `similar` that are in `basket`; both ascend.
fn sum_of_common(similar: &[u32], similarities: &[f32], basket: &[u32]) -> f32 {
    if basket.len() > similar.len() * MUCH_LONGER {
        let found = similar.iter().zip(similarities);
        return found
            .filter(|(other, _)| basket.binary_search(other).is_ok())
            .map(|(_, similarity)| similarity)
            .sum();
    }
    let (mut sum, mut at, mut of_basket) = (0.0, 0, 0);
    while let (Some(&one), Some(&other)) = (similar.get(at), basket.get(of_basket)) {
        // No branch depends on the ids, which no processor could foresee.
        sum += if one == other { similarities[at] } else { 0.0 };
        at += usize::from(one <= other);
        of_basket += usize::from(other <= one);
    }
    sum
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

/// How many times as long a basket must be for a search in it to be cheaper than a walk along both lists.
const MUCH_LONGER: usize = 16;
/// What a file of this format begins with.
const MAGIC: &[u8] = b"MRAFFI01";

#[cfg(test)]
mod tests {
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

    #[test]
    fn both_ways_of_walking_find_the_same() {
        let similar: Vec<(u32, f32)> = (1..40).map(|item| (item * 2, 0.01 * item as f32)).collect();
        for basket in [vec![4, 7, 40], (1..79).collect(), (3..1000).collect()] {
            let expected: f32 = similar
                .iter()
                .filter(|(item, _)| basket.contains(item))
                .map(|(_, similarity)| similarity)
                .sum();
            near(AffinityTable::new(&[vec![], basket], &[vec![], similar.clone()]).get(1, 1), expected);
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
