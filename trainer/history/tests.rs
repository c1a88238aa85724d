//! That nothing of the past comes from the future, and that what is learnt is what is served.

use millrace::tensor::{Rows, Values};
use proptest::prelude::*;

use super::*;
use crate::{
    calendar::DAY_SECONDS,
    config::{Encoding, Owner},
    examples::Example,
    fit::FittedFeatures,
    log::Ids,
    random::{Purpose, random},
    windows::WindowsConfig,
};

/// A log of (day, user, item), which comes sorted by day.
fn log(events: &[(i64, u8, u8)]) -> Log {
    let ids = |code: fn(&(i64, u8, u8)) -> u8| {
        let texts: Vec<String> = events.iter().map(|event| code(event).to_string()).collect();
        Ids::of(texts.iter().map(String::as_str))
    };
    let (users, items) = (ids(|event| event.1), ids(|event| event.2));
    // What an item is called and what it costs changes with the day.
    let texts: Vec<String> =
        events.iter().map(|(day, _, item)| format!("item{} day{day}", item / 2)).collect();
    let prices = events.iter().map(|&(day, _, item)| (day + i64::from(item)) as f64).collect();
    let measured = [
        ("text".to_owned(), FeatureColumn::Ids(Ids::of(texts.iter().map(String::as_str)))),
        ("price".to_owned(), FeatureColumn::Numbers(prices)),
    ];
    Log {
        features: vec![FeatureColumn::Ids(users.clone()), FeatureColumn::Ids(items.clone())],
        users,
        items,
        times: events.iter().map(|event| event.0 * DAY_SECONDS).collect(),
        labels: None,
        measured: measured.into(),
    }
}

fn features() -> Vec<FeatureConfig> {
    let feature = |name: &str, of| FeatureConfig {
        from: None,
        optional: false,
        name: name.into(),
        column: name.into(),
        encoding: Encoding::Vocabulary { minimum_count: 1 },
        values: None,
        of,
    };
    vec![feature("user", Owner::User), feature("item", Owner::Item)]
}

fn configs() -> Vec<HistoryConfig> {
    let looking_at = |column: Option<&str>, name: &str, of: &[&str], measure| HistoryConfig {
        name: name.into(),
        column: column.map(str::to_owned),
        of: of.iter().map(|&name| name.to_owned()).collect(),
        measure,
    };
    let config = |name: &str, of: &[&str], measure| looking_at(None, name, of, measure);
    let affinity = |neighbours, by, window_days| Measure::Affinity { neighbours, by, window_days };
    vec![
        config("item_count", &["item"], Measure::Count { window_days: 6 }),
        config("item_buyers", &["item"], Measure::Buyers { window_days: 9 }),
        config("item_trend", &["item"], Measure::Trend { window_days: 2, base_days: 8 }),
        config("user_recency", &["user"], Measure::Recency),
        config("pair_count", &["user", "item"], Measure::Count { window_days: 100 }),
        config("pair_age", &["user", "item"], Measure::Age),
        config("alike", &["user", "item"], affinity(3, Likeness::Company, None)),
        config("tastes", &["item", "user"], affinity(2, Likeness::Company, Some(5))),
        looking_at(Some("text"), "described", &["user", "item"], affinity(2, Likeness::Words, None)),
        looking_at(Some("text"), "beside", &["user", "item"], affinity(2, Likeness::Order, None)),
        looking_at(Some("price"), "item_price", &["item"], Measure::MeanLog),
    ]
}

/// Features of the rows before `end`, with windows of four days.
fn fitted(log: &Log, end: usize) -> FittedFeatures {
    let windows = Some(WindowsConfig { days: 4, count: 3 });
    let features = FittedFeatures::fit(log, 0..end, &features(), &[]).expect("fitted");
    features.remembering(log, &(0..end), &configs(), windows).expect("remembered")
}

/// The numbers of the past before they were standardised, so that fits on other rows can be compared.
fn raw(features: &FittedFeatures, rows: &Rows) -> Vec<f32> {
    let Values::F32(dense) = rows.columns()[1].values() else { panic!("dense is F32") };
    let schema = features.encoder().schema();
    let columns =
        schema.histories.iter().flat_map(|history| &history.columns).map(|column| (column.mean, column.std));
    let affinities = schema.affinities.iter().map(|affinity| (affinity.mean, affinity.std));
    let moments: Vec<(f32, f32)> = columns.chain(affinities).collect();
    dense.iter().zip(moments.iter().cycle()).map(|(value, (mean, std))| value * std + mean).collect()
}

fn learnt(features: &FittedFeatures, log: &Log, row: u32) -> Vec<f32> {
    let example = Example { user_row: row, item_row: row, label: true, weight: 1.0 };
    let mut random = random(7, Purpose::Training, 0);
    raw(features, &features.encode_hiding(log, &[example], 0.0, &mut random).expect("encoded"))
}

fn near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }
}

fn events(length: Range<usize>) -> impl Strategy<Value = Vec<(i64, u8, u8)>> {
    prop::collection::vec((0i64..20, 0u8..4, 0u8..5), length).prop_map(|mut events| {
        events.sort_unstable();
        events
    })
}

