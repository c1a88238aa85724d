//! How well every item is ranked for every customer of the test period. The same code judges the model and the
//! baselines, on the same customers, items and draws.
//!
//! "All" judges everything that a customer bought in the test period. "New" leaves out what the customer had bought
//! before, from the ranking and from the truth: it asks for discoveries. Figures are means over the customers for whom
//! they are defined.

use std::{fmt, ops::Range};

use millrace::quality;
use rand::seq::IteratorRandom;
use serde::{Deserialize, Serialize};

use crate::{
    log::Log,
    purchases::Purchases,
    random::{Purpose, random},
};

/// Figures of one ranking, means over customers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankingFigures {
    /// The share of (bought, not bought) pairs in the right order, against a sample of items not bought.
    pub auc: f64,
    /// Hits among the first 20, over the most there could be.
    pub recall_at_20: f64,
    /// Whether there is a hit among the first 10.
    pub hit_at_10: f64,
    /// The normalised discounted cumulative gain of the first 10.
    pub ndcg_at_10: f64,
}

/// Figures with and without what customers bought again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BothFigures {
    /// Over pairs that were never bought before.
    pub new: RankingFigures,
    /// Over all pairs.
    pub all: RankingFigures,
}

/// Who is asked about and what they bought.
#[derive(Clone, Debug)]
pub struct RankingTask {
    items: Vec<u32>,
    customers: Vec<Customer>,
}

/// One customer of the test period.
#[derive(Clone, Debug)]
struct Customer {
    user: u32,
    /// For each item, in the order of the task's items, whether it was bought before the test period.
    before: Vec<bool>,
    /// The same for the test period.
    bought: Vec<bool>,
    /// The positions of the items that purchases are compared with.
    new_sample: Vec<usize>,
    all_sample: Vec<usize>,
}

impl RankingTask {
    /// The customers and items of `training` that occur in `test` as well.
    pub fn new(log: &Log, training: Range<usize>, test: Range<usize>, seed: u64) -> Self {
        let (known, later) = (Purchases::of(log, training), Purchases::of(log, test));
        let items = known.items().to_vec();
        let known_users = known.users().filter(|&user| known.last_row_of_user(user).is_some());
        let mut random = random(seed, Purpose::Ranking, 0);
        let mut customers = Vec::new();
        for user in known_users {
            let flags = |purchases: &Purchases| -> Vec<bool> {
                items.iter().map(|&item| purchases.bought(user, item)).collect()
            };
            let (before, bought) = (flags(&known), flags(&later));
            if !bought.contains(&true) {
                continue;
            }
            let mut sample = |excluded: &dyn Fn(usize) -> bool| {
                let others = (0..items.len()).filter(|&position| !excluded(position));
                others.choose_multiple(&mut random, SAMPLE)
            };
            let new_sample = sample(&|position| bought[position] || before[position]);
            let all_sample = sample(&|position| bought[position]);
            customers.push(Customer { user, before, bought, new_sample, all_sample });
        }
        Self { items, customers }
    }

    /// The number of customers.
    pub fn customers(&self) -> usize {
        self.customers.len()
    }

    /// The number of items that are ranked for each customer.
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// The figures of `score`, which gives each of some items a score for a user.
    pub fn judge<E>(
        &self,
        mut score: impl FnMut(u32, &[u32]) -> Result<Vec<f32>, E>,
    ) -> Result<BothFigures, E> {
        let (mut new, mut all) = (Means::default(), Means::default());
        for customer in &self.customers {
            let scores = score(customer.user, &self.items)?;
            all.add(&scores, &customer.bought, &vec![false; scores.len()], &customer.all_sample);
            new.add(&scores, &customer.bought, &customer.before, &customer.new_sample);
        }
        Ok(BothFigures { new: new.finish(), all: all.finish() })
    }
}

impl fmt::Display for RankingFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { auc, recall_at_20, hit_at_10, ndcg_at_10 } = self;
        write!(f, "AUC {auc:.4} recall@20 {recall_at_20:.4} hit@10 {hit_at_10:.4} NDCG@10 {ndcg_at_10:.4}")
    }
}

