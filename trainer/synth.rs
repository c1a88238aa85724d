//! A synthetic shop: users with tastes, items with traits, some items liked by everybody, and a log of what was shown
//! and clicked. The truth behind it is known, and with it the best accuracy that any model could reach. The users' tastes
//! may change at once in the middle of the log, so that whatever was learnt of them before is wrong from then on.
//!
//! Ids count from 1, so that the example request of the documentation, user 123 and item 456, is in the log.

use std::{fs::File, io, path::Path, path::PathBuf, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, TimestampSecondArray, UInt8Array};
use arrow_schema::ArrowError;
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::{
    calendar::DAY_SECONDS,
    random::{Purpose, Random, random},
    whole_file,
};

/// Why a log was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// The file's extension is neither `csv` nor `parquet`.
    #[error("{0}: a log is a .csv or a .parquet file")]
    Format(PathBuf),
    /// The file cannot be made, or not all of it.
    #[error("{path}: cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system or the encoder said.
        #[source]
        source: io::Error,
    },
}

/// The size of a shop, and what happens in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SynthOptions {
    /// Users, from id 1.
    pub users: u32,
    /// Items, from id 1.
    pub items: u32,
    /// Rows of the log.
    pub events: usize,
    /// Days that the log spans, from 2026 on.
    pub days: u32,
    /// The share of the events, 0 to 1, after which every user has another taste; moods and what items are like stay. Without
    /// it tastes never change. Which users meet which items when does not depend on it.
    pub shift_at: Option<f64>,
    /// The seed of all randomness.
    pub seed: u64,
}

impl Default for SynthOptions {
    fn default() -> Self {
        Self { users: 1000, items: 800, events: 300_000, days: 90, shift_at: None, seed: 7 }
    }
}

impl SynthOptions {
    /// The first event of the other tastes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length, rounded"
    )]
    fn shift(&self) -> usize {
        self.shift_at.map_or(self.events, |share| (self.events as f64 * share).round() as usize)
    }
}

/// A synthetic log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SynthLog {
    users: Vec<i64>,
    items: Vec<i64>,
    times: Vec<i64>,
    clicked: Vec<u8>,
    /// The chance with which the best guess of each label is right.
    certainty: Vec<f64>,
    /// The first event of the other tastes.
    shift: usize,
}

impl SynthLog {
    /// Draws a log.
    pub fn draw(options: &SynthOptions) -> Self {
        let mut truth = Truth::draw(options);
        let mut random = random(options.seed, Purpose::Events, 0);
        let mut log = Self { shift: options.shift().min(options.events), ..Self::default() };
        for event in 0..options.events {
            if event == log.shift {
                truth.shift(options);
            }
            let (user, item) = (random.random_range(0..options.users), truth.draw_item(&mut random));
            let probability = truth.probability(user, item);
            log.users.push(i64::from(user) + 1);
            log.items.push(i64::from(item) + 1);
            log.times.push(time(event, options));
            log.clicked.push(u8::from(random.random_bool(probability)));
            log.certainty.push(probability.max(1.0 - probability));
        }
        log
    }

    /// The share of the more frequent label.
    pub fn majority(&self) -> f64 {
        let clicked = self.clicked.iter().map(|&label| f64::from(label)).sum::<f64>();
        let share = clicked / self.clicked.len().max(1) as f64;
        share.max(1.0 - share)
    }

    /// The expected accuracy of who knows the truth.
    pub fn bayes_accuracy(&self) -> f64 {
        mean(&self.certainty)
    }

    /// The same before the shift of tastes and after it; `None` where a side has no events.
    pub fn bayes_accuracy_by_taste(&self) -> Option<(f64, f64)> {
        let (before, after) = self.certainty.split_at(self.shift);
        (!before.is_empty() && !after.is_empty()).then(|| (mean(before), mean(after)))
    }

