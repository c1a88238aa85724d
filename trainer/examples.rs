//! What a model is trained and judged on: pairs of a user and an item, each with a label and a weight.
//!
//! A labelled log gives an example a row. A log of purchases gives one for each distinct pair of a stretch of time, and
//! items that the user did not buy in that stretch are drawn beside it, uniformly: were they drawn by popularity, the
//! model would unlearn it. What was bought before the stretch may be drawn, for not everything is bought again.

use std::ops::Range;

use rand::{Rng, seq::IndexedRandom};

use crate::{
    calendar::DAY_SECONDS,
    config::{ExamplesConfig, Owner},
    log::Log,
    purchases::Purchases,
    random::Random,
};

/// One example, by the rows of the log that hold its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Example {
    /// The row with the user's values.
    pub user_row: u32,
    /// The row with the item's values.
    pub item_row: u32,
    /// Whether it happened.
    pub label: bool,
    /// How much it counts in training.
    pub weight: f32,
}

impl Example {
    /// The row that holds the value of a feature of `owner`.
    pub fn row(&self, owner: Owner) -> usize {
        match owner {
            Owner::User => self.user_row as usize,
            Owner::Item => self.item_row as usize,
        }
    }
}

/// The training examples of `rows`, in the order of the log. Nothing outside `rows` is looked at.
pub fn training(log: &Log, rows: Range<usize>, config: &ExamplesConfig, random: &mut Random) -> Vec<Example> {
    let mut examples = if let Some(windows) = config.windows {
        let windows = windows.of(&log.times, &rows).into_iter();
        windows
            .flat_map(|window| held_out(log, rows.start..window.rows.start, window.rows, config, random))
            .collect()
    } else if log.labels.is_some() {
        labelled(log, rows.clone())
    } else {
        let known = Purchases::of(log, rows.clone());
        let negatives = Negatives { known: &known, bought: &known, each: config.negatives_per_positive };
        negatives.beside_pairs(random)
    };
    if let Some(half_life_days) = config.half_life_days {
        weigh_by_age(&mut examples, &log.times[..rows.end], half_life_days);
    }
    examples
}

/// The examples that a model trained on `training` is judged on in the later `rows`. Of a log of purchases only pairs
/// whose user and item occur in training are taken, and what the user bought in `rows` is never drawn as negative.
pub fn held_out(
    log: &Log,
    training: Range<usize>,
    rows: Range<usize>,
    config: &ExamplesConfig,
    random: &mut Random,
) -> Vec<Example> {
    if log.labels.is_some() {
        return labelled(log, rows);
    }
    let (known, later) = (Purchases::of(log, training), Purchases::of(log, rows));
    Negatives { known: &known, bought: &later, each: config.negatives_per_positive }.beside_pairs(random)
}

fn labelled(log: &Log, rows: Range<usize>) -> Vec<Example> {
    let labels = log.labels.as_deref().unwrap_or_default();
    let example = |row: usize| {
        let position = u32::try_from(row).expect("a log of fewer than four billion rows");
        Example { user_row: position, item_row: position, label: labels[row], weight: 1.0 }
    };
    rows.map(example).collect()
}

/// Draws negatives beside the pairs of `bought`, from the items of `known`.
struct Negatives<'a> {
    known: &'a Purchases,
    bought: &'a Purchases,
    each: usize,
}

impl Negatives<'_> {
    fn beside_pairs(&self, random: &mut Random) -> Vec<Example> {
        let mut examples = Vec::new();
        for user in self.bought.users().filter(|&user| self.known.last_row_of_user(user).is_some()) {
            for &(item, user_row) in self.bought.basket(user) {
                let Some(item_row) = self.known.last_row_of_item(item) else { continue };
                examples.push(Example { user_row, item_row, label: true, weight: 1.0 });
                for _ in 0..self.each {
                    let drawn = self.draw(user, random).and_then(|item| self.known.last_row_of_item(item));
                    let negative = |item_row| Example { user_row, item_row, label: false, weight: 1.0 };
                    examples.extend(drawn.map(negative));
                }
            }
        }
        examples
    }

    /// An item that `user` did not buy; `None` where a user bought so much that none was found.
    fn draw(&self, user: u32, random: &mut Random) -> Option<u32> {
        const TRIES: usize = 64;
        (0..TRIES)
            .filter_map(|_| self.known.items().choose(random).copied())
            .find(|&item| !self.bought.bought(user, item))
    }
}

/// Halves the weight of an example for each half-life between its time and the last of `times`. The mean weight stays
/// one, so that learning rates keep their meaning.
#[expect(clippy::cast_possible_truncation, reason = "weights are single precision")]
fn weigh_by_age(examples: &mut [Example], times: &[i64], half_life_days: f64) {
    let Some(&now) = times.last() else { return };
    let weight = |example: &Example| {
        let age_days = (now - times[example.user_row as usize]) as f64 / DAY_SECONDS as f64;
        0.5_f64.powf(age_days / half_life_days)
    };
    let mean = examples.iter().map(weight).sum::<f64>() / examples.len().max(1) as f64;
    for example in examples {
        example.weight = (weight(example) / mean) as f32;
    }
}

