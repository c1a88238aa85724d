//! What is in a log as an HTML page for people.
//!
//! It computes nothing that is not in [`Report`]; each chart has its figures as a table beneath it.

use super::{
    activity::Activity,
    column::{ColumnFigures, ValueRange},
    conversion::Conversion,
    overlap::{Known, KnownEvents, Overlap},
    report::Report,
    roles::{Role, Source},
    table::Kind,
    timeline::{Timeline, Unit},
    values::ValueCount,
    warning::WarningKind,
};
use crate::page::{
    Page, Point, Title,
    chart::{Bar, Shape},
    figure::{counted, cropped, duration, grouped, number, percent},
};

/// The page that shows `report`.
pub fn page(report: &Report) -> String {
    let mut page = Page::open(
        &Title {
            tab: &format!("{}: what is in it", report.file),
            heading: &report.file,
            below: &format!("Explored by Millrace at {} UTC.", report.made_at),
        },
        &SECTIONS,
    );
    overview(&mut page, report);
    warnings(&mut page, report);
    roles(&mut page, report);
    columns(&mut page, report);
    times(&mut page, report);
    items(&mut page, report);
    categories(&mut page, report);
    conversion(&mut page, report);
    users(&mut page, report);
    overlap(&mut page, report);
    page.close()
}

fn overview(page: &mut Page, report: &Report) {
    page.section(OVERVIEW);
    let or_none = |count: Option<usize>| count.map_or_else(|| "–".to_owned(), grouped);
    let mut tiles = vec![
        ("rows", grouped(report.rows)),
        ("columns", grouped(report.columns.len())),
        ("users", or_none(report.users)),
        ("items", or_none(report.items)),
        ("user-item pairs", or_none(report.pairs)),
    ];
    if let (Some(users), Some(items), Some(pairs)) = (report.users, report.items, report.pairs) {
        let all = (users as f64 * items as f64).max(1.0);
        tiles.push(("density of pairs", percent(pairs as f64 / all)));
    }
    tiles.push(("identical rows", grouped(report.duplicates)));
    tiles.push(("warnings", grouped(report.warnings.len())));
    page.tiles(&tiles);
    if let Some(timeline) = &report.timeline {
        page.text(&format!("Events from {} to {}.", timeline.first, timeline.last));
    }
    if report.left_out > 0 {
        let rows = counted(report.left_out, "row");
        page.text(&format!("The pipeline's conditions leave out {rows}; no figure below knows them."));
    }
}

fn warnings(page: &mut Page, report: &Report) {
    page.section(WARNINGS);
    if report.warnings.is_empty() {
        page.text("Nothing was found that is likely to mislead.");
        return;
    }
    let points = report.warnings.iter().map(|warning| Point {
        is_grave: warning.kind <= WarningKind::NoOwner,
        title: title(warning.kind),
        text: &warning.text,
    });
    page.points(&points.collect::<Vec<_>>());
}

fn roles(page: &mut Page, report: &Report) {
    page.section(ROLES);
    let guessed: Vec<Role> =
        report.roles.iter().filter(|found| found.source == Source::Guessed).map(|found| found.role).collect();
    if !guessed.is_empty() {
        let flags: Vec<String> = guessed.iter().map(|role| format!("`--{} COLUMN`", role.name())).collect();
        page.text(&format!(
            "Guessed from the names of columns, and maybe wrong: {}. What is given on the command line overrides a \
             guess: {}.",
            counted(guessed.len(), "role"),
            flags.join(", ")
        ));
    }
    let rows = Role::ALL.map(|role| {
        let found = report.roles.iter().find(|found| found.role == role);
        let column = found.map_or_else(|| "–".into(), |found| cropped(&found.column, CELL));
        let source = found.map_or("none found", |found| source(found.source));
        vec![format!("{} ({})", role.name(), meaning(role)), column, source.into()]
    });
    page.table(&["Role", "Column", "From"], &rows);
    for note in &report.notes {
        page.text(note);
    }
}

fn columns(page: &mut Page, report: &Report) {
    page.section(COLUMNS);
    let bound = grouped(report.distinct_bound);
    page.text(&format!(
        "Distinct values are exact up to {bound}, and beyond that in the columns of users and items."
    ));
    let rows: Vec<Vec<String>> = report.columns.iter().map(|column| column_row(column, &bound)).collect();
    page.wide_table(&["Column", "Values", "Missing", "Distinct", "Range", "Commonest values"], &rows);
}