impl fmt::Display for BothFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "new: {}; all: {}", self.new, self.all)
    }
}

/// Sums of figures over the customers for whom they are defined.
#[derive(Default)]
struct Means {
    sums: RankingFigures,
    customers: f64,
}

impl Means {
    /// Adds a customer's figures, where anything relevant is left once the `excluded` items are gone.
    fn add(&mut self, scores: &[f32], bought: &[bool], excluded: &[bool], sample: &[usize]) {
        let mut order: Vec<usize> = (0..scores.len()).filter(|&position| !excluded[position]).collect();
        // Of equal scores the first item comes first, so that a tie is decided once for every run.
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let ranked: Vec<bool> = order.iter().map(|&position| bought[position]).collect();
        let relevant = order.iter().copied().filter(|&position| bought[position]);
        let compared: Vec<usize> = relevant.chain(sample.iter().copied()).collect();
        let compared_scores: Vec<f32> = compared.iter().map(|&position| scores[position]).collect();
        let compared_labels: Vec<bool> = compared.iter().map(|&position| bought[position]).collect();
        let figures = (
            quality::auc(&compared_scores, &compared_labels),
            quality::recall_at(20, &ranked),
            quality::hit_at(10, &ranked),
            quality::ndcg_at(10, &ranked),
        );
        if let (Some(auc), Some(recall), Some(hit), Some(ndcg)) = figures {
            self.customers += 1.0;
            self.sums.auc += auc;
            self.sums.recall_at_20 += recall;
            self.sums.hit_at_10 += hit;
            self.sums.ndcg_at_10 += ndcg;
        }
    }

    fn finish(self) -> RankingFigures {
        let mean = |sum: f64| sum / self.customers.max(1.0);
        RankingFigures {
            auc: mean(self.sums.auc),
            recall_at_20: mean(self.sums.recall_at_20),
            hit_at_10: mean(self.sums.hit_at_10),
            ndcg_at_10: mean(self.sums.ndcg_at_10),
        }
    }
}

/// Items that a customer's purchases are compared with for the AUC.
const SAMPLE: usize = 200;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::log::Ids;

    /// Training: a bought w and x, b bought y and z. Test: a buys x again and y, b buys w, c is a stranger.
    fn task() -> RankingTask {
        let log = Log {
            users: Ids::of(["a", "a", "b", "b", "a", "a", "b", "c"]),
            items: Ids::of(["w", "x", "y", "z", "x", "y", "w", "w"]),
            times: vec![1, 2, 3, 4, 5, 6, 7, 8],
            ..Log::default()
        };
        RankingTask::new(&log, 0..4, 4..8, 7)
    }

    fn judge(scores: [f32; 4]) -> BothFigures {
        let judged = task().judge(|_, items| -> Result<_, Infallible> {
            Ok(items.iter().map(|&item| scores[item as usize]).collect())
        });
        judged.expect("never fails")
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn strangers_are_not_asked_about() {
        assert_eq!((task().customers(), task().items()), (2, 4));
    }

    #[test]
    fn new_pairs_leave_out_what_was_bought_before() {
        // w x y z; a has y and z left and bought y, b has w and x left and bought w.
        let figures = judge([4.0, 3.0, 2.0, 1.0]);
        near(figures.new.auc, 1.0);
        near(figures.new.ndcg_at_10, 1.0);
        // All pairs: a's x and y are second and third of four, b's w is the first.
        near(figures.all.auc, f64::midpoint(0.5, 1.0));
        let (second, third) = (1.0 / 3.0_f64.log2(), 0.5);
        near(figures.all.ndcg_at_10, f64::midpoint((second + third) / (1.0 + second), 1.0));
    }

    #[test]
    fn the_worst_order_has_an_auc_of_zero() {
        let figures = judge([1.0, 2.0, 3.0, 4.0]);
        near(figures.new.auc, 0.0);
        near(figures.new.hit_at_10, 1.0);
    }
}
