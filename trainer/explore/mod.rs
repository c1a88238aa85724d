//! Looks at a log before anyone trains on it: what its columns hold, when things happened, how users and items are
//! spread, what a model could know of the test period, and what is likely to mislead.
//!
//! Figures are pure functions of columns in memory; [`table`] reads the file, [`page`] shows the report. It changes
//! nothing and needs no model.

pub mod lists;
pub mod roles;
pub mod table;
pub mod values;

pub mod activity;
pub mod column;
pub mod conversion;
pub mod label;
pub mod leak;
pub mod overlap;
pub mod share;
pub mod timeline;
pub mod warning;

pub mod report;

pub mod page;

use std::path::Path;

use time::OffsetDateTime;

use self::{
    activity::Activity,
    column::ColumnFigures,
    conversion::{Conversion, Outcomes},
    label::Label,
    overlap::{Cut, Overlap, distinct_pairs},
    report::{ItemCount, Report},
    roles::{Role, Roles, Source},
    table::{Column, MOST_VALUES, Table},
    timeline::{MOST_MONTHS, Timeline},
    values::Values,
    warning::warnings,
};
use crate::{
    calendar,
    config::{KeepConfig, Pipeline, SplitConfig, TestStart},
    log::LogError,
    progress::Progress,
    split::{EmptySplit, Split},
};

/// Why a log was not explored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExploreError {
    /// The file cannot be read as a log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The label's column has not two values.
    #[error("column `{column}` has {distinct} distinct values, but a label has two")]
    Label {
        /// The column.
        column: String,
        /// Its distinct values.
        distinct: usize,
    },
    /// A column that cannot have its role.
    #[error(
        "column `{column}` cannot be the {role}: it holds lists or structures, or more than {MOST_VALUES} distinct values"
    )]
    Role {
        /// The column.
        column: String,
        /// The role's name.
        role: &'static str,
    },
    /// The test period leaves nothing on one side.
    #[error(transparent)]
    Split(#[from] EmptySplit),
    /// There is a test period, and nothing that says when.
    #[error("a test period needs a column of times: name one with --time")]
    NoTime,
}

/// What to look at, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ExploreOptions {
    /// What columns mean; what is not said is guessed.
    pub roles: Roles,
    /// Conditions that a row must meet to be looked at.
    pub keep: Vec<KeepConfig>,
    /// Where the test period starts, and who says so; without it, at the last fifth of the rows.
    pub test: Option<(TestStart, Source)>,
    /// The time of the report, after which no event should be.
    pub now: OffsetDateTime,
}

impl ExploreOptions {
    /// Looks at whatever there is.
    pub fn new(now: OffsetDateTime) -> Self {
        Self { roles: Roles::new(), keep: Vec::new(), test: None, now }
    }

    /// Looks at the rows that `pipeline` keeps, as it reads them and cut where it cuts.
    pub fn of_pipeline(pipeline: &Pipeline, now: OffsetDateTime) -> Self {
        Self {
            roles: Roles::of_pipeline(&pipeline.data),
            keep: pipeline.data.keep.clone(),
            // A table has its test rows in another file, which is not looked at here.
            test: Some((pipeline.split.test, Source::Pipeline))
                .filter(|(test, _)| *test != TestStart::Elsewhere),
            now,
        }
    }
}

/// Explores the log at `path`; `progress` hears of it.
pub fn explore(
    path: &Path,
    options: &ExploreOptions,
    progress: &mut dyn Progress,
) -> Result<Report, ExploreError> {
    progress.say(&format!("reading {}", path.display()));
    let mut table = Table::read(path, &options.roles, &options.keep, progress)?;
    progress.say(&format!("{} rows of {} columns", table.rows, table.columns.len()));
    let mut notes = std::mem::take(&mut table.refuted);
    check_roles(&mut table, &mut notes)?;
    let label = label(&mut table, &mut notes)?;
    let times = sorted(&table);
    let cut = cut(&times, options)?;
    notes.extend(missing(&table, &times, cut.is_some()));
    progress.say("comparing columns, times, users and items");
    let name = path.file_name().unwrap_or(path.as_os_str());
    let parts = Parts { table: &table, label: label.as_ref(), times: &times, cut, notes };
    Ok(parts.report(name.to_string_lossy().into_owned(), options.now))
}

/// What a report is made of.
struct Parts<'a> {
    table: &'a Table,
    label: Option<&'a Label>,
    times: &'a [i64],
    cut: Option<(i64, Source)>,
    notes: Vec<String>,
}

impl Parts<'_> {
    fn report(self, file: String, now: OffsetDateTime) -> Report {
        let (table, now) = (self.table, now.unix_timestamp());
        let (users, items) = (table.values(Role::User), table.values(Role::Item));
        let label_column = table.roles.column(Role::Label);
        let commonest =
            |role, most| table.values(role).map(|values| values.commonest(most)).unwrap_or_default();
        let activity = |values: Option<&Values>| values.and_then(|values| Activity::of(&values.counts()));
        Report {
            file,
            made_at: calendar::format(now),
            rows: table.rows,
            left_out: table.left_out,
            duplicates: table.duplicates,
            users: users.map(Values::distinct),
            items: items.map(Values::distinct),
            pairs: users.zip(items).map(|(users, items)| distinct_pairs(users, items)),
            roles: table.roles.all().to_vec(),
            notes: self.notes.clone(),
            warnings: warnings(table, self.label, now),
            distinct_bound: MOST_VALUES,
            columns: table.columns.iter().map(|column| ColumnFigures::of(column, table.rows)).collect(),
            timeline: Timeline::of(self.times),
            top_items: items
                .map(|items| ItemCount::top(items, table.values(Role::Title), TOP))
                .unwrap_or_default(),
            top_categories: commonest(Role::Category, TOP),
            event_types: commonest(Role::Event, TOP),
            label: self.label.zip(label_column).map(|(label, column)| label.figures(column)),
            conversion: self.conversion(),
            user_activity: activity(users),
            item_activity: activity(items),
            cut_source: self.cut.map(|(_, source)| source),
            overlap: self.overlap(),
        }
    }

    /// By category or, without one, by item; of the label or, without one, of the types of events.
    fn conversion(&self) -> Option<Conversion> {
        let table = self.table;
        let label = table.roles.column(Role::Label).zip(self.label);
        let outcomes = label
            .map(|(column, label)| Outcomes::of_label(column, label))
            .or_else(|| Outcomes::of_events(table.values(Role::Event)?))?;
        let by = [Role::Category, Role::Item].into_iter().find_map(|role| {
            let column = table.column(role)?;
            Some((column.name.as_str(), column.values.as_ref()?))
        });
        Some(Conversion::of(&outcomes, by))
    }

    fn overlap(&self) -> Option<Overlap> {
        let table = self.table;
        Some(Overlap::of(&Cut {
            times: table.times.as_deref()?,
            users: table.values(Role::User),
            items: table.values(Role::Item),
            test_from: self.cut?.0,
        }))
    }
}

