//! How good an order is: measures of the first `k` places, each over the flags of a ranking, best first, that say
//! whether what stands there is relevant.

/// Hits among the first `k` of `ranked`, over the most there could be: `min(relevant, k)`. `None` where nothing is
/// relevant.
pub fn recall_at(k: usize, ranked: &[bool]) -> Option<f64> {
    let relevant = ranked.iter().filter(|&&hit| hit).count();
    let hits = ranked.iter().take(k).filter(|&&hit| hit).count();
    (relevant > 0).then(|| hits as f64 / relevant.min(k) as f64)
}

/// Whether any of the first `k` of `ranked` is relevant, as 0 or 1. `None` where nothing is relevant.
pub fn hit_at(k: usize, ranked: &[bool]) -> Option<f64> {
    ranked.contains(&true).then(|| f64::from(u8::from(ranked.iter().take(k).any(|&hit| hit))))
}

/// The normalised discounted cumulative gain of the first `k` of `ranked` with binary gain. `None` where nothing is
/// relevant.
///
/// Source: Järvelin and Kekäläinen, 2002.
pub fn ndcg_at(k: usize, ranked: &[bool]) -> Option<f64> {
    let discount = |position: usize| 1.0 / (position as f64 + 2.0).log2();
    let relevant = ranked.iter().filter(|&&hit| hit).count();
    let gain: f64 =
        ranked.iter().take(k).enumerate().filter(|&(_, &hit)| hit).map(|(i, _)| discount(i)).sum();
    let ideal: f64 = (0..relevant.min(k)).map(discount).sum();
    (relevant > 0).then(|| gain / ideal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: Option<f64>, b: f64) {
        assert!((a.expect("defined") - b).abs() < 1e-9, "{a:?} is not {b}");
    }

    #[test]
    fn ranking_measures_follow_their_definitions() {
        let ranked = [true, false, true, false, true];
        close(recall_at(2, &ranked), 0.5);
        close(recall_at(20, &ranked), 1.0);
        close(hit_at(1, &[false, true]), 0.0);
        close(hit_at(2, &[false, true]), 1.0);
        close(ndcg_at(2, &ranked), 1.0 / (1.0 + 1.0 / 3.0_f64.log2()));
    }

    #[test]
    fn nothing_is_claimed_where_nothing_is_relevant() {
        assert_eq!(recall_at(20, &[false, false]), None);
        assert_eq!(hit_at(20, &[false, false]), None);
        assert_eq!(ndcg_at(10, &[]), None);
    }
}