/// Puts `examples` into a random order.
pub fn shuffle(examples: &mut [Example], random: &mut Random) {
    for last in (1..examples.len()).rev() {
        examples.swap(last, random.random_range(0..=last));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        log::Ids,
        random::{Purpose, random},
    };

    fn log(events: &[(u8, u8)]) -> Log {
        let text = |code: &u8| code.to_string();
        let users: Vec<String> = events.iter().map(|(user, _)| text(user)).collect();
        let items: Vec<String> = events.iter().map(|(_, item)| text(item)).collect();
        Log {
            users: Ids::of(users.iter().map(String::as_str)),
            items: Ids::of(items.iter().map(String::as_str)),
            times: (0..).take(events.len()).collect(),
            ..Log::default()
        }
    }

    fn pair(log: &Log, example: &Example) -> (u32, u32) {
        (log.users.codes()[example.user_row as usize], log.items.codes()[example.item_row as usize])
    }

    proptest! {
        #[test]
        fn training_examples_do_not_change_with_the_future(
            past in prop::collection::vec((0u8..6, 0u8..9), 1..40),
            future in prop::collection::vec((0u8..9, 0u8..12), 0..40),
        ) {
            let both: Vec<_> = past.iter().chain(&future).copied().collect();
            let config = ExamplesConfig { half_life_days: Some(0.001), ..ExamplesConfig::default() };
            let draw = |log: &Log| training(log, 0..past.len(), &config, &mut random(7, Purpose::Training, 0));
            let (alone, with_future) = (draw(&log(&past)), draw(&log(&both)));
            prop_assert_eq!(&alone, &with_future);
            for example in alone {
                prop_assert!((example.user_row as usize) < past.len());
                prop_assert!((example.item_row as usize) < past.len());
            }
        }

        #[test]
        fn a_negative_was_not_bought_in_its_stretch_and_its_item_is_known_from_training(
            events in prop::collection::vec((0u8..6, 0u8..30), 2..80), cut: prop::sample::Index,
        ) {
            let log = log(&events);
            let cut = 1 + cut.index(events.len() - 1);
            let known = Purchases::of(&log, 0..cut);
            let later = Purchases::of(&log, cut..events.len());
            let config = ExamplesConfig::default();
            let examples =
                held_out(&log, 0..cut, cut..events.len(), &config, &mut random(7, Purpose::Test, 0));
            for example in examples {
                let (user, item) = pair(&log, &example);
                prop_assert_eq!(later.bought(user, item), example.label);
                prop_assert!((example.item_row as usize) < cut);
                prop_assert!(known.last_row_of_user(user).is_some());
                prop_assert!(known.last_row_of_item(item).is_some());
            }
        }
    }

    #[test]
    fn each_distinct_pair_is_one_positive_with_its_negatives() {
        let log = log(&[(1, 1), (1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6), (3, 7)]);
        let examples = training(&log, 0..8, &ExamplesConfig::default(), &mut random(7, Purpose::Training, 0));
        assert_eq!(examples.iter().filter(|example| example.label).count(), 7);
        assert_eq!(examples.len(), 7 * 5);
    }

    #[test]
    fn what_is_not_bought_again_may_be_a_negative() {
        let log = log(&[(1, 1), (1, 2), (1, 3), (1, 3)]);
        let mut draws = random(7, Purpose::Test, 0);
        let examples = held_out(&log, 0..3, 3..4, &ExamplesConfig::default(), &mut draws);
        assert_eq!(examples.iter().filter(|example| !example.label).count(), 4);
    }

    #[test]
    fn a_user_who_bought_everything_has_no_negatives() {
        let examples = training(
            &log(&[(1, 1), (1, 2)]),
            0..2,
            &ExamplesConfig::default(),
            &mut random(7, Purpose::Training, 0),
        );
        assert!(examples.len() == 2 && examples.iter().all(|example| example.label));
    }

    #[test]
    fn a_half_life_halves_the_weight_and_keeps_the_mean() {
        let example = |user_row| Example { user_row, item_row: 0, label: true, weight: 1.0 };
        let mut examples = [example(0), example(1), example(2)];
        weigh_by_age(&mut examples, &[0, DAY_SECONDS, 2 * DAY_SECONDS], 1.0);
        let weights = examples.map(|example| example.weight);
        assert!((weights[1] / weights[0] - 2.0).abs() < 1e-6);
        assert!((weights[2] / weights[1] - 2.0).abs() < 1e-6);
        assert!((weights.iter().sum::<f32>() / 3.0 - 1.0).abs() < 1e-6);
    }

    #[test]
    fn shuffling_keeps_every_example_and_repeats_for_a_seed() {
        let original: Vec<Example> =
            (0..50).map(|row| Example { user_row: row, item_row: row, label: false, weight: 1.0 }).collect();
        let shuffled = |seed| {
            let mut examples = original.clone();
            shuffle(&mut examples, &mut random(seed, Purpose::Training, 0));
            examples
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut rows: Vec<u32> = shuffled(1).iter().map(|example| example.user_row).collect();
        rows.sort_unstable();
        assert!(rows.into_iter().eq(0..50));
    }
}
