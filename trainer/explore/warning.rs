//! What is likely to mislead whoever trains on the file. A warning says what was found, in figures, and why it
//! matters; it never changes anything.

use serde::Serialize;

use super::{
    activity::Activity,
    label::Label,
    leak::{is_the_label, single_feature_auc},
    roles::{Role, bare},
    share::{rounded, share},
    table::{Column, Kind, Table},
    values::{Values, ranked},
};
use crate::page::figure::{counted, grouped, percent};

/// A finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    /// What kind of finding.
    pub kind: WarningKind,
    /// The column, where it is about one.
    pub column: Option<String>,
    /// The rows, users or items that it is about.
    pub count: Option<usize>,
    /// The same over all of them or, for [`WarningKind::Leak`], the AUC of the column alone.
    pub figure: Option<f64>,
    /// The finding and its consequence, in sentences.
    pub text: String,
}

/// Kinds of findings, the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// A column that is the label under another name.
    EqualsLabel,
    /// A column that gives the label away.
    Leak,
    /// Times after now.
    Future,
    /// Times that are missing.
    TimeMissing,
    /// Rows before the row above them.
    OutOfOrder,
    /// Identical rows.
    Duplicates,
    /// Events without a user or an item.
    NoOwner,
    /// Ids that are stored as floats.
    FloatIds,
    /// A user or an item with too many events.
    Implausible,
    /// Users who came once.
    OneEventUsers,
    /// Negative quantities.
    Negative,
    /// A column that is mostly missing.
    MostlyMissing,
    /// A value that stands for a missing one.
    Placeholder,
    /// A column with one value.
    Constant,
}

/// Everything that is wrong with `table`, the gravest first. `now` is in seconds since 1970.
pub fn warnings(table: &Table, label: Option<&Label>, now: i64) -> Vec<Warning> {
    let mut found: Vec<Warning> = table.columns.iter().flat_map(|column| of_column(column, table)).collect();
    if let Some(label) = label {
        found.extend(table.columns.iter().filter_map(|column| leak(column, table, label)));
    }
    found.extend(table.times.iter().flat_map(|times| of_times(times, table, now)));
    found.extend(duplicates(table));
    found.extend(table.values(Role::User).and_then(one_event_users));
    for role in [Role::User, Role::Item] {
        found.extend(table.values(role).into_iter().flat_map(|values| implausible(role, values)));
    }
    found.sort_by_key(|warning| warning.kind);
    found
}

fn of_column(column: &Column, table: &Table) -> Vec<Warning> {
    let owner =
        [Role::User, Role::Item].into_iter().find(|&role| table.roles.column(role) == Some(&column.name));
    let found = [
        owner.and_then(|role| no_owner(role, column, table.rows)),
        float_ids(column, owner),
        negative(column, table.rows),
        mostly_missing(column, table.rows),
        placeholder(column),
        constant(column),
    ];
    found.into_iter().flatten().collect()
}

fn leak(column: &Column, table: &Table, label: &Label) -> Option<Warning> {
    let values = column.values.as_ref().filter(|_| table.roles.column(Role::Label) != Some(&column.name))?;
    if is_the_label(values, &label.rows) {
        return Some(Warning {
            kind: WarningKind::EqualsLabel,
            column: Some(column.name.clone()),
            count: None,
            figure: None,
            text: format!(
                "Column `{}` is the label under another name: each of its two values goes with one label. A model \
                 that sees it learns nothing else.",
                column.name
            ),
        });
    }
    let auc = rounded(single_feature_auc(values, column.kind, &label.rows)?);
    (auc > LEAK_AUC).then(|| Warning {
        kind: WarningKind::Leak,
        column: Some(column.name.clone()),
        count: None,
        figure: Some(auc),
        text: format!(
            "Column `{}` alone tells the label with an AUC of {auc:.3}. It may have been written after what it \
             should predict; leave it out unless it is known at the time of a request.",
            column.name
        ),
    })
}