/// Sees to it that every role but the time, which is read apart, has a column with values.
fn check_roles(table: &mut Table, notes: &mut Vec<String>) -> Result<(), ExploreError> {
    for role in Role::ALL.into_iter().filter(|&role| role != Role::Time) {
        let Some(Column { name, values: None, .. }) = table.column(role) else { continue };
        let error = ExploreError::Role { column: name.clone(), role: role.name() };
        if !table.roles.is_guess(role) {
            return Err(error);
        }
        notes.push(format!(
            "Column `{name}` is called like the {}, but holds lists, structures or too many values.",
            role.name()
        ));
        table.roles.remove(role);
    }
    Ok(())
}

fn label(table: &mut Table, notes: &mut Vec<String>) -> Result<Option<Label>, ExploreError> {
    let Some(Column { name, values: Some(values), .. }) = table.column(Role::Label) else { return Ok(None) };
    let label = Label::of(values);
    if label.is_none() {
        let (column, distinct) = (name.clone(), values.distinct());
        if !table.roles.is_guess(Role::Label) {
            return Err(ExploreError::Label { column, distinct });
        }
        notes.push(format!(
            "Column `{column}` is called like a label, but has {distinct} distinct values, not two."
        ));
        table.roles.remove(Role::Label);
    }
    Ok(label)
}

fn sorted(table: &Table) -> Vec<i64> {
    let mut times: Vec<i64> = table.times.iter().flatten().flatten().copied().collect();
    times.sort_unstable();
    times
}

/// Where the test period starts. A cut that nobody asked for is left out where it would leave one side empty.
fn cut(times: &[i64], options: &ExploreOptions) -> Result<Option<(i64, Source)>, ExploreError> {
    let (test, source) = options.test.unwrap_or((TestStart::Fraction(TEST_SHARE), Source::Guessed));
    if times.is_empty() {
        return if source == Source::Guessed { Ok(None) } else { Err(ExploreError::NoTime) };
    }
    match (Split::new(times, &SplitConfig { test, validation_seconds: 0, validation_share: 0.0 }), test) {
        (_, TestStart::Elsewhere) => Ok(None),
        (Ok(_), TestStart::At(second)) => Ok(Some((second, source))),
        (Ok(split), TestStart::Fraction(_) | TestStart::Last(_)) => {
            Ok(Some((times[split.test.start], source)))
        }
        (Err(_), _) if source == Source::Guessed => Ok(None),
        (Err(error), _) => Err(error.into()),
    }
}

/// What the report lacks because no column says it.
fn missing(table: &Table, times: &[i64], is_cut: bool) -> Vec<String> {
    let none = |role: Role, lost: &str| {
        let flag = role.name();
        table.roles.column(role).is_none().then(|| {
            format!("No column was taken for the {flag}, so there is nothing on {lost}. Name one with `--{flag} COLUMN`.")
        })
    };
    let mut notes: Vec<String> = [
        none(Role::User, "users"),
        none(Role::Item, "items"),
        none(Role::Time, "time, nor on training and test"),
        none(Role::Category, "categories"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if table.roles.column(Role::Label).is_none() {
        notes.extend(label_candidates(table));
    }
    if !times.is_empty() && Timeline::of(times).is_none() {
        notes.push(format!("The times span more than {} years, so they are not charted.", MOST_MONTHS / 12));
    }
    if !times.is_empty() && !is_cut {
        notes.push("All times are one, so there is no cut between training and test.".into());
    }
    notes
}

fn label_candidates(table: &Table) -> Option<String> {
    let has_two = |column: &&Column| column.values.as_ref().is_some_and(|values| values.distinct() == 2);
    let names: Vec<String> =
        table.columns.iter().filter(has_two).map(|column| format!("`{}`", column.name)).collect();
    let listed = names.get(..LABEL_CANDIDATES).unwrap_or(&names).join(", ");
    let candidates = if names.is_empty() {
        "No column has two values.".into()
    } else {
        format!("Two values have: {listed}.")
    };
    let has_events = table.values(Role::Event).is_some_and(|events| events.distinct() > 1);
    (!has_events || !names.is_empty()).then(|| {
        format!("No column was taken for the label, so nothing is held against it. {candidates} Name one with `--label COLUMN`.")
    })
}

/// Items and categories that are listed.
const TOP: usize = 15;
/// The share of the rows that is the test period, if nothing else is said.
const TEST_SHARE: f64 = 0.2;
/// Columns that are proposed for the label.
const LABEL_CANDIDATES: usize = 8;
