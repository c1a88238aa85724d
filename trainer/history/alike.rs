//! Which items go together: the cosine of the sets of owners that had them, drawn towards zero where few did.
//!
//! Source: item-based collaborative filtering, Sarwar et al., "Item-based collaborative filtering recommendation
//! algorithms", 2001; the shrinkage as in Bell and Koren, "Scalable collaborative filtering with jointly derived
//! neighborhood interpolation weights", 2007.

/// For each item, at most `neighbours` others with their similarity between 0 and 1, ascending by item. `baskets` hold
/// rows below `items`, each row once.
pub(super) fn similar(baskets: &[Vec<u32>], items: usize, neighbours: usize) -> Vec<Vec<(u32, f32)>> {
    let mut owners: Vec<Vec<u32>> = vec![Vec::new(); items];
    for (owner, basket) in (0..).zip(baskets) {
        for &item in basket {
            owners[item as usize].push(owner);
        }
    }
    let mut common = vec![0_u32; items];
    let similar = |item: usize| {
        let mut others = Vec::new();
        for &owner in &owners[item] {
            for &other in &baskets[owner as usize] {
                if common[other as usize] == 0 {
                    others.push(other);
                }
                common[other as usize] += 1;
            }
        }
        let mut found: Vec<(u32, f32)> = Vec::with_capacity(others.len());
        for other in others {
            let both = std::mem::take(&mut common[other as usize]) as f32;
            if other as usize != item {
                let product = owners[item].len() as f32 * owners[other as usize].len() as f32;
                found.push((other, both / product.sqrt() * (both / (both + SHRINKAGE))));
            }
        }
        keep_most(&mut found, neighbours);
        found
    };
    (0..items).map(similar).collect()
}

/// Keeps the most similar ones, ascending by row. Of equal similarities the lower row stays, so that a tie is decided
/// once for every run.
pub(super) fn keep_most(found: &mut Vec<(u32, f32)>, neighbours: usize) {
    found.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found.truncate(neighbours);
    found.sort_unstable_by_key(|&(other, _)| other);
}

/// Owners in common at which a cosine counts half.
const SHRINKAGE: f32 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_is_of_sets_of_owners_and_drawn_towards_zero() {
        let found = similar(&[vec![1, 2], vec![1, 2], vec![1, 3]], 4, 9);
        let (two, one) = (2.0 / 6_f32.sqrt() * 2.0 / 12.0, 1.0 / 3_f32.sqrt() / 11.0);
        assert!(found[0].is_empty());
        assert_eq!(found[1].iter().map(|&(item, _)| item).collect::<Vec<_>>(), [2, 3]);
        assert!((found[1][0].1 - two).abs() < 1e-6 && (found[1][1].1 - one).abs() < 1e-6, "{found:?}");
        assert_eq!(found[3].len(), 1);
    }

    #[test]
    fn only_the_most_similar_are_kept() {
        let found = similar(&[vec![1, 2], vec![1, 2], vec![1, 3]], 4, 1);
        assert_eq!(found[1].iter().map(|&(item, _)| item).collect::<Vec<_>>(), [2]);
    }
}