fn of_times(times: &[Option<i64>], table: &Table, now: i64) -> Vec<Warning> {
    let missing = times.iter().filter(|time| time.is_none()).count();
    let present: Vec<i64> = times.iter().flatten().copied().collect();
    let future = present.iter().filter(|&&time| time > now).count();
    let behind = present.windows(2).filter(|pair| pair[1] < pair[0]).count();
    let warning = |kind, count: usize, text: String| {
        (count > 0).then(|| Warning {
            kind,
            column: table.roles.column(Role::Time).map(str::to_owned),
            count: Some(count),
            figure: Some(share(count, times.len())),
            text,
        })
    };
    let found = [
        warning(
            WarningKind::Future,
            future,
            format!(
                "After the time of this report: {}. Where an integer is the time it counts seconds since 1970; \
                 milliseconds look like this.",
                counted(future, "event")
            ),
        ),
        warning(
            WarningKind::TimeMissing,
            missing,
            format!("Without a time: {}, which the trainer drops.", counted(missing, "row")),
        ),
        warning(
            WarningKind::OutOfOrder,
            behind,
            format!(
                "Earlier than the row above: {}. The trainer sorts by time, other readers may not.",
                counted(behind, "row")
            ),
        ),
    ];
    found.into_iter().flatten().collect()
}

fn duplicates(table: &Table) -> Option<Warning> {
    let (count, figure) = (table.duplicates, share(table.duplicates, table.rows));
    (count > 0).then(|| Warning {
        kind: WarningKind::Duplicates,
        column: None,
        count: Some(count),
        figure: Some(figure),
        text: format!(
            "Equal to an earlier row in every column: {} ({}). If they are not events of their own they count double.",
            counted(count, "row"),
            percent(figure)
        ),
    })
}

fn no_owner(role: Role, column: &Column, rows: usize) -> Option<Warning> {
    let (count, figure) = (column.missing, share(column.missing, rows));
    (count > 0).then(|| Warning {
        kind: WarningKind::NoOwner,
        column: Some(column.name.clone()),
        count: Some(count),
        figure: Some(figure),
        text: format!(
            "Without a {}: {} ({}), which the trainer drops.",
            role.name(),
            counted(count, "row"),
            percent(figure)
        ),
    })
}

fn float_ids(column: &Column, owner: Option<Role>) -> Option<Warning> {
    let is_id = owner.is_some() || bare(&column.name).ends_with("id");
    let text = match column.kind {
        Kind::WholeNumber if is_id => format!(
            "Column `{}` holds ids as floats, often because some are missing. The trainer reads whole floats of a \
             Parquet file as integers; a request must send the integer, 17850 and not 17850.0.",
            column.name
        ),
        Kind::Number if owner.is_some() => {
            format!("Column `{}` holds fractions, which are no ids: the trainer refuses them.", column.name)
        }
        _ => return None,
    };
    Some(Warning {
        kind: WarningKind::FloatIds,
        column: Some(column.name.clone()),
        count: None,
        figure: None,
        text,
    })
}

fn negative(column: &Column, rows: usize) -> Option<Warning> {
    let name = bare(&column.name);
    let is_amount = AMOUNTS.iter().any(|amount| name.contains(amount));
    (is_amount && column.negative > 0).then(|| Warning {
        kind: WarningKind::Negative,
        column: Some(column.name.clone()),
        count: Some(column.negative),
        figure: Some(share(column.negative, rows)),
        text: format!(
            "Column `{name}` is below 0 in {count} ({}), which may be returns or corrections. A purchase they \
             are not: `keep = [{{ column = \"{name}\", above = 0 }}]` in the pipeline leaves them out.",
            percent(share(column.negative, rows)),
            name = column.name,
            count = counted(column.negative, "row"),
        ),
    })
}

fn mostly_missing(column: &Column, rows: usize) -> Option<Warning> {
    let figure = share(column.missing, rows);
    (figure > MISSING_SHARE).then(|| Warning {
        kind: WarningKind::MostlyMissing,
        column: Some(column.name.clone()),
        count: Some(column.missing),
        figure: Some(figure),
        text: format!(
            "Column `{}` has no value in {} of the rows. The trainer drops a row that lacks a feature.",
            column.name,
            percent(figure)
        ),
    })
}

fn placeholder(column: &Column) -> Option<Warning> {
    let values = column.values.as_ref()?;
    let stands_for_nothing = |text: &&String| PLACEHOLDERS.contains(&text.to_ascii_lowercase().as_str());
    let spelling = values.texts().iter().find(stands_for_nothing)?;
    let counts = values.counts();
    let code = values.texts().iter().position(|text| text == spelling)?;
    let figure = share(counts[code], values.codes().len());
    Some(Warning {
        kind: WarningKind::Placeholder,
        column: Some(column.name.clone()),
        count: Some(counts[code]),
        figure: Some(figure),
        text: format!(
            "Column `{}` says `{spelling}` in {} ({}), which looks like a missing value but is read as a value.",
            column.name,
            counted(counts[code], "row"),
            percent(figure)
        ),
    })
}

