//! Which items have codes that follow each other: a catalogue numbers what comes in one range one after the other, so
//! neighbours are colours and sizes of one thing, or made for one another. It knows of items that nobody has bought yet.

/// For each item with a text, those beside it in the order of the texts, half of `neighbours` on each side, with one over
/// their distance as similarity; ascending by item.
pub(super) fn similar(texts: &[Option<impl AsRef<str>>], neighbours: usize) -> Vec<Vec<(u32, f32)>> {
    let mut order: Vec<(u32, &str)> =
        (0..).zip(texts).filter_map(|(item, text)| Some((item, text.as_ref()?.as_ref()))).collect();
    order.sort_by_key(|&(item, text)| (key(text), item));
    let mut similar = vec![Vec::new(); texts.len()];
    let reach = neighbours.div_ceil(2);
    for (place, &(item, _)) in order.iter().enumerate() {
        let beside =
            order.iter().enumerate().skip(place.saturating_sub(reach)).take(place.min(reach) + reach + 1);
        let others = beside.filter(|&(other, _)| other != place);
        let found = &mut similar[item as usize];
        found.extend(others.map(|(other, &(item, _))| (item, 1.0 / place.abs_diff(other) as f32)));
        super::alike::keep_most(found, neighbours);
    }
    similar
}

/// Codes by the number that they start with, and those that start with none after them.
fn key(text: &str) -> (u64, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..digits].parse().unwrap_or(u64::MAX), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_follow_each_other_are_alike_and_the_nearer_the_more() {
        let texts = ["22720", "POST", "9", "22721B", "22721A", "22730"].map(Some);
        let found = similar(&texts, 4);
        // In order: 9, 22720, 22721A, 22721B, 22730, POST.
        assert_eq!(found[4], [(0, 1.0), (2, 0.5), (3, 1.0), (5, 0.5)]);
        assert_eq!(found[2], [(0, 1.0), (4, 0.5)]);
        assert_eq!(found[1], [(3, 0.5), (5, 1.0)]);
    }

    #[test]
    fn an_item_without_a_code_is_like_no_other() {
        let found = similar(&[None, Some("1"), Some("2")], 1);
        assert!(found[0].is_empty());
        assert_eq!((found[1].as_slice(), found[2].as_slice()), (&[(2, 1.0)][..], &[(1, 1.0)][..]));
    }
}
