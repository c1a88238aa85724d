//! Every figure of a report, in one struct: its JSON is for programs, [`super::page`] is for people.

use serde::Serialize;

use super::{
    activity::Activity,
    column::ColumnFigures,
    conversion::Conversion,
    label::LabelFigures,
    overlap::Overlap,
    roles::{RoleColumn, Source},
    timeline::Timeline,
    values::{ValueCount, Values, ranked},
    warning::Warning,
};
use crate::explore::share::share;

/// What a file holds. What the file does not have is null or an empty list, and a note says why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The file's name.
    pub file: String,
    /// When the report was made.
    pub made_at: String,
    /// Rows, without those that are left out.
    pub rows: usize,
    /// Rows that the pipeline's conditions exclude; no figure knows them.
    pub left_out: usize,
    /// Rows that equal an earlier one.
    pub duplicates: usize,
    /// Distinct users.
    pub users: Option<usize>,
    /// Distinct items.
    pub items: Option<usize>,
    /// Distinct pairs of a user and an item.
    pub pairs: Option<usize>,
    /// What which column means, and who says so.
    pub roles: Vec<RoleColumn>,
    /// What could not be told, and what would help, as sentences.
    pub notes: Vec<String>,
    /// What is likely to mislead, the gravest first.
    pub warnings: Vec<Warning>,
    /// The most distinct values that are counted in a column that is neither the user nor the item.
    pub distinct_bound: usize,
    /// Every column.
    pub columns: Vec<ColumnFigures>,
    /// Events over time.
    pub timeline: Option<Timeline>,
    /// The items with the most events.
    pub top_items: Vec<ItemCount>,
    /// The categories with the most events.
    pub top_categories: Vec<ValueCount>,
    /// The types of events.
    pub event_types: Vec<ValueCount>,
    /// The label.
    pub label: Option<LabelFigures>,
    /// How often events lead to what is wished for.
    pub conversion: Option<Conversion>,
    /// How events are spread over users.
    pub user_activity: Option<Activity>,
    /// How events are spread over items.
    pub item_activity: Option<Activity>,
    /// Who chose where the log is cut; `guessed` is the last fifth of the rows.
    pub cut_source: Option<Source>,
    /// What training and test have in common.
    pub overlap: Option<Overlap>,
}

/// An item and its events.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ItemCount {
    /// The item's id.
    pub item: String,
    /// What people call it, where a column says so: in its first row that has any.
    pub title: Option<String>,
    /// Events.
    pub rows: usize,
    /// Events over all that have an item.
    pub share: f64,
}

impl ItemCount {
    /// The `most` items with the most events.
    pub fn top(items: &Values, titles: Option<&Values>, most: usize) -> Vec<Self> {
        let counts = items.counts();
        let all = counts.iter().sum();
        let title = |item: usize| {
            let titles = titles?;
            let is_item = |row: &usize| items.code(*row).is_some_and(|code| code as usize == item);
            let mut named = (0..items.codes().len()).filter(is_item).filter_map(|row| titles.code(row));
            named.next().map(|code| titles.texts()[code as usize].clone())
        };
        let count = |item: usize| Self {
            item: items.texts()[item].clone(),
            title: title(item),
            rows: counts[item],
            share: share(counts[item], all),
        };
        ranked(&counts, most).into_iter().map(count).collect()
    }
}

impl Report {
    /// The few figures that a run's last line gives, as JSON.
    pub fn line(&self, seconds: f64) -> String {
        serde_json::json!({
            "rows": self.rows,
            "columns": self.columns.len(),
            "users": self.users,
            "items": self.items,
            "warnings": self.warnings.len(),
            "seconds": (seconds * 10.0).round() / 10.0,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_called_what_its_first_named_row_calls_it() {
        let items = Values::of(["x", "y", "y", "y"].map(Some));
        let titles = Values::of([Some("Mug"), None, Some("Lamp"), Some("Old lamp")]);
        let top = ItemCount::top(&items, Some(&titles), 2);
        let found: Vec<_> =
            top.iter().map(|item| (item.item.as_str(), item.title.as_deref(), item.rows)).collect();
        assert_eq!(found, [("y", Some("Lamp"), 3), ("x", Some("Mug"), 1)]);
        assert_eq!(ItemCount::top(&items, None, 1)[0].title, None);
    }
}