fn constant(column: &Column) -> Option<Warning> {
    let values = column.values.as_ref().filter(|values| values.distinct() == 1 && column.missing == 0)?;
    Some(Warning {
        kind: WarningKind::Constant,
        column: Some(column.name.clone()),
        count: None,
        figure: None,
        text: format!("Column `{}` says `{}` in every row, and so nothing.", column.name, values.texts()[0]),
    })
}

fn one_event_users(users: &Values) -> Option<Warning> {
    let activity = Activity::of(&users.counts())?;
    (activity.with_one_event_share > ONE_EVENT_SHARE).then(|| Warning {
        kind: WarningKind::OneEventUsers,
        column: None,
        count: Some(activity.with_one_event),
        figure: Some(activity.with_one_event_share),
        text: format!(
            "With one event only: {} ({}). What they like cannot be learnt from their history; the model answers \
             them from everything else.",
            counted(activity.with_one_event, "user"),
            percent(activity.with_one_event_share)
        ),
    })
}

fn implausible(role: Role, values: &Values) -> Vec<Warning> {
    let counts = values.counts();
    let all: usize = counts.iter().sum();
    let mean = all as f64 / counts.len().max(1) as f64;
    let is_implausible = |&code: &usize| {
        share(counts[code], all) > IMPLAUSIBLE_SHARE && counts[code] as f64 > IMPLAUSIBLE_TIMES * mean
    };
    let found = ranked(&counts, MOST_IMPLAUSIBLE).into_iter().filter(is_implausible);
    let warning = |code: usize| Warning {
        kind: WarningKind::Implausible,
        column: None,
        count: Some(counts[code]),
        figure: Some(share(counts[code], all)),
        text: format!(
            "{} `{}` has {} of the {} events ({}), {:.0} times the mean: a robot, a test, a wholesaler?",
            role.name(),
            values.texts()[code],
            grouped(counts[code]),
            grouped(all),
            percent(share(counts[code], all)),
            counts[code] as f64 / mean
        ),
    };
    found.map(warning).map(capitalised).collect()
}

fn capitalised(mut warning: Warning) -> Warning {
    let mut letters = warning.text.chars();
    if let Some(first) = letters.next() {
        warning.text = first.to_uppercase().chain(letters).collect();
    }
    warning
}