fn column_row(column: &ColumnFigures, bound: &str) -> Vec<String> {
    let kind = if column.stored_as == "Utf8" {
        kind(column.kind).to_owned()
    } else {
        format!("{} ({})", kind(column.kind), column.stored_as)
    };
    let missing = match column.missing {
        0 => "0".to_owned(),
        missing => format!("{} ({})", grouped(missing), percent(column.missing_share)),
    };
    let distinct = match (column.distinct, column.kind) {
        (Some(distinct), _) => grouped(distinct),
        (None, Kind::Opaque) => "–".into(),
        (None, _) => format!("over {bound}"),
    };
    let range = match &column.range {
        Some(ValueRange::Numbers { least, greatest }) => {
            format!("{} to {}", number(*least), number(*greatest))
        }
        Some(ValueRange::Times { first, last }) => format!("{first} to {last}"),
        Some(ValueRange::Lengths { shortest, mean, longest }) => {
            format!("{} to {} ids, {mean:.1} on the mean", grouped(*shortest), grouped(*longest))
        }
        None => "–".into(),
    };
    let value = |found: &ValueCount| format!("{} ({})", cropped(&found.value, 28), percent(found.share));
    let commonest: Vec<String> = column.commonest.iter().take(3).map(value).collect();
    let commonest = if commonest.is_empty() { "–".into() } else { commonest.join(" · ") };
    vec![cropped(&column.name, CELL), kind, missing, distinct, range, commonest]
}

fn times(page: &mut Page, report: &Report) {
    page.section(TIME);
    let Some(timeline) = &report.timeline else {
        return absent(page, report, Role::Time);
    };
    let unit = match timeline.unit {
        Unit::Day => "day",
        Unit::Week => "week",
        Unit::Month => "month",
    };
    let bar = |start: &str, events| bar(start, events);
    let buckets: Vec<Bar> = timeline.buckets.iter().map(|bucket| bar(&bucket.start, bucket.events)).collect();
    let caption = format!("Events by {unit}. The first and the last {unit} may be cut short.");
    page.bars(Shape::Columns, &caption, &format!("First day of the {unit}"), "Events", &buckets);
    if timeline.only_dates {
        page.text("All times are midnight, so there is no profile of the hours.");
    } else {
        let hours: Vec<Bar> = (0..24).map(|hour| bar(&format!("{hour:02}"), timeline.hours[hour])).collect();
        page.bars(Shape::Columns, "Events by hour of the day.", "Hour", "Events", &hours);
    }
    let weekdays: Vec<Bar> =
        WEEKDAYS.iter().zip(timeline.weekdays).map(|(day, events)| bar(day, events)).collect();
    page.bars(Shape::Columns, "Events by day of the week.", "Day", "Events", &weekdays);
    gaps(page, timeline);
}

fn gaps(page: &mut Page, timeline: &Timeline) {
    if timeline.gaps.is_empty() {
        return;
    }
    page.heading("Longest stretches without an event");
    let rows: Vec<Vec<String>> = timeline
        .gaps
        .iter()
        .map(|gap| vec![duration(gap.seconds).replace(' ', "\u{a0}"), gap.from.clone(), gap.to.clone()])
        .collect();
    page.table(&["Length", "After", "Until"], &rows);
}

fn items(page: &mut Page, report: &Report) {
    page.section(ITEMS);
    let Some(activity) = &report.item_activity else {
        return absent(page, report, Role::Item);
    };
    let bars: Vec<Bar> = report
        .top_items
        .iter()
        .map(|item| {
            let title = item.title.as_ref().map(|title| format!("{} {title}", item.item));
            counted_bar(title.as_deref().unwrap_or(&item.item), item.rows, item.share)
        })
        .collect();
    page.bars(Shape::Rows, "The items with the most events.", "Item", "Events", &bars);
    page.text(&format!(
        "The busiest 1 % of the items have {} of the events, the busiest 10 % have {}. Half of all events fall on {}.",
        percent(activity.top_1_percent_share),
        percent(activity.top_10_percent_share),
        counted(activity.owners_of_half, "item"),
    ));
    activity_figure(page, activity, "item");
}

