//! History features: what the log said of an id, or of a pair of ids, before some moment.
//!
//! The tables of every moment are made by one function, [`HistoryPlan::past`], from the rows before that moment alone.
//! The artifact holds those of the end of training; a training example sees those of the start of its window
//! ([`crate::windows`]). So neither can see the future, and the trainer cannot disagree with the server.

mod alike;
mod measure;
mod order;
mod words;

use std::ops::Range;

use millrace::features::{
    Affinity, AffinityTable, Encoder, History, HistoryColumn, HistoryTable, Past, SchemaError, Value,
};

use self::measure::Event;
pub use self::measure::{HistoryConfig, Likeness, Measure};
use crate::{
    calendar::DAY_SECONDS,
    config::FeatureConfig,
    log::{FeatureColumn, Log},
};

/// The history features of a pipeline over a log, and how its rows name ids of the vocabularies.
pub(crate) struct HistoryPlan<'a> {
    log: &'a Log,
    tables: Vec<TablePlan>,
    affinities: Vec<AffinityPlan>,
}

/// The history features that are found by the same ids.
struct TablePlan {
    of: Vec<String>,
    names: Vec<String>,
    measures: Vec<(Measure, Option<String>)>,
    keys: Vec<Option<u64>>,
}

struct AffinityPlan {
    name: String,
    of: [String; 2],
    neighbours: usize,
    window_days: Option<u32>,
    by: Likeness,
    /// The column of texts that says which items are alike, where company does not.
    column: Option<String>,
    owners: Vec<u32>,
    items: Vec<u32>,
    rows: [usize; 2],
}

impl<'a> HistoryPlan<'a> {
    /// Plans `configs` for the rows of `log` before `end`, with the vocabularies of `encoder`.
    pub(crate) fn new(
        configs: &[HistoryConfig],
        log: &'a Log,
        end: usize,
        (features, encoder): (&[FeatureConfig], &Encoder),
    ) -> Result<Self, SchemaError> {
        let rows = |name: &str| vocabulary_rows(name, log, end, (features, encoder));
        let mut plan = Self { log, tables: Vec::new(), affinities: Vec::new() };
        for config in configs {
            if let (Measure::Affinity { neighbours, by, window_days }, [owner, item]) =
                (config.measure, config.of.as_slice())
            {
                let ((owners, owner_rows), (items, item_rows)) = (rows(owner)?, rows(item)?);
                plan.affinities.push(AffinityPlan {
                    name: config.name.clone(),
                    of: [owner.clone(), item.clone()],
                    neighbours,
                    by,
                    window_days,
                    column: config.column.clone(),
                    owners,
                    items,
                    rows: [owner_rows, item_rows],
                });
                continue;
            }
            if let Some(table) = plan.tables.iter_mut().find(|table| table.of == config.of) {
                table.names.push(config.name.clone());
                table.measures.push((config.measure, config.column.clone()));
                continue;
            }
            let parts: Vec<Vec<u32>> =
                config.of.iter().map(|name| Ok(rows(name)?.0)).collect::<Result<_, SchemaError>>()?;
            let key = |row: usize| History::key(&parts.iter().map(|part| part[row]).collect::<Vec<_>>());
            plan.tables.push(TablePlan {
                of: config.of.clone(),
                names: vec![config.name.clone()],
                measures: vec![(config.measure, config.column.clone())],
                keys: (0..end).map(key).collect(),
            });
        }
        Ok(plan)
    }

    /// The tables as of `moment`, from the rows of `rows` whose time is before it.
    pub(crate) fn past(&self, rows: Range<usize>, moment: i64) -> Past {
        let end = self.log.times[..rows.end].partition_point(|&time| time < moment);
        let rows = rows.start..end.max(rows.start);
        Past {
            tables: self.tables.iter().map(|table| table.build(self.log, rows.clone(), moment)).collect(),
            affinities: self
                .affinities
                .iter()
                .map(|affinity| affinity.build(self.log, rows.clone(), moment))
                .collect(),
        }
    }

