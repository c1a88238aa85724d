//! Which items are described alike: the cosine of the words of their descriptions, each word weighed by how few items
//! have it. It knows of items that hardly anyone has bought yet.
//!
//! Source: the vector space model of Salton and Buckley, "Term-weighting approaches in automatic text retrieval", 1988,
//! with a word counted once in a text.

use std::collections::{BTreeMap, BTreeSet};

/// For each item, at most `neighbours` others with their similarity between 0 and 1, ascending by item.
pub(super) fn similar(texts: &[Option<impl AsRef<str>>], neighbours: usize) -> Vec<Vec<(u32, f32)>> {
    let mut by_word: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (item, text) in (0..).zip(texts) {
        for word in text.as_ref().map(|text| words(text.as_ref())).unwrap_or_default() {
            by_word.entry(word).or_default().push(item);
        }
    }
    let described = texts.iter().flatten().count();
    let mut vectors: Vec<Vec<(usize, f32)>> = vec![Vec::new(); texts.len()];
    // A word of one item alone makes it like no other, and a word of all of them weighs nothing.
    by_word.retain(|_, items| (2..described.min(MOST_ITEMS + 1)).contains(&items.len()));
    for (word, items) in by_word.values().enumerate() {
        let weight = (described as f32 / items.len() as f32).ln();
        for &item in items {
            vectors[item as usize].push((word, weight));
        }
    }
    let mut items: Vec<Vec<(u32, f32)>> = vec![Vec::new(); by_word.len()];
    for (item, vector) in (0..).zip(&mut vectors) {
        normalise(vector);
        for &mut (word, weight) in vector {
            items[word].push((item, weight));
        }
    }
    let mut product = vec![0.0_f32; texts.len()];
    let similar = |item: usize| {
        let mut others = BTreeSet::new();
        for &(word, weight) in &vectors[item] {
            for &(other, of_other) in &items[word] {
                product[other as usize] += weight * of_other;
                others.insert(other);
            }
        }
        let mut found: Vec<(u32, f32)> = Vec::with_capacity(others.len());
        for other in others {
            let cosine = std::mem::take(&mut product[other as usize]).min(1.0);
            if other as usize != item && cosine > 0.0 {
                found.push((other, cosine));
            }
        }
        super::alike::keep_most(&mut found, neighbours);
        found
    };
    (0..texts.len()).map(similar).collect()
}

/// The distinct words of a text: stretches of letters and digits, at least two long, in lower case.
fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().nth(1).is_some());
    words.map(str::to_lowercase).collect()
}

fn normalise(vector: &mut [(usize, f32)]) {
    let length = vector.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
    for (_, weight) in vector {
        *weight /= length;
    }
}

/// A word that more items have says little of any, and the work grows with the square of their number.
const MOST_ITEMS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_make_items_alike_and_unique_ones_count_for_nothing() {
        let texts = ["red tea cup", "RED TEA POT", "red hat", "red cup!", ""].map(Some);
        let found = similar(&texts, 9);
        // Of four described texts and an empty one: red is in four of five, tea and cup in two each.
        let (red, rare) = (1.25_f32.ln(), 2.5_f32.ln());
        let long = (red * red + 2.0 * rare * rare).sqrt();
        let short = (red * red + rare * rare).sqrt();
        let of_first: Vec<u32> = found[0].iter().map(|&(item, _)| item).collect();
        assert_eq!(of_first, [1, 2, 3]);
        let expected = [(red * red + rare * rare) / (long * short), red / long];
        assert!((found[0][0].1 - expected[0]).abs() < 1e-6 && (found[0][1].1 - expected[1]).abs() < 1e-6);
        assert!(found[4].is_empty());
    }

    #[test]
    fn the_most_alike_stay_in_the_order_of_their_rows() {
        let texts = ["red tea cup", "blue sky", "red tea pot", "red tea cup"].map(Some);
        let found = similar(&texts, 1);
        assert_eq!(found[0].iter().map(|&(item, _)| item).collect::<Vec<_>>(), [3]);
        assert!((found[0][0].1 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_word_of_every_item_says_nothing() {
        assert!(similar(&[Some("red cup"), Some("red hat")], 5).iter().all(Vec::is_empty));
    }

    #[test]
    fn an_item_without_a_text_is_like_no_other() {
        assert_eq!(similar(&[None, Some("tea cup"), Some("tea cup"), Some("hat")], 5)[0], []);
    }
}