fn users(page: &mut Page, report: &Report) {
    page.section(USERS);
    let Some(activity) = &report.user_activity else {
        return absent(page, report, Role::User);
    };
    page.text(&format!(
        "With one event only: {} ({}). The busiest 1 % of the users have {} of the events, the busiest 10 % have {}.",
        counted(activity.with_one_event, "user"),
        percent(activity.with_one_event_share),
        percent(activity.top_1_percent_share),
        percent(activity.top_10_percent_share),
    ));
    activity_figure(page, activity, "user");
}

fn activity_figure(page: &mut Page, activity: &Activity, owner: &str) {
    let bucket = |from: usize, to: usize| {
        if from == to { grouped(from) } else { format!("{}–{}", grouped(from), grouped(to)) }
    };
    let bars: Vec<Bar> =
        activity.histogram.iter().map(|found| bar(&bucket(found.from, found.to), found.owners)).collect();
    let caption = format!(
        "{} by their events: {:.1} on the mean, {} in the middle, {} at most. Each bar spans twice as many events as \
         the one before.",
        counted(activity.owners, owner),
        activity.mean,
        grouped(activity.median),
        grouped(activity.most),
    );
    page.bars(Shape::Columns, &caption, "Events", &format!("Number of {owner}s"), &bars);
}

fn categories(page: &mut Page, report: &Report) {
    page.section(CATEGORIES);
    if report.top_categories.is_empty() {
        return absent(page, report, Role::Category);
    }
    let bars: Vec<Bar> = report
        .top_categories
        .iter()
        .map(|found| counted_bar(&found.value, found.rows, found.share))
        .collect();
    page.bars(Shape::Rows, "The categories with the most events.", "Category", "Events", &bars);
}

fn conversion(page: &mut Page, report: &Report) {
    page.section(CONVERSION);
    if report.event_types.len() > 1 {
        let bars: Vec<Bar> = report
            .event_types
            .iter()
            .map(|found| counted_bar(&found.value, found.rows, found.share))
            .collect();
        page.bars(Shape::Rows, "The types of events.", "Type", "Events", &bars);
    }
    let Some(conversion) = &report.conversion else {
        return page.text(
            "Every row counts as one that happened: there is neither a label nor several types of events. A trainer \
             then draws the rows that did not happen. Name a column with `--label COLUMN` or `--event COLUMN`.",
        );
    };
    page.text(&format!(
        "What is wished for is `{}`, counted against `{}`: {} to {}, a rate of {}.",
        conversion.goal,
        conversion.base,
        grouped(conversion.overall.goals),
        grouped(conversion.overall.base),
        percent(conversion.overall.rate),
    ));
    conversion_groups(page, conversion);
}

fn conversion_groups(page: &mut Page, conversion: &Conversion) {
    let Some(by) = &conversion.by else { return };
    let bars: Vec<Bar> = conversion
        .groups
        .iter()
        .map(|group| Bar {
            label: group.name.clone(),
            value: group.rate.rate,
            text: format!("{} of {}", percent(group.rate.rate), grouped(group.rate.base)),
        })
        .collect();
    let caption = format!(
        "Rate by `{by}`, for the {} with the most rows of the base, of {} in all.",
        grouped(bars.len()),
        grouped(conversion.groups_in_all)
    );
    page.bars(Shape::Rows, &caption, by, "Rate", &bars);
}

