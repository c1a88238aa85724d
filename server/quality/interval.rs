//! How far a share that was counted may be from the true one.

/// The 95 % interval of a share of which `hits` out of `rows` were counted, both ends within 0 and 1. `None` without
/// rows. The rows count as independent, so where they come in clusters it is too narrow.
///
/// Source: Wilson's score interval, 1927.
pub fn wilson(hits: u64, rows: u64) -> Option<[f64; 2]> {
    /// The 97.5 % quantile of the normal distribution.
    const Z: f64 = 1.959_963_984_540_054;
    if rows == 0 {
        return None;
    }
    let rows = rows as f64;
    let share = hits as f64 / rows;
    let scale = 1.0 + Z * Z / rows;
    let centre = (share + Z * Z / (2.0 * rows)) / scale;
    let half = Z / scale * (share * (1.0 - share) / rows + Z * Z / (4.0 * rows * rows)).sqrt();
    Some([(centre - half).max(0.0), (centre + half).min(1.0)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_what_the_formula_gives_by_hand() {
        // z = 1.96, z^2 / n = 0.384146: the centre is 0.5, the half 1.41601 * sqrt(0.025 + 0.0096036) = 0.263406.
        let [low, high] = wilson(5, 10).expect("rows");
        assert!((low - 0.236_594).abs() < 1e-5 && (high - 0.763_406).abs() < 1e-5, "{low} {high}");
        let [low, high] = wilson(0, 20).expect("rows");
        assert!(low.abs() < 1e-12 && (high - 0.161_125).abs() < 1e-5, "{low} {high}");
        assert_eq!(wilson(0, 0), None);
    }

    proptest! {
        #[test]
        fn it_holds_the_share_and_narrows_with_more_rows(hits in 0u64..500, more in 0u64..500) {
            let rows = hits + more;
            prop_assume!(rows > 0);
            let [low, high] = wilson(hits, rows).expect("rows");
            let share = hits as f64 / rows as f64;
            prop_assert!(0.0 <= low && low <= share + 1e-12 && share <= high + 1e-12 && high <= 1.0);
            let [lower, upper] = wilson(hits * 10, rows * 10).expect("rows");
            prop_assert!(upper - lower < high - low);
        }
    }
}
