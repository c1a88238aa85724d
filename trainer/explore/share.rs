//! A part of a whole, as every figure of the report gives it.

/// `part` over `whole`, with six decimals, which is more than anyone reads; 0 of nothing.
pub fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { rounded(part as f64 / whole as f64) }
}

/// `value` with six decimals.
pub fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(found: f64, expected: f64) {
        assert!((found - expected).abs() < f64::EPSILON, "{found} is not {expected}");
    }

    #[test]
    fn a_share_has_six_decimals_and_nothing_has_no_parts() {
        is(share(1, 3), 0.333_333);
        is(share(2, 3), 0.666_667);
        is(share(0, 0), 0.0);
    }
}