fn overlap(page: &mut Page, report: &Report) {
    page.section(OVERLAP);
    let Some(overlap) = &report.overlap else {
        return absent(page, report, Role::Time);
    };
    let how = match report.cut_source {
        Some(Source::Given) => "as the command line says",
        Some(Source::Pipeline) => "as the pipeline says",
        _ => "where the last fifth of the rows starts; `--test-from DATE` cuts elsewhere",
    };
    page.text(&format!(
        "The test period starts at {}, {how}: {} to train on, {} to be judged on.",
        overlap.test_from,
        counted(overlap.train_events, "event"),
        counted(overlap.test_events, "event"),
    ));
    let bars = known_bars(overlap);
    if bars.is_empty() {
        return absent(page, report, Role::User);
    }
    page.bars(
        Shape::Rows,
        "Events of the test period that the training period prepares for.",
        "Known",
        "Events",
        &bars,
    );
    let row = |name: &str, known: &Known| {
        let counts = [known.train, known.test, known.both, known.test_events_without];
        [name.to_owned()].into_iter().chain(counts.map(grouped)).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = [("Users", &overlap.users), ("Items", &overlap.items)]
        .into_iter()
        .filter_map(|(name, known)| Some(row(name, known.as_ref()?)))
        .collect();
    page.table(&["", "In training", "In test", "In both", "Test events that name none"], &rows);
}

fn known_bars(overlap: &Overlap) -> Vec<Bar> {
    let of = |name: &str, known: Option<KnownEvents>| {
        known.map(|known| Bar {
            label: name.into(),
            value: known.share,
            text: format!("{} ({})", percent(known.share), grouped(known.events)),
        })
    };
    let events = |known: &Option<Known>| known.map(|known| known.test_events_known);
    let bars = [
        of("known user", events(&overlap.users)),
        of("known item", events(&overlap.items)),
        of("both known", overlap.test_events_with_both_known),
        of("known pair", overlap.test_events_with_known_pair),
    ];
    bars.into_iter().flatten().collect()
}

/// Says why a section is empty.
fn absent(page: &mut Page, report: &Report, role: Role) {
    let flag = format!("--{} COLUMN", role.name());
    let why = report.notes.iter().find(|note| note.contains(&flag));
    page.text(why.map_or(
        "There is nothing to show here; the notes on what the columns mean say why.",
        String::as_str,
    ));
}

fn bar(label: &str, value: usize) -> Bar {
    Bar { label: label.to_owned(), value: value as f64, text: grouped(value) }
}

fn counted_bar(label: &str, value: usize, share: f64) -> Bar {
    Bar { text: format!("{} ({})", grouped(value), percent(share)), ..bar(label, value) }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Given => "the command line",
        Source::Pipeline => "the pipeline",
        Source::Guessed => "a guess by its name",
    }
}

fn meaning(role: Role) -> &'static str {
    match role {
        Role::User => "who",
        Role::Item => "what",
        Role::Title => "what the item is called",
        Role::Time => "when",
        Role::Event => "what happened",
        Role::Label => "whether it happened",
        Role::Category => "the kind of item",
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "integers",
        Kind::WholeNumber => "whole numbers as floats",
        Kind::Number => "numbers",
        Kind::Time => "times",
        Kind::Boolean => "true or false",
        Kind::Text => "text",
        Kind::List => "lists",
        Kind::Opaque => "not looked into",
        Kind::Empty => "none",
    }
}

fn title(kind: WarningKind) -> &'static str {
    match kind {
        WarningKind::EqualsLabel => "The label twice",
        WarningKind::Leak => "Gives the label away",
        WarningKind::Future => "Times in the future",
        WarningKind::TimeMissing => "Times missing",
        WarningKind::OutOfOrder => "Times out of order",
        WarningKind::Duplicates => "Identical rows",
        WarningKind::NoOwner => "Events of nobody",
        WarningKind::FloatIds => "Ids as floats",
        WarningKind::Implausible => "Implausibly many events",
        WarningKind::OneEventUsers => "Users who came once",
        WarningKind::Negative => "Negative amounts",
        WarningKind::MostlyMissing => "Mostly missing",
        WarningKind::Placeholder => "Missing in other words",
        WarningKind::Constant => "Constant",
    }
}

/// Letters of a cell that holds a name.
const CELL: usize = 40;
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

const OVERVIEW: (&str, &str) = ("overview", "Overview");
const WARNINGS: (&str, &str) = ("warnings", "Warnings");
const ROLES: (&str, &str) = ("roles", "What the columns mean");
const COLUMNS: (&str, &str) = ("columns", "Columns");
const TIME: (&str, &str) = ("time", "Events over time");
const ITEMS: (&str, &str) = ("items", "Items");
const CATEGORIES: (&str, &str) = ("categories", "Categories");
const CONVERSION: (&str, &str) = ("conversion", "Conversion");
const USERS: (&str, &str) = ("users", "Users");
const OVERLAP: (&str, &str) = ("overlap", "Training and test");

/// The sections, in their order, each with its anchor.
pub const SECTIONS: [(&str, &str); 10] =
    [OVERVIEW, WARNINGS, ROLES, COLUMNS, TIME, ITEMS, CATEGORIES, CONVERSION, USERS, OVERLAP];
