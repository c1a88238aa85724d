//! Buckets that hold as many of some numbers each as repeated ones allow.

/// The boundaries between at most `buckets` buckets that hold as many of `numbers` each as repeated ones allow. A number
/// that alone fills a bucket, as the zeros of a sparse column do, has it to itself, and the buckets that are left share
/// the rest. A boundary is the least number of the bucket above it.
pub(crate) fn boundaries(mut numbers: Vec<f64>, buckets: usize) -> Vec<f64> {
    numbers.sort_unstable_by(f64::total_cmp);
    let mut boundaries = Vec::new();
    let (mut rest, mut left, mut held) = (numbers.len(), buckets, 0);
    // They ascend, so that what is not below the next one equals it.
    for equal in numbers.chunk_by(|number, next| number >= next) {
        let is_full = held * left >= rest || equal.len() * left >= rest;
        if held > 0 && left > 1 && is_full {
            boundaries.push(equal[0]);
            (rest, left, held) = (rest - held, left - 1, 0);
        }
        held += equal.len();
    }
    boundaries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_as_even_as_repeated_numbers_allow() {
        let evenly = boundaries((0..100).map(f64::from).collect(), 4);
        assert_eq!(evenly, [25.0, 50.0, 75.0]);
        let mut sparse = vec![0.0; 92];
        sparse.extend((1..=8).map(f64::from));
        assert_eq!(boundaries(sparse, 5), [1.0, 3.0, 5.0, 7.0]);
        let mut around = vec![0.0; 50];
        around.extend([-2.0, -1.0, 1.0, 2.0]);
        assert_eq!(boundaries(around, 3), [0.0, 1.0]);
        assert!(boundaries(vec![5.0; 10], 4).is_empty());
        assert!(boundaries(Vec::new(), 4).is_empty());
    }
}