/// The AUC of a single column above which it gives the label away.
pub const LEAK_AUC: f64 = 0.95;
/// The share of rows above which a column is mostly missing.
const MISSING_SHARE: f64 = 0.5;
/// The share of users above which it matters that they came once.
const ONE_EVENT_SHARE: f64 = 0.3;
/// The share of the events that is too much for one user or item, if it is also so many times the mean.
const IMPLAUSIBLE_SHARE: f64 = 0.01;
const IMPLAUSIBLE_TIMES: f64 = 50.0;
/// Users, and items, that are looked at for it.
const MOST_IMPLAUSIBLE: usize = 3;
/// Parts of the names of columns that count something.
const AMOUNTS: [&str; 7] = ["quantity", "qty", "amount", "count", "units", "price", "revenue"];
/// Texts that stand for no value.
const PLACEHOLDERS: [&str; 11] =
    ["?", "-", "--", "n/a", "na", "nan", "null", "none", "unknown", "undefined", "\\n"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::roles::{Roles, Source};

    fn column(name: &str, kind: Kind, texts: &[Option<&str>]) -> Column {
        let negative = texts.iter().flatten().filter(|text| text.starts_with('-')).count();
        Column {
            name: name.into(),
            stored_as: "Utf8".into(),
            kind,
            missing: texts.iter().filter(|text| text.is_none()).count(),
            values: Some(Values::of(texts.iter().copied())),
            lists: None,
            range: None,
            negative,
        }
    }

    fn table(columns: Vec<Column>, roles: &[(Role, &str)]) -> Table {
        let mut found = Roles::new();
        for (role, column) in roles {
            found.set(*role, column, Source::Given);
        }
        let rows = columns[0].values.as_ref().map_or(0, |values| values.codes().len());
        Table { roles: found, columns, rows, left_out: 0, duplicates: 0, times: None, refuted: vec![] }
    }

    fn kinds(table: &Table, label: Option<&Label>) -> Vec<(WarningKind, Option<usize>)> {
        warnings(table, label, 100).into_iter().map(|warning| (warning.kind, warning.count)).collect()
    }

    #[test]
    fn a_sound_table_has_no_warnings() {
        let sound = column("a", Kind::Text, &[Some("x"), Some("y"), Some("x")]);
        let mut table = table(vec![sound], &[(Role::User, "a")]);
        table.columns[0].values = Some(Values::of(["x", "y", "x", "y"].map(Some)));
        table.times = Some(vec![Some(1), Some(1), Some(100)]);
        assert_eq!(kinds(&table, None), []);
    }

    #[test]
    fn what_is_wrong_with_a_column_is_found_from_its_values() {
        let columns = vec![
            column("Customer ID", Kind::WholeNumber, &[Some("1"), Some("1"), None, Some("2")]),
            column("Quantity", Kind::Integer, &[Some("1"), Some("-2"), Some("3"), Some("3")]),
            column("note", Kind::Text, &[None, None, None, Some("x")]),
            column("work", Kind::Text, &[Some("?"), Some("a"), Some("?"), Some("b")]),
            column("country", Kind::Text, &[Some("UK"); 4]),
        ];
        let table = table(columns, &[(Role::User, "Customer ID")]);
        let expected = [
            (WarningKind::NoOwner, Some(1)),
            (WarningKind::FloatIds, None),
            (WarningKind::OneEventUsers, Some(1)),
            (WarningKind::Negative, Some(1)),
            (WarningKind::MostlyMissing, Some(3)),
            (WarningKind::Placeholder, Some(2)),
            (WarningKind::Constant, None),
        ];
        assert_eq!(kinds(&table, None), expected);
    }

    #[test]
    fn columns_that_give_the_label_away_are_the_gravest() {
        let texts = ["0", "1", "0", "1", "0", "1", "1", "0"].map(Some);
        let label = column("clicked", Kind::Integer, &texts);
        let outcomes = texts.map(|text| text.map(|text| if text == "1" { "yes" } else { "no" }));
        let paid = ["1", "30", "2", "40", "3", "50", "60", "4"].map(Some);
        let columns =
            vec![label, column("paid", Kind::Integer, &paid), column("outcome", Kind::Text, &outcomes)];
        let table = table(columns, &[(Role::Label, "clicked")]);
        let label = Label::of(table.values(Role::Label).expect("values")).expect("a label");
        let found = warnings(&table, Some(&label), 100);
        let names: Vec<_> = found.iter().map(|warning| (warning.kind, warning.column.as_deref())).collect();
        assert_eq!(names, [(WarningKind::EqualsLabel, Some("outcome")), (WarningKind::Leak, Some("paid"))]);
        assert_eq!(found[1].figure, Some(1.0));
    }

    #[test]
    fn times_are_held_against_now_and_their_order() {
        let mut table =
            table(vec![column("at", Kind::Integer, &[Some("1"), Some("2")])], &[(Role::Time, "at")]);
        table.times = Some(vec![Some(5), Some(3), None, Some(101), Some(4)]);
        table.duplicates = 1;
        let expected = [
            (WarningKind::Future, Some(1)),
            (WarningKind::TimeMissing, Some(1)),
            (WarningKind::OutOfOrder, Some(2)),
            (WarningKind::Duplicates, Some(1)),
        ];
        assert_eq!(kinds(&table, None), expected);
    }

    #[test]
    fn one_user_with_most_events_among_many_is_implausible() {
        let names: Vec<String> = (0..200).map(|user| user.to_string()).collect();
        let users = names.iter().map(|name| Some(name.as_str())).chain([Some("robot"); 200]);
        let found = implausible(Role::User, &Values::of(users));
        assert_eq!((found.len(), found[0].count, found[0].figure), (1, Some(200), Some(0.5)));
        assert!(
            found[0].text.starts_with("User `robot` has 200 of the 400 events (50.0 %), 100 times"),
            "{found:?}"
        );
        let few = Values::of([Some("a"), Some("a"), Some("a"), Some("b")]);
        assert_eq!(implausible(Role::User, &few), []);
    }
}
