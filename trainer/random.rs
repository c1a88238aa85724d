//! All randomness of a run, from its one seed. Each purpose draws from a stream of its own, so that a change in how
//! often one of them draws leaves the others as they were.

use rand::SeedableRng;

/// The generator. Its algorithm is named, not the library's default, so that a seed keeps its meaning.
pub type Random = rand_xoshiro::Xoshiro256PlusPlus;

/// What randomness is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The ground truth of a synthetic log.
    Truth = 1,
    /// The events of a synthetic log.
    Events = 2,
    /// The first weights of a model.
    Weights = 3,
    /// Negatives and the order of training examples.
    Training = 4,
    /// Negatives of the validation slice.
    Validation = 5,
    /// Negatives of the test period.
    Test = 6,
    /// Items that a customer's purchases are compared with.
    Ranking = 7,
    /// The order of a table's training rows.
    Table = 8,
    /// The training rows that drift is measured against.
    Reference = 9,
    /// Held-out rows, drawn again and again to tell how far a figure may be from the true one.
    Bootstrap = 10,
}

/// The generator for one purpose in one round, an epoch say.
pub fn random(seed: u64, purpose: Purpose, round: usize) -> Random {
    Random::seed_from_u64(seed.rotate_left(32) ^ ((purpose as u64) << 56) ^ round as u64)
}

#[cfg(test)]
mod tests {
    use rand::RngCore;

    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let first = |seed, purpose, round| random(seed, purpose, round).next_u64();
        let base = first(7, Purpose::Training, 0);
        assert_eq!(base, first(7, Purpose::Training, 0));
        for other in
            [first(8, Purpose::Training, 0), first(7, Purpose::Test, 0), first(7, Purpose::Training, 1)]
        {
            assert_ne!(base, other);
        }
    }
}
