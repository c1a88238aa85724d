//! There is one encoding: what the trainer makes of a row of its log is what the server makes of the same row when it
//! is sent as JSON, with the features read back from their files.

use millrace::{
    codec::json,
    features::{Cross, Encoder, Pooling, Value},
    tensor::Rows,
};
use millrace_trainer::{
    config::{Encoding, FeatureConfig, ListConfig, Owner},
    examples::Example,
    fit::FittedFeatures,
    log::{FeatureColumn, Interner, Log},
};
use proptest::prelude::*;

/// Rows of a log; the features are fitted on fewer, so that some ids are strangers and some numbers out of range.
const ROWS: usize = 24;
const FITTED_ROWS: usize = 16;

/// A column of a log, and every encoding of it.
#[derive(Clone, Debug)]
struct Column {
    values: FeatureColumn,
    encodings: Vec<Encoding>,
    optional: bool,
    list: Option<ListConfig>,
}

/// A column of any kind of value. Those that are not optional have no missing values.
fn column() -> impl Strategy<Value = Column> {
    let ids = prop_oneof![
        (1usize..4).prop_map(|minimum_count| Encoding::Vocabulary { minimum_count }),
        (1u32..40).prop_map(|buckets| Encoding::Hash { buckets }),
    ];
    let boundaries = prop::collection::btree_set(-100i32..100, 0..6);
    let numbers = prop_oneof![
        Just(Encoding::Numeric),
        Just(Encoding::Log),
        (2usize..9).prop_map(|buckets| Encoding::Quantiles { buckets }),
        boundaries
            .prop_map(|all| Encoding::Boundaries(all.into_iter().map(|b| f64::from(b) / 8.0).collect())),
    ];
    let moments = prop_oneof![Just(Encoding::HourOfDay), Just(Encoding::DayOfWeek)];
    let id = prop_oneof!["[0-9]{1,2}", "-?[1-9][0-9]{0,2}", "[a-cé\" ]{1,3}"];
    let number = prop_oneof![-100.0f64..100.0, (-4i32..4).prop_map(f64::from), -1e12f64..1e12];
    prop_oneof![
        with(id, ids, |cells| {
            let mut interner = Interner::default();
            for cell in cells {
                match cell {
                    Some(id) => interner.push(&id),
                    None => interner.push_missing(),
                }
            }
            FeatureColumn::Ids(interner.finish())
        }),
        with(number, numbers, |cells| {
            FeatureColumn::Numbers(cells.into_iter().map(|cell| cell.unwrap_or(f64::NAN)).collect())
        }),
        with(-4_000_000_000i64..4_000_000_000, moments, FeatureColumn::Moments),
        lists(),
    ]
}

/// A column of lists of ids, empty ones among them.
fn lists() -> impl Strategy<Value = Column> {
    let encoding = prop_oneof![
        (1usize..4).prop_map(|minimum_count| Encoding::Vocabulary { minimum_count }),
        (1u32..40).prop_map(|buckets| Encoding::Hash { buckets }),
    ];
    let id = prop_oneof!["-?[1-9][0-9]{0,1}", "[a-cé\" |]{1,2}"];
    let cells = prop::collection::vec(prop::collection::vec(id, 0..4), ROWS);
    let pooling = prop_oneof![Just(Pooling::Mean), Just(Pooling::Sum)];
    (cells, prop::collection::vec(encoding, 1..3), any::<bool>(), 3usize..6, pooling).prop_map(
        |(cells, encodings, optional, max, pooling)| {
            let mut interner = Interner::default();
            for list in &cells {
                interner.push_list(list.iter().map(String::as_str));
            }
            let values = FeatureColumn::Lists(interner.finish());
            let list = Some(ListConfig { max, pooling, separator: None, truncate: false });
            Column { values, encodings, optional, list }
        },
    )
}