    /// Writes the log as CSV or Parquet, by the extension of `path`.
    pub fn write(self, path: &Path) -> Result<(), SynthError> {
        let write = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => write_csv,
            Some("parquet") => write_parquet,
            _ => return Err(SynthError::Format(path.to_path_buf())),
        };
        let written = self.batch().map_err(io::Error::other);
        let written = written.and_then(|batch| whole_file::write(path, |file| write(&batch, file)));
        written.map_err(|source| SynthError::Write { path: path.to_path_buf(), source })
    }

    fn batch(self) -> Result<RecordBatch, ArrowError> {
        let columns: [(&str, ArrayRef); 4] = [
            ("user_id", Arc::new(Int64Array::from(self.users))),
            ("item_id", Arc::new(Int64Array::from(self.items))),
            ("event_time", Arc::new(TimestampSecondArray::from(self.times))),
            ("clicked", Arc::new(UInt8Array::from(self.clicked))),
        ];
        RecordBatch::try_from_iter(columns)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn write_csv(batch: &RecordBatch, file: &File) -> io::Result<()> {
    let format = arrow_csv::WriterBuilder::new().with_timestamp_format("%Y-%m-%d %H:%M:%S".into());
    format.build(file).write(batch).map_err(io::Error::other)
}

fn write_parquet(batch: &RecordBatch, file: &File) -> io::Result<()> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(())
}

/// What decides the clicks: `logit = offset + user's mood + item's appeal + taste . traits`.
struct Truth {
    moods: Vec<f64>,
    appeals: Vec<f64>,
    tastes: Vec<[f64; FACTORS]>,
    traits: Vec<[f64; FACTORS]>,
    /// The cumulated chances of items to be shown, which fall with the item's rank.
    shown: Vec<f64>,
}

impl Truth {
    fn draw(options: &SynthOptions) -> Self {
        let mut random = random(options.seed, Purpose::Truth, 0);
        let moods = normals(options.users, MOOD, &mut random);
        let appeals = normals(options.items, APPEAL, &mut random);
        let tastes = directions(options.users, &mut random);
        let traits = directions(options.items, &mut random);
        let chances = (0..options.items).map(|rank| 1.0 / (f64::from(rank) + 10.0).sqrt());
        let shown = chances.scan(0.0, |sum, chance| {
            *sum += chance;
            Some(*sum)
        });
        Self { moods, appeals, tastes, traits, shown: shown.collect() }
    }

    /// Gives every user another taste.
    fn shift(&mut self, options: &SynthOptions) {
        self.tastes = directions(options.users, &mut random(options.seed, Purpose::Truth, 1));
    }

    fn draw_item(&self, random: &mut Random) -> u32 {
        let all = self.shown.last().copied().expect("a shop has items");
        let point = random.random_range(0.0..all);
        u32::try_from(self.shown.partition_point(|&sum| sum <= point))
            .expect("fewer items than u32 has numbers")
    }

    fn probability(&self, user: u32, item: u32) -> f64 {
        let (user, item) = (user as usize, item as usize);
        let match_: f64 = self.tastes[user].iter().zip(&self.traits[item]).map(|(a, b)| a * b).sum();
        let logit = OFFSET + self.moods[user] + self.appeals[item] + TASTE * match_;
        1.0 / (1.0 + (-logit).exp())
    }
}

fn normals(count: u32, scale: f64, random: &mut Random) -> Vec<f64> {
    (0..count).map(|_| scale * normal(random)).collect()
}

fn directions(count: u32, random: &mut Random) -> Vec<[f64; FACTORS]> {
    (0..count).map(|_| direction(random)).collect()
}

/// A point on the unit sphere: everybody's taste is equally strong.
fn direction(random: &mut Random) -> [f64; FACTORS] {
    let point: [f64; FACTORS] = std::array::from_fn(|_| normal(random));
    let length = point.iter().map(|x| x * x).sum::<f64>().sqrt();
    point.map(|x| x / length)
}

fn normal(random: &mut Random) -> f64 {
    StandardNormal.sample(random)
}

