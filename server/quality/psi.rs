//! The population stability index: how far two distributions over the same bins lie apart.

use super::Counts;

/// The index of `found` beside `expected`: the sum over the bins of `(f - e) * ln(f / e)`, where `e` and `f` are their
/// shares. 0 where the shares are equal, the same in both directions, larger the more has moved; by custom below 0.1
/// nothing has happened and above 0.25 much has. `None` where one of them has counted nothing.
///
/// So that an empty bin does not make it infinite, both distributions are mixed with a little of the even one, which
/// gives each bin [`LEAST_SHARE`]. Mixing, unlike raising small shares alone, keeps the shares' sum at 1.
///
/// # Panics
/// When the bins are others.
pub fn psi(expected: &Counts, found: &Counts) -> Option<f64> {
    let (expected, found) = (expected.each(), found.each());
    assert_eq!(expected.len(), found.len(), "counts of the same bins");
    let (expected, found) = (smoothed(expected)?, smoothed(found)?);
    Some(expected.zip(found).map(|(e, f)| (f - e) * (f / e).ln()).sum())
}

/// What the index comes to on the mean if both were drawn from one distribution, as the bins that hold anything and the
/// two numbers of rows make it: an index of its size says nothing. `None` where one of them has counted nothing.
///
/// Source: Yurdakul and Naranjo, 2020: it is distributed as chi-squared times `1 / n + 1 / m`.
///
/// # Panics
/// When the bins are others.
pub fn psi_by_chance(expected: &Counts, found: &Counts) -> Option<f64> {
    assert_eq!(expected.each().len(), found.each().len(), "counts of the same bins");
    let (n, m) = (expected.total(), found.total());
    let used = expected.each().iter().zip(found.each()).filter(|&(e, f)| e + f > 0).count();
    (n > 0 && m > 0).then(|| used.saturating_sub(1) as f64 * (1.0 / n as f64 + 1.0 / m as f64))
}

fn smoothed(counts: &[u64]) -> Option<impl Iterator<Item = f64>> {
    let total: u64 = counts.iter().sum();
    let kept = 1.0 - LEAST_SHARE * counts.len() as f64;
    (total > 0).then(|| counts.iter().map(move |&count| kept * count as f64 / total as f64 + LEAST_SHARE))
}

/// What an empty bin counts as: one row in ten thousand.
const LEAST_SHARE: f64 = 1e-4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(counts: &[u64]) -> Counts {
        serde_json::from_value(counts.into()).expect("counts")
    }

    fn index(expected: &[u64], found: &[u64]) -> f64 {
        psi(&counts(expected), &counts(found)).expect("rows")
    }

    #[test]
    fn it_is_what_the_formula_gives_by_hand() {
        // Without the mixing: (0.25 - 0.5) * ln(0.25 / 0.5) + (0.75 - 0.5) * ln(0.75 / 0.5) = 0.274653.
        assert!((index(&[50, 50], &[25, 75]) - 0.274_653).abs() < 2e-4);
        // An empty bin counts as a ten-thousandth: (1 - 0.5) * ln(2) + (0.0001 - 0.5) * ln(0.0002) = 4.605.
        assert!((index(&[1, 1], &[1, 0]) - 4.605).abs() < 2e-3);
        assert_eq!(psi(&counts(&[1]), &counts(&[0])), None);
    }

    #[test]
    fn what_chance_makes_of_it_falls_with_the_rows_and_counts_no_empty_bin() {
        let chance = |expected: &[u64], found: &[u64]| psi_by_chance(&counts(expected), &counts(found));
        assert!((chance(&[50, 50, 0], &[10, 10, 0]).expect("rows") - 0.06).abs() < 1e-12);
        assert!(chance(&[500, 500], &[100, 100]) < chance(&[50, 50], &[10, 10]));
        assert_eq!(chance(&[1], &[0]), None);
    }

    proptest! {
        #[test]
        fn equal_shares_have_none_whatever_their_number(shares in prop::collection::vec(0u64..50, 1..20)) {
            prop_assume!(shares.iter().sum::<u64>() > 0);
            let more: Vec<u64> = shares.iter().map(|share| share * 7).collect();
            prop_assert!(index(&shares, &more).abs() < 1e-12);
        }

        #[test]
        fn it_is_the_same_in_both_directions_and_never_below_nothing(
            pairs in prop::collection::vec((0u64..50, 0u64..50), 1..20),
        ) {
            let (one, other): (Vec<u64>, Vec<u64>) = pairs.into_iter().unzip();
            prop_assume!(one.iter().sum::<u64>() > 0 && other.iter().sum::<u64>() > 0);
            prop_assert!((index(&one, &other) - index(&other, &one)).abs() < 1e-9);
            prop_assert!(index(&one, &other) >= -1e-12);
        }

        #[test]
        fn it_grows_with_what_moves_from_one_bin_to_another(
            shares in prop::collection::vec(1u64..50, 3..12), less in 0u64..10, more in 1u64..10,
        ) {
            let moved = |rows: u64| {
                let mut moved: Vec<u64> = shares.iter().map(|share| share * 20).collect();
                moved[0] -= rows;
                moved[1] += rows;
                moved
            };
            let base = moved(0);
            prop_assert!(index(&base, &moved(less + more)) > index(&base, &moved(less)));
        }
    }
}