proptest! {
    #[test]
    fn forged_events_of_the_future_change_nothing(past in events(1..40), future in events(0..30), forged in events(0..30)) {
        let with = |future: &[(i64, u8, u8)]| {
            // Every id is known from the first day on, so that the vocabularies are the same.
            let all = (0..5).map(|id| (0, id.min(3), id)).chain(past.iter().copied());
            let all: Vec<_> = all.map(|(day, user, item)| (day - 20, user, item)).collect();
            let mut all = [all, future.to_vec()].concat();
            all.sort_by_key(|event| event.0);
            let log = log(&all);
            let fitted = FittedFeatures::fit(&log, 0..past.len() + 5, &features(), &[]).expect("fitted");
            let plan = HistoryPlan::new(&configs(), &log, log.len(), (&features(), fitted.encoder()));
            plan.expect("a plan").past(0..log.len(), 0)
        };
        prop_assert_eq!(with(&future), with(&forged));
    }

    #[test]
    fn what_is_learnt_in_a_window_is_what_the_tables_of_its_start_answer(events in events(8..60)) {
        let log = log(&events);
        let features = fitted(&log, log.len());
        let windows = WindowsConfig { days: 4, count: 3 }.of(&log.times, &(0..log.len()));
        let plan = HistoryPlan::new(&configs(), &log, log.len(), (&self::features(), features.encoder())).expect("a plan");
        for window in windows {
            // The past is built from the rows before the window alone, and put into an encoder as an artifact's is.
            let past = plan.past(0..window.rows.start, window.start);
            let again = FittedFeatures::fit(&log, 0..log.len(), &self::features(), &[]).expect("fitted");
            let schema = features.encoder().schema();
            let declared = (schema.histories.clone(), schema.affinities.clone());
            let folder = tempfile::tempdir().expect("a temporary folder");
            let writer = Encoder::new(again.encoder().schema().clone(), |feature| {
                Ok(again.encoder().vocabulary(&feature.name).expect("a vocabulary").clone())
            });
            writer.expect("a layout").remembering(declared, past).expect("as declared").write(folder.path()).expect("written");
            let served = Encoder::read(folder.path()).expect("read");
            for row in window.rows {
                let row = u32::try_from(row).expect("few rows");
                let example = Example { user_row: row, item_row: row, label: true, weight: 1.0 };
                let mut rows = Rows::new(served.signature());
                let values = features.raw_row(&log, &example);
                served.encode(values.iter().map(Value::raw), &mut rows).expect("encoded");
                prop_assert_eq!(learnt(&features, &log, row), raw(&features, &rows));
            }
        }
    }
}

/// User 1 buys item 7 on days 0, 3 and 13, user 2 buys items 7 and 8 on day 5, and user 1 buys item 8 on day 14. The
/// last window starts on day 10.
fn story() -> Log {
    log(&[(0, 1, 7), (3, 1, 7), (5, 2, 7), (5, 2, 8), (13, 1, 7), (13, 1, 7), (14, 1, 8)])
}

#[test]
fn a_purchase_counts_neither_itself_nor_what_else_its_window_holds() {
    let log = story();
    let features = fitted(&log, log.len());
    let (once, twice) = (2_f32.ln(), 3_f32.ln());
    // At the start of day 10, and one second: item 7 was bought once in six days, by two users in nine; user 1 last
    // bought seven days before, and bought item 7 twice, first ten days before.
    let found = learnt(&features, &log, 4);
    near(&found[..2], &[once, twice]);
    near(&found[4..7], &[8_f32.ln(), twice, 11_f32.ln()]);
    // Rows of one moment have the same past.
    assert_eq!(found, learnt(&features, &log, 5));
}

#[test]
fn a_pair_never_bought_is_known_by_what_goes_with_it() {
    let log = story();
    let features = fitted(&log, log.len());
    let found = learnt(&features, &log, 6);
    // User 2 has items 7 and 8, user 1 has 7: one owner in common of two and one.
    near(&found[5..8], &[0.0, 0.0, (1.0 / 2_f32.sqrt() / 11.0).ln_1p()]);
    // Nobody bought item 8 in the five days before the window.
    near(&found[8..9], &[0.0]);
    // On day 5 items 7 and 8 were called "item3 day5" and "item4 day5".
    near(&found[9..10], &[0.0]);
    // And so they are beside each other, in the order of these.
    near(&found[10..], &[2_f32.ln()]);
}

#[test]
fn rows_that_did_not_happen_are_no_purchases() {
    let mut log = story();
    log.labels = Some(vec![true, false, true, true, true, true, true]);
    let found = learnt(&fitted(&log, log.len()), &log, 4);
    near(&found[5..6], &[2_f32.ln()]);
}

#[test]
fn a_feature_without_a_vocabulary_has_no_history() {
    let log = story();
    let mut unknown = configs();
    unknown[0].of = vec!["colour".into()];
    let features = FittedFeatures::fit(&log, 0..7, &features(), &[]).expect("fitted");
    let error = features.remembering(&log, &(0..7), &unknown, None).expect_err("refused");
    assert!(error.to_string().contains("`colour` is no feature with a vocabulary"), "{error}");
}
