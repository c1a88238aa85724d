//! How often an event leads to the one that is wished for: the label, or the type of event that ends a purchase.

use serde::Serialize;

use super::{
    label::Label,
    roles::bare,
    share::{rounded, share},
    values::{Values, ranked},
};

/// The rate of what is wished for, overall and by group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conversion {
    /// What is wished for: a type of event, or the label's positive value.
    pub goal: String,
    /// What it is counted against: a type of event, or rows with a label.
    pub base: String,
    /// All rows.
    pub overall: Rate,
    /// The column that the groups are values of.
    pub by: Option<String>,
    /// The groups with the most of the base, most first.
    pub groups: Vec<Group>,
    /// The number of groups, also those that are not listed.
    pub groups_in_all: usize,
}

/// Goals over base. Events of the goal may outnumber those of the base.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Rows of the base.
    pub base: usize,
    /// Rows of the goal.
    pub goals: usize,
    /// The one over the other; 0 without a base.
    pub rate: f64,
}

/// The rate of one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// The value that its rows share.
    pub name: String,
    /// Its rate.
    #[serde(flatten)]
    pub rate: Rate,
}

/// What counts as what: whether each row is of the base, and whether it is a goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcomes {
    goal: String,
    base: String,
    rows: Vec<(bool, bool)>,
}

impl Outcomes {
    /// Every row with a label is of the base, the positive ones are goals.
    pub fn of_label(column: &str, label: &Label) -> Self {
        Self {
            goal: format!("{column} = {}", label.positive),
            base: format!("rows with a value of {column}"),
            rows: label.rows.iter().map(|row| (row.is_some(), *row == Some(true))).collect(),
        }
    }

    /// The goal is the type of event whose name says purchase, or else the rarest; the base is the commonest other.
    /// `None` unless there are several types.
    pub fn of_events(events: &Values) -> Option<Self> {
        let counts = events.counts();
        let order = ranked(&counts, counts.len());
        let is_goal = |&&code: &&usize| GOALS.contains(&bare(&events.texts()[code]).as_str());
        let &goal = order.iter().find(is_goal).or(order.last())?;
        let &base = order.iter().find(|&&code| code != goal)?;
        let is = |row: usize, code: usize| events.code(row).is_some_and(|found| found as usize == code);
        Some(Self {
            goal: events.texts()[goal].clone(),
            base: events.texts()[base].clone(),
            rows: (0..events.codes().len()).map(|row| (is(row, base), is(row, goal))).collect(),
        })
    }
}

impl Conversion {
    /// The rates of `outcomes`, overall and by the values of the column `by`.
    pub fn of(outcomes: &Outcomes, by: Option<(&str, &Values)>) -> Self {
        let goals = outcomes.rows.iter().filter(|row| row.1).count();
        let base = outcomes.rows.iter().filter(|row| row.0).count();
        Self {
            goal: outcomes.goal.clone(),
            base: outcomes.base.clone(),
            overall: Rate::new(base, goals),
            by: by.map(|(name, _)| name.to_owned()),
            groups: by.map(|(_, values)| groups(outcomes, values)).unwrap_or_default(),
            groups_in_all: by.map_or(0, |(_, values)| values.distinct()),
        }
    }
}

impl Rate {
    fn new(base: usize, goals: usize) -> Self {
        let rate =
            if goals <= base { share(goals, base) } else { rounded(goals as f64 / base.max(1) as f64) };
        Self { base, goals, rate }
    }
}

fn groups(outcomes: &Outcomes, values: &Values) -> Vec<Group> {
    let mut bases = vec![0; values.distinct()];
    let mut goals = vec![0; values.distinct()];
    for (row, &(is_base, is_goal)) in outcomes.rows.iter().enumerate() {
        if let Some(code) = values.code(row) {
            bases[code as usize] += usize::from(is_base);
            goals[code as usize] += usize::from(is_goal);
        }
    }
    let group =
        |code: usize| Group { name: values.texts()[code].clone(), rate: Rate::new(bases[code], goals[code]) };
    ranked(&bases, GROUPS).into_iter().map(group).collect()
}

/// Groups that are listed.
const GROUPS: usize = 15;
/// Names of the events that a shop lives on.
const GOALS: [&str; 12] = [
    "purchase",
    "purchased",
    "buy",
    "bought",
    "order",
    "ordered",
    "transaction",
    "sale",
    "checkout",
    "conversion",
    "booking",
    "subscribe",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(texts: &[&str]) -> Values {
        Values::of(texts.iter().map(|&text| Some(text)))
    }

    #[test]
    fn purchases_are_counted_against_the_commonest_other_event() {
        let events = values(&["view", "view", "cart", "Purchase", "view", "view", "Purchase", "Purchase"]);
        let kinds = values(&["a", "b", "a", "a", "a", "b", "c", "c"]);
        let conversion =
            Conversion::of(&Outcomes::of_events(&events).expect("types"), Some(("kind", &kinds)));
        assert_eq!((conversion.goal.as_str(), conversion.base.as_str()), ("Purchase", "view"));
        assert_eq!(conversion.overall, Rate { base: 4, goals: 3, rate: 0.75 });
        let found: Vec<_> = conversion
            .groups
            .iter()
            .map(|group| (group.name.as_str(), group.rate.base, group.rate.goals))
            .collect();
        assert_eq!(found, [("a", 2, 1), ("b", 2, 0), ("c", 0, 2)]);
        assert!(
            (conversion.groups[2].rate.rate - 2.0).abs() < f64::EPSILON,
            "more goals than base is no error"
        );
        assert_eq!(conversion.groups_in_all, 3);
    }

    #[test]
    fn without_a_word_for_it_the_rarest_event_is_the_goal_and_one_type_is_none() {
        let outcomes = Outcomes::of_events(&values(&["seen", "seen", "saved"])).expect("types");
        assert_eq!((outcomes.goal.as_str(), outcomes.base.as_str()), ("saved", "seen"));
        assert_eq!(Outcomes::of_events(&values(&["seen", "seen"])), None);
        assert_eq!(Outcomes::of_events(&values(&[])), None);
    }

    #[test]
    fn rows_without_a_label_are_not_counted() {
        let label = Label { positive: "1".into(), rows: vec![Some(true), None, Some(false)] };
        let conversion = Conversion::of(&Outcomes::of_label("clicked", &label), None);
        assert_eq!(conversion.overall, Rate { base: 2, goals: 1, rate: 0.5 });
        assert_eq!(
            (conversion.goal.as_str(), conversion.by, conversion.groups),
            ("clicked = 1", None, vec![])
        );
    }

    proptest! {
        #[test]
        fn the_groups_sum_to_the_whole(rows in prop::collection::vec((0u8..4, any::<bool>()), 1..60)) {
            let label = Label { positive: "1".into(), rows: rows.iter().map(|row| Some(row.1)).collect() };
            let names: Vec<String> = rows.iter().map(|row| row.0.to_string()).collect();
            let kinds = Values::of(names.iter().map(|name| Some(name.as_str())));
            let conversion = Conversion::of(&Outcomes::of_label("y", &label), Some(("kind", &kinds)));
            prop_assert_eq!(conversion.groups.iter().map(|group| group.rate.base).sum::<usize>(), rows.len());
            prop_assert_eq!(conversion.groups.iter().map(|group| group.rate.goals).sum::<usize>(), conversion.overall.goals);
        }
    }
}