    /// The declarations, standardised by what `past` holds.
    pub(crate) fn declare(&self, past: &Past) -> (Vec<History>, Vec<Affinity>) {
        let histories = self.tables.iter().zip(&past.tables).map(|(plan, table)| plan.declare(table));
        let affinities =
            self.affinities.iter().zip(&past.affinities).map(|(plan, table)| plan.declare(table));
        (histories.collect(), affinities.collect())
    }
}

impl TablePlan {
    fn build(&self, log: &Log, rows: Range<usize>, moment: i64) -> HistoryTable {
        let happened = |row: &usize| log.labels.as_ref().is_none_or(|labels| labels[*row]);
        let event = |row: usize| {
            let (user, item) = (log.users.codes()[row], log.items.codes()[row]);
            Some((self.keys[row]?, Event { time: log.times[row], user, item, row }))
        };
        let mut events: Vec<(u64, Event)> = rows.filter(happened).filter_map(event).collect();
        events.sort_unstable();
        events.dedup_by_key(|&mut (key, event)| (key, Event { row: 0, ..event }));
        let mut found: Vec<(u64, Vec<f32>)> = Vec::new();
        for group in events.chunk_by(|(one, _), (next, _)| one == next) {
            let of_key: Vec<Event> = group.iter().map(|&(_, event)| event).collect();
            let value = |(measure, column): &(Measure, Option<String>)| {
                measure.value(&of_key, moment, numbers(log, column.as_deref()))
            };
            found.push((group[0].0, self.measures.iter().map(value).collect()));
        }
        (0..self.measures.len()).for_each(|position| fill(&mut found, position));
        let mut table = HistoryTable::new(self.measures.len());
        for (key, values) in found {
            table.insert(key, values);
        }
        table
    }

    fn declare(&self, table: &HistoryTable) -> History {
        let column = |(position, (name, (measure, _))): (usize, (&String, &(Measure, _)))| {
            let (mean, std) = moments(table.values().map(|values| values[position]));
            HistoryColumn { name: name.clone(), absent: measure.absent().unwrap_or(mean), mean, std }
        };
        let columns = self.names.iter().zip(&self.measures).enumerate().map(column).collect();
        History { of: self.of.clone(), columns }
    }
}

impl AffinityPlan {
    fn build(&self, log: &Log, rows: Range<usize>, moment: i64) -> AffinityTable {
        let all = self.baskets(log, rows.clone());
        let texts = || self.texts(log, rows.clone());
        let similar = match self.by {
            Likeness::Company => alike::similar(&all, self.rows[1], self.neighbours),
            Likeness::Words => words::similar(&texts(), self.neighbours),
            Likeness::Order => order::similar(&texts(), self.neighbours),
        };
        let Some(days) = self.window_days else { return AffinityTable::new(&all, &similar) };
        let start = moment.saturating_sub(i64::from(days) * DAY_SECONDS);
        let first = log.times[..rows.end].partition_point(|&time| time < start).max(rows.start);
        AffinityTable::new(&self.baskets(log, first..rows.end), &similar)
    }

    /// What each owner was seen with in `rows`, ascending.
    fn baskets(&self, log: &Log, rows: Range<usize>) -> Vec<Vec<u32>> {
        let happened = |row: &usize| log.labels.as_ref().is_none_or(|labels| labels[*row]);
        let mut baskets: Vec<Vec<u32>> = vec![Vec::new(); self.rows[0]];
        // The latest first, so that a basket without bounds keeps what its owner likes now.
        for row in rows.rev().filter(happened) {
            let (owner, item) = (self.owners[row], self.items[row]);
            let basket = &mut baskets[owner as usize];
            if owner != 0 && item != 0 && basket.len() < BASKET_PURCHASES {
                basket.push(item);
            }
        }
        for basket in &mut baskets {
            basket.sort_unstable();
            basket.dedup();
        }
        baskets
    }