/// Events are spread evenly over the days from [`START`].
fn time(event: usize, options: &SynthOptions) -> i64 {
    let share = i64::try_from(event).expect("a log in memory") * i64::from(options.days) * DAY_SECONDS;
    START + share / i64::try_from(options.events).expect("a log in memory")
}

/// Numbers in a taste.
const FACTORS: usize = 2;
/// How far users differ in how readily they click.
const MOOD: f64 = 0.8;
/// How far items differ in how readily they are clicked.
const APPEAL: f64 = 1.8;
/// How much a taste that fits counts.
const TASTE: f64 = 4.0;
/// Makes clicks the rarer label.
const OFFSET: f64 = -1.9;
/// 2026-01-01.
const START: i64 = 1_767_225_600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{DataConfig, FeatureConfig},
        log,
    };

    const OPTIONS: SynthOptions =
        SynthOptions { users: 500, items: 600, events: 30_000, days: 90, shift_at: None, seed: 7 };

    fn data() -> DataConfig {
        DataConfig {
            user: Some("user_id".into()),
            item: Some("item_id".into()),
            time: Some("event_time".into()),
            label: Some("clicked".into()),
            ..DataConfig::default()
        }
    }

    #[test]
    fn a_seed_draws_one_log_and_another_seed_another() {
        assert_eq!(SynthLog::draw(&OPTIONS), SynthLog::draw(&OPTIONS));
        assert_ne!(SynthLog::draw(&OPTIONS), SynthLog::draw(&SynthOptions { seed: 8, ..OPTIONS }));
    }

    #[test]
    fn the_labels_are_predictable_but_not_by_the_majority() {
        let log = SynthLog::draw(&OPTIONS);
        assert!((0.60..0.70).contains(&log.majority()), "{}", log.majority());
        assert!(log.bayes_accuracy() > 0.84, "{}", log.bayes_accuracy());
    }

    #[test]
    fn a_shift_changes_the_labels_behind_it_and_nothing_else() {
        let (steady, shifted) =
            (SynthLog::draw(&OPTIONS), SynthLog::draw(&SynthOptions { shift_at: Some(0.6), ..OPTIONS }));
        assert_eq!(
            (&steady.users, &steady.items, &steady.times),
            (&shifted.users, &shifted.items, &shifted.times)
        );
        assert_eq!(steady.clicked[..18_000], shifted.clicked[..18_000]);
        let other = steady.clicked.iter().zip(&shifted.clicked).skip(18_000).filter(|(a, b)| a != b).count();
        assert!((3_600..6_000).contains(&other), "{other} of 12,000 labels are others");
        let (before, after) = shifted.bayes_accuracy_by_taste().expect("a shift");
        assert!((before - after).abs() < 0.01, "as predictable as before: {before} {after}");
        for share in [None, Some(0.0), Some(1.0)] {
            let log = SynthLog::draw(&SynthOptions { shift_at: share, events: 100, ..OPTIONS });
            assert_eq!(log.bayes_accuracy_by_taste(), None, "{share:?}");
        }
    }

    #[test]
    fn both_formats_hold_the_same_log_and_the_example_request_is_in_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let features: [FeatureConfig; 0] = [];
        let read = |name: &str| {
            let path = folder.path().join(name);
            SynthLog::draw(&OPTIONS).write(&path).expect("written");
            log::read(&path, &data(), &features, &std::collections::BTreeMap::new(), &mut |_: &str| {})
                .expect("read")
                .log
        };
        let log = read("log.csv");
        assert_eq!(log, read("log.parquet"));
        assert_eq!(log.len(), OPTIONS.events);
        let holds = |ids: &log::Ids, id| ids.values().contains(&millrace::features::Value::Int(id));
        assert!(holds(&log.users, 123) && holds(&log.items, 456));
    }

    #[test]
    fn another_extension_is_refused() {
        assert!(matches!(SynthLog::default().write(Path::new("log.txt")), Err(SynthError::Format(_))));
    }
}