fn with<T: Clone + std::fmt::Debug + 'static>(
    cell: impl Strategy<Value = T> + Clone + 'static,
    encoding: impl Strategy<Value = Encoding> + 'static,
    gather: impl Fn(Vec<Option<T>>) -> FeatureColumn + 'static,
) -> BoxedStrategy<Column> {
    let present = cell.clone().prop_map(Some);
    let cells = any::<bool>().prop_flat_map(move |optional| {
        let cell = if optional {
            prop::option::weighted(0.7, cell.clone()).boxed()
        } else {
            present.clone().boxed()
        };
        (prop::collection::vec(cell, ROWS), Just(optional))
    });
    let encodings = prop::collection::vec(encoding, 1..4);
    (cells, encodings)
        .prop_map(move |((cells, optional), encodings)| Column {
            values: gather(cells),
            encodings,
            optional,
            list: None,
        })
        .boxed()
}

/// The features of `columns`: the first encoding of each has the column, the others are from that one.
fn features(columns: &[Column]) -> Vec<FeatureConfig> {
    let of_column = |(at, column): (usize, &Column)| {
        let name = format!("f{at}");
        let feature = move |(place, encoding): (usize, &Encoding)| FeatureConfig {
            name: if place == 0 { name.clone() } else { format!("{name}_{place}") },
            column: name.clone(),
            from: (place > 0).then(|| name.clone()),
            optional: column.optional,
            encoding: encoding.clone(),
            values: column.list.clone(),
            of: Owner::User,
        };
        column.encodings.iter().enumerate().map(feature).collect::<Vec<_>>()
    };
    columns.iter().enumerate().flat_map(of_column).collect()
}

/// A cross of every two categorical features that follow each other.
fn crosses(features: &[FeatureConfig]) -> Vec<Cross> {
    let single = features.iter().filter(|f| !f.encoding.is_dense() && f.values.is_none());
    let names: Vec<_> = single.map(|f| f.name.clone()).collect();
    names.windows(2).map(|pair| Cross { features: pair.to_vec(), buckets: 97 }).collect()
}

/// The rows of `body` as a server reads them.
fn serve(encoder: &Encoder, input: &serde_json::Value) -> Rows {
    let mut rows = Rows::new(encoder.signature());
    let body = serde_json::json!({ "input": input }).to_string();
    json::decode(body.as_bytes(), encoder, &mut rows, ROWS).expect("rows that the trainer has encoded");
    rows
}

/// Rows that name their values, and leave out those that are missing.
fn named(encoder: &Encoder, input: &[Vec<Value>]) -> serde_json::Value {
    let row = |values: &Vec<Value>| {
        let named = encoder.sent().zip(values).filter(|(_, value)| **value != Value::Missing);
        let named = named.map(|(feature, value)| (feature.name.clone(), serde_json::json!(value)));
        serde_json::Value::Object(named.collect())
    };
    input.iter().map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_server_reads_a_row_as_the_trainer_did(columns in prop::collection::vec(column(), 1..5), last_first: bool) {
        let mut features = features(&columns);
        let mut values: Vec<FeatureColumn> = columns.iter().map(|column| column.values.clone()).collect();
        if last_first {
            features.reverse();
            values.reverse();
        }
        let log = Log { labels: Some(vec![true; ROWS]), features: values, ..Log::default() };
        let fitted = FittedFeatures::fit(&log, 0..FITTED_ROWS, &features, &crosses(&features)).expect("fitted");
        let example = |row| Example { user_row: row, item_row: row, label: true, weight: 1.0 };
        let examples: Vec<Example> = (0..).take(ROWS).map(example).collect();
        let expected = fitted.encode(&log, &examples).expect("encoded");

        let folder = tempfile::tempdir().expect("a temporary folder");
        fitted.encoder().write(folder.path()).expect("written");
        let encoder = Encoder::read(folder.path()).expect("read back");
        prop_assert_eq!(encoder.signature(), fitted.encoder().signature());
        let input: Vec<Vec<Value>> = examples.iter().map(|example| fitted.raw_row(&log, example)).collect();
        for found in [serve(&encoder, &serde_json::json!(input)), serve(&encoder, &named(&encoder, &input))] {
            for (found, expected) in found.columns().iter().zip(expected.columns()) {
                prop_assert_eq!(found.values(), expected.values());
            }
        }
    }
}