    /// The last text of each item in `rows`.
    fn texts(&self, log: &Log, rows: Range<usize>) -> Vec<Option<String>> {
        let mut last: Vec<Option<&Value>> = vec![None; self.rows[1]];
        let column = self.column.as_ref().and_then(|column| log.measured.get(column));
        if let Some(FeatureColumn::Ids(ids)) = column {
            for row in rows {
                if let (item @ 1.., Value::Int(_) | Value::Text(_)) =
                    (self.items[row] as usize, ids.value(row))
                {
                    last[item] = Some(ids.value(row));
                }
            }
        }
        let text = |value: &Value| match value {
            Value::Int(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            _ => String::new(),
        };
        last.into_iter().map(|value| value.map(text)).collect()
    }

    fn declare(&self, table: &AffinityTable) -> Affinity {
        let row = |position: usize, feature: usize| {
            let rows = self.rows[feature].max(2) - 1;
            u32::try_from(1 + position % rows).expect("a row of a vocabulary")
        };
        // Strides without a common divisor meet pairs from all over the two vocabularies.
        let pairs = (0..SAMPLED_PAIRS).map(|n| (row(n * 7919, 0), row(n * 104_729, 1)));
        let (mean, std) = moments(pairs.map(|(owner, item)| table.get(owner, item)));
        Affinity { name: self.name.clone(), of: self.of.clone(), mean, std }
    }
}

/// Takes the values that are missing at `position` for the mean of the others.
fn fill(found: &mut [(u64, Vec<f32>)], position: usize) {
    let there = found.iter().map(|(_, values)| values[position]).filter(|value| !value.is_nan());
    let (mean, _) = moments(there);
    for (_, values) in found {
        if values[position].is_nan() {
            values[position] = mean;
        }
    }
}

/// The numbers of a measured column, by row.
fn numbers<'l>(log: &'l Log, column: Option<&str>) -> &'l [f64] {
    match column.and_then(|column| log.measured.get(column)) {
        Some(FeatureColumn::Numbers(numbers)) => numbers,
        _ => &[],
    }
}

/// The row that each row of `log` before `end` has in the vocabulary of the feature `name`, and the vocabulary's size.
fn vocabulary_rows(
    name: &str,
    log: &Log,
    end: usize,
    (features, encoder): (&[FeatureConfig], &Encoder),
) -> Result<(Vec<u32>, usize), SchemaError> {
    let position = features.iter().position(|feature| feature.name == name);
    let column = position.and_then(|position| log.features.get(position));
    let (Some(FeatureColumn::Ids(ids)), Some(vocabulary)) = (column, encoder.vocabulary(name)) else {
        return Err(SchemaError::Invalid(format!(
            "history: `{name}` is no feature with a vocabulary, or takes lists"
        )));
    };
    let by_code: Vec<u32> =
        ids.values().iter().map(|id| vocabulary.lookup(id.raw()).unwrap_or_default()).collect();
    Ok((ids.codes()[..end].iter().map(|&code| by_code[code as usize]).collect(), vocabulary.rows()))
}

/// Mean and standard deviation; the deviation of equal numbers is taken for one.
#[expect(clippy::cast_possible_truncation, reason = "inputs are single precision")]
fn moments(numbers: impl Iterator<Item = f32>) -> (f32, f32) {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for number in numbers.map(f64::from) {
        count += 1.0;
        sum += number;
        squares += number * number;
    }
    let mean = sum / f64::max(count, 1.0);
    let variance = squares / f64::max(count, 1.0) - mean * mean;
    (mean as f32, if variance > 1e-9 { variance.sqrt() as f32 } else { 1.0 })
}

/// The latest purchases of an owner that an affinity looks at: without a bound the work grows with their square.
const BASKET_PURCHASES: usize = 5000;
/// Pairs that an affinity is standardised by.
const SAMPLED_PAIRS: usize = 100_000;

#[cfg(test)]
mod tests;
