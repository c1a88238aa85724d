//! An evaluation as an HTML page for people.
//!
//! It computes nothing that is not in [`Report`]; each chart has its figures as a table beneath it.

use super::{
    bootstrap::{Comparison, Difference, Unit},
    drift::{Stability, UnknownIds},
    reliability::ReliabilityBin,
    report::{Ranking, Report, ScoreFigures, VersionReport},
};
use crate::page::{
    Page, Point, Title,
    chart::{Bar, Shape, chart},
    figure::{counted, grouped, percent},
    plot::{Axis, Estimate, Ink, Marks, Series, plot},
};

/// The page that shows `report`.
pub fn page(report: &Report) -> String {
    let Report { version, against, made_at, .. } = report;
    let heading = against
        .as_ref()
        .map_or_else(|| version.name.clone(), |against| format!("{} beside {}", version.name, against.name));
    let mut page = Page::open(
        &Title {
            tab: &format!("{heading}: how good it is"),
            heading: &heading,
            below: &format!("Evaluated by Millrace at {made_at} UTC."),
        },
        &SECTIONS,
    );
    overview(&mut page, report);
    figures(&mut page, report);
    calibration(&mut page, report);
    scores(&mut page, report);
    roc(&mut page, report);
    ranking(&mut page, report);
    drift(&mut page, report);
    latency(&mut page, report);
    files(&mut page, report);
    lineage(&mut page, report);
    page.close()
}

/// A version with its ink and what it is called in captions and tables.
struct Side<'a> {
    version: &'a VersionReport,
    ink: Ink,
    name: &'static str,
}

/// The version and, where there is one, the one that it is held against.
fn sides(report: &Report) -> impl Iterator<Item = Side<'_>> {
    let version = Side { version: &report.version, ink: Ink::First, name: THIS };
    let against = report.against.as_ref();
    let against = against.map(|version| Side { version, ink: Ink::Second, name: OTHER });
    std::iter::once(version).chain(against)
}

/// Says which ink is whose, where there are two.
fn legend(page: &mut Page, report: &Report) {
    if report.against.is_some() {
        let named = |side: Side<'_>| (side.ink, side.name);
        page.legend(&sides(report).map(named).collect::<Vec<_>>());
    }
}

fn overview(page: &mut Page, report: &Report) {
    page.section(OVERVIEW);
    let figures = &report.version.figures;
    let mut tiles = vec![
        ("held-out rows", grouped(report.rows)),
        ("positive", percent(report.positive_share)),
        ("AUC", four(figures.auc)),
        ("accuracy", four(figures.accuracy)),
        ("log loss", four(figures.log_loss)),
        ("calibration error", four(figures.calibration_error)),
    ];
    if let Some(users) = report.users {
        tiles.insert(2, ("users", grouped(users)));
    }
    if let Some(comparison) = &report.comparison {
        tiles.push(("AUC difference", signed(comparison.auc.value)));
    }
    page.tiles(&tiles);
    for Side { version, name, .. } in sides(report) {
        let kind = version.kind.as_deref().unwrap_or("unknown");
        page.text(&format!("{name}: {}, of the kind `{kind}`.", version.name));
    }
    page.text(
        "Every figure but the ranking is of the held-out rows, which training never saw, scored by the engine that \
         serves.",
    );
    if !report.notes.is_empty() {
        let point = |note| Point { is_grave: true, title: "Note", text: note };
        page.points(&report.notes.iter().map(|note| point(note)).collect::<Vec<_>>());
    }
}

fn figures(page: &mut Page, report: &Report) {
    page.section(FIGURES);
    let differences = report.comparison.as_ref();
    let row = |name: &str, value: fn(&ScoreFigures) -> Option<f64>, difference: Option<Difference>| {
        let mut cells = vec![name.to_owned()];
        cells.extend(sides(report).map(|side| or_none(value(&side.version.figures))));
        if differences.is_some() {
            cells.extend(difference_cells(difference));
        }
        cells
    };
    let of = |difference: fn(&Comparison) -> Difference| differences.map(difference);
    let rows = [
        row("AUC", |figures| Some(figures.auc), of(|found| found.auc)),
        row("Log loss", |figures| Some(figures.log_loss), of(|found| found.log_loss)),
        row("Brier score", |figures| Some(figures.brier), of(|found| found.brier)),
        row("Accuracy", |figures| Some(figures.accuracy), of(|found| found.accuracy)),
        row("Always the majority", |figures| Some(figures.majority), None),
        row("Precision", |figures| figures.precision, None),
        row("Recall", |figures| figures.recall, None),
        row("F1", |figures| figures.f1, None),
        row("Calibration error", |figures| Some(figures.calibration_error), None),
    ];
    let more = ["Difference", "95 % interval", "Clear"];
    let more = if differences.is_some() { &more[..] } else { &[] };
    let head = head(report, "Figure", more);
    page.table(&head, &rows);
    page.text(&format!(
        "Accuracy, precision, recall and F1 call a row positive from a score of {} on. Less is better of log loss, \
         Brier score and calibration error.",
        report.threshold
    ));
    if let Some(comparison) = differences {
        page.text(&how_compared(comparison));
    }
    confusion(page, report);
}

fn difference_cells(difference: Option<Difference>) -> [String; 3] {
    let Some(difference) = difference else { return [NONE, NONE, NONE].map(str::to_owned) };
    let [low, high] = difference.interval.map(signed);
    let clear = if difference.is_clear() { "yes" } else { "no" };
    [signed(difference.value), format!("{low} to {high}"), clear.to_owned()]
}

fn how_compared(comparison: &Comparison) -> String {
    let drawn = match comparison.unit {
        Unit::Rows => format!("the {} were drawn", counted(comparison.units, "row")),
        Unit::Users => format!("the {} with all their rows were drawn", counted(comparison.units, "user")),
    };
    let missing = comparison.resamples.get() as usize - comparison.auc.resamples;
    let missing = if missing == 0 {
        String::new()
    } else {
        format!(" {} of one label had no AUC.", counted(missing, "draw"))
    };
    format!(
        "A difference is this version's figure less the other's, on the same rows. For its interval {drawn} {} times with \
         replacement (seed {}) and both versions judged on each draw; 95 % of the draws' differences lie within. It is \
         clear where the interval leaves out 0.{missing}",
        grouped(comparison.resamples.get() as usize),
        comparison.seed,
    )
}

fn confusion(page: &mut Page, report: &Report) {
    page.heading("Rows by what they are and what they were called");
    let rows = sides(report).flat_map(|side| {
        let found = side.version.confusion;
        let name = |what: &str| {
            if report.against.is_some() {
                format!("{what}, {}", side.name.to_lowercase())
            } else {
                what.into()
            }
        };
        [
            vec![name("Positive"), grouped(found.true_positives), grouped(found.false_negatives)],
            vec![name("Negative"), grouped(found.false_positives), grouped(found.true_negatives)],
        ]
    });
    page.table(&["Is", "Called positive", "Called negative"], &rows.collect::<Vec<_>>());
}

fn calibration(page: &mut Page, report: &Report) {
    page.section(CALIBRATION);
    let width = "Bins of equal width: the share of positives over the mean score, with the 95 % interval of the share by \
                 Wilson, which takes the rows for independent. On the thin line scores mean what they say.";
    reliability(page, report, width, |side| &side.version.reliability.equal_width);
    let count = "The same in bins of equal count, which lie where the rows are.";
    reliability(page, report, count, |side| &side.version.reliability.equal_count);
}

fn reliability(
    page: &mut Page,
    report: &Report,
    caption: &str,
    bins: impl for<'a> Fn(&Side<'a>) -> &'a Vec<ReliabilityBin>,
) {
    let mut series = vec![diagonal()];
    let mut rows = Vec::new();
    for side in sides(report) {
        let points = bins(&side).iter().map(|bin| Estimate {
            x: bin.mean_score,
            y: bin.positive_share,
            interval: bin.interval,
        });
        series.push(Series { ink: side.ink, marks: Marks::Points(points.collect()) });
        rows.extend(bins(&side).iter().map(|bin| {
            let range = format!("{} to {}", four(bin.from), four(bin.to));
            let name = if report.against.is_some() { format!("{}, {range}", side.name) } else { range };
            let [low, high] = bin.interval.map(four);
            vec![
                name,
                grouped(usize::try_from(bin.rows).unwrap_or(usize::MAX)),
                four(bin.mean_score),
                four(bin.positive_share),
                format!("{low} to {high}"),
            ]
        }));
    }
    legend(page, report);
    let axes = unit_axes("mean score", "share of positives");
    let head = ["Scores", "Rows", "Mean score", "Share of positives", "95 % interval"];
    page.figure(|alt| plot(&axes, alt, &series), caption, &head, &rows);
}

fn scores(page: &mut Page, report: &Report) {
    page.section(SCORES);
    for side in sides(report) {
        let histogram = &side.version.histogram;
        let shares = |counts: &[usize]| -> Vec<f64> {
            let all = counts.iter().sum::<usize>().max(1);
            counts.iter().map(|&count| count as f64 / all as f64).collect()
        };
        let [positives, negatives] =
            [&histogram.positives, &histogram.negatives].map(|counts| shares(counts));
        let most = positives.iter().chain(&negatives).copied().fold(0.01, f64::max);
        let columns = |shares: &[f64], from: f64| {
            let start = |bin: usize| (bin as f64 + from) * histogram.width;
            let column =
                |(bin, &share): (usize, &f64)| [start(bin), start(bin) + 0.42 * histogram.width, share];
            Marks::Columns(shares.iter().enumerate().map(column).collect())
        };
        let series = [
            Series { ink: Ink::Grey, marks: columns(&negatives, 0.06) },
            Series { ink: Ink::First, marks: columns(&positives, 0.52) },
        ];
        let rows = (0..positives.len()).map(|bin| {
            let from = bin as f64 * histogram.width;
            vec![
                format!("{:.2} to {:.2}", from, from + histogram.width),
                grouped(histogram.negatives[bin]),
                grouped(histogram.positives[bin]),
            ]
        });
        let whose = if report.against.is_some() { format!("{}: how", side.name) } else { "How".into() };
        let caption = format!("{whose} the scores are spread, as shares of the rows with each label.");
        let axes = [
            Axis { name: "score", range: 0.0..1.0 },
            Axis { name: "share of the label's rows", range: 0.0..most * 1.05 },
        ];
        page.legend(&[(Ink::Grey, "Negatives"), (Ink::First, "Positives")]);
        let head = ["Scores", "Negatives", "Positives"];
        page.figure(|alt| plot(&axes, alt, &series), &caption, &head, &rows.collect::<Vec<_>>());
    }
}

fn roc(page: &mut Page, report: &Report) {
    page.section(ROC);
    let mut series = vec![diagonal()];
    let mut rows = Vec::new();
    // What the page is about is drawn last, on top.
    let drawn: Vec<_> = sides(report).collect();
    for side in drawn.iter().rev() {
        let points =
            side.version.roc.iter().map(|point| [point.false_positive_rate, point.true_positive_rate]);
        series.push(Series { ink: side.ink, marks: Marks::Line(points.collect()) });
    }
    for side in &drawn {
        rows.extend(side.version.roc.iter().map(|point| {
            let threshold = point.threshold.map_or_else(|| "above all".into(), |from| four(f64::from(from)));
            let name =
                if report.against.is_some() { format!("{}, {threshold}", side.name) } else { threshold };
            vec![name, four(point.false_positive_rate), four(point.true_positive_rate)]
        }));
    }
    legend(page, report);
    let areas: Vec<String> = drawn.iter().map(|side| four(side.version.figures.auc)).collect();
    let caption = format!(
        "The share of the positives that a threshold catches over the share of the negatives that it catches with them. The \
         area below is {}.",
        areas.join(" and ")
    );
    let axes = unit_axes("share of the negatives", "share of the positives");
    let head = ["Threshold", "Of the negatives", "Of the positives"];
    page.figure(|alt| plot(&axes, alt, &series), &caption, &head, &rows);
}

fn ranking(page: &mut Page, report: &Report) {
    page.section(RANKING);
    if sides(report).all(|side| side.version.ranking.is_empty()) {
        return page.text(
            "There is nothing to rank: the log has labels, and which items a user would have taken instead is not known.",
        );
    }
    page.text(
        "Every item ranked for every customer of the test period, as it was measured in training. New pairs leave out what \
         a customer had bought before. The baselines order items by how many bought them, ever and in the last 30 days.",
    );
    for side in sides(report).filter(|side| !side.version.ranking.is_empty()) {
        if report.against.is_some() {
            page.heading(side.name);
        }
        let row = |found: &Ranking| {
            let by = match found.by.as_str() {
                "model" => "the model",
                "popularity" => "popularity",
                _ => "popularity of 30 days",
            };
            let figures = [found.recall_at_20, found.ndcg_at_10, found.hit_at_10, found.auc].map(four);
            [format!("{} pairs by {by}", capitalised(&found.pairs))].into_iter().chain(figures).collect()
        };
        let rows: Vec<Vec<String>> = side.version.ranking.iter().map(row).collect();
        page.table(&["", "Recall@20", "NDCG@10", "Hit@10", "AUC"], &rows);
    }
}

fn drift(page: &mut Page, report: &Report) {
    page.section(DRIFT);
    page.text(
        "The population stability index of the held-out rows beside the version's training rows: by custom nothing has \
         happened below 0.1, and much above 0.25. What chance alone makes of it stands with the figures. Scores of training \
         rows are of what the model learnt: where they alone have moved, it has learnt by heart.",
    );
    for side in sides(report) {
        if report.against.is_some() {
            page.heading(side.name);
        }
        let Some(found) = &side.version.drift else {
            page.text("The version has no `reference.json`, so this is not known.");
            continue;
        };
        let score = ("the score", found.score);
        let features = found.features.iter().map(|found| (found.feature.as_str(), found.stability));
        let all: Vec<(&str, Stability)> = std::iter::once(score).chain(features).collect();
        let bars: Vec<Bar> = all.iter().map(|&found| stability_bar(found)).collect();
        let rows = counted(usize::try_from(found.training_rows).unwrap_or(usize::MAX), "training row");
        let caption = format!(
            "The index of the score and of each feature, beside {rows}. A bar of full length is {MUCH_DRIFT} at least."
        );
        let figures = all.iter().map(|&(name, Stability { psi, by_chance })| {
            vec![name.to_owned(), or_none(psi), or_none(by_chance)]
        });
        let figures: Vec<Vec<String>> = figures.collect();
        let head = ["Of", "Index", "By chance"];
        page.figure(|alt| chart(Shape::Rows, MUCH_DRIFT, alt, &bars), &caption, &head, &figures);
    }
    page.heading("Ids that a vocabulary does not know");
    let rows: Vec<Vec<String>> = sides(report)
        .flat_map(|side| side.version.unknown_ids.iter().map(move |found| (side.name, found)))
        .map(|(name, found)| unknown_row(if report.against.is_some() { Some(name) } else { None }, found))
        .collect();
    if rows.is_empty() {
        page.text("No feature has a vocabulary.");
    } else {
        page.table(&["Feature", "Of held-out rows", "Of training rows"], &rows);
    }
}

fn stability_bar((name, Stability { psi, .. }): (&str, Stability)) -> Bar {
    Bar { label: name.to_owned(), value: psi.unwrap_or(0.0), text: or_none(psi) }
}

fn unknown_row(side: Option<&str>, found: &UnknownIds) -> Vec<String> {
    let name = side
        .map_or_else(|| found.feature.clone(), |side| format!("{}, {}", found.feature, side.to_lowercase()));
    let training = found.training_share.map_or_else(|| NONE.into(), percent);
    vec![name, percent(found.held_out_share), training]
}

fn latency(page: &mut Page, report: &Report) {
    page.section(LATENCY);
    let found = &report.version.latency;
    let steal = sides(report).filter_map(|side| side.version.latency.steal_share).reduce(f64::max);
    let steal = steal.map_or_else(
        || "how much of its time others took is not known".to_owned(),
        |share| format!("others took {} of its time meanwhile", percent(share)),
    );
    page.text(&format!(
        "From encoded rows to scores on this machine, on {}, by {}; {steal}. A server adds what decoding, batching and the \
         network cost.",
        counted(found.threads, "thread"),
        found.engine
    ));
    let rows: Vec<Vec<String>> = sides(report)
        .flat_map(|side| side.version.latency.batches.iter().map(move |batch| (side.name, batch)))
        .map(|(name, batch)| {
            let size = counted(batch.rows, "row");
            vec![
                if report.against.is_some() { format!("{size}, {}", name.to_lowercase()) } else { size },
                micros(batch.p50_us),
                micros(batch.p99_us),
                whole(batch.rows_per_second),
                grouped(batch.runs),
            ]
        })
        .collect();
    page.table(&["Batch", "p50", "p99", "Rows a second", "Runs"], &rows);
}

fn files(page: &mut Page, report: &Report) {
    page.section(FILES);
    let mut names: Vec<&str> =
        sides(report).flat_map(|side| &side.version.files).map(|file| file.file.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let size = |side: Side<'_>, name: &str| {
        let found = side.version.files.iter().find(|file| file.file == name);
        found.map_or_else(|| NONE.into(), |file| bytes(file.bytes))
    };
    let row = |name: &str| {
        std::iter::once(name.to_owned()).chain(sides(report).map(|side| size(side, name))).collect()
    };
    let mut rows: Vec<Vec<String>> = names.iter().map(|name| row(name)).collect();
    let all = |side: Side<'_>| bytes(side.version.files.iter().map(|file| file.bytes).sum());
    rows.push(std::iter::once("All".to_owned()).chain(sides(report).map(all)).collect());
    page.table(&head(report, "File", &[]), &rows);
}

fn lineage(page: &mut Page, report: &Report) {
    page.section(LINEAGE);
    let row = |name: &str, value: fn(&VersionReport) -> Option<String>| {
        let values = sides(report).map(|side| value(side.version).unwrap_or_else(|| NONE.into()));
        std::iter::once(name.to_owned()).chain(values).collect::<Vec<_>>()
    };
    let rows = [
        row("Version", |version| Some(version.name.clone())),
        row("Kind", |version| version.kind.clone()),
        row("Trained on", |version| Some(version.lineage.as_ref()?.source.clone())),
        row("SHA-256 of it", |version| Some(version.lineage.as_ref()?.source_sha256.clone())),
        row("Rows", |version| Some(grouped(usize::try_from(version.lineage.as_ref()?.rows).ok()?))),
        row("From", |version| Some(version.lineage.as_ref()?.from.clone()).filter(|from| !from.is_empty())),
        row("To", |version| Some(version.lineage.as_ref()?.to.clone()).filter(|to| !to.is_empty())),
        row("Seed", |version| Some(version.lineage.as_ref()?.seed.to_string())),
        row("Trainer's revision", |version| Some(version.lineage.as_ref()?.revision.clone())),
    ];
    page.table(&head(report, "", &[]), &rows);
}

/// A table's head: what its rows are, the versions, and more.
fn head<'a>(report: &Report, first: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let names: Vec<&str> = sides(report).map(|side| side.name).collect();
    let names = if names.len() == 1 { vec!["Value"] } else { names };
    std::iter::once(first).chain(names).chain(more.iter().copied()).collect()
}

fn diagonal() -> Series {
    Series { ink: Ink::Grey, marks: Marks::Line(vec![[0.0, 0.0], [1.0, 1.0]]) }
}

fn unit_axes(x: &'static str, y: &'static str) -> [Axis; 2] {
    [x, y].map(|name| Axis { name, range: 0.0..1.0 })
}

fn four(figure: f64) -> String {
    format!("{figure:.4}")
}

/// A difference: five digits, for it may be small, and always with its sign.
fn signed(difference: f64) -> String {
    format!("{difference:+.5}").replace('-', "\u{2212}")
}

fn or_none(figure: Option<f64>) -> String {
    figure.map_or_else(|| NONE.into(), four)
}

fn micros(micros: f64) -> String {
    if micros >= 10_000.0 {
        format!("{:.1}\u{a0}ms", micros / 1000.0)
    } else {
        format!("{micros:.0}\u{a0}µs")
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate above nothing, for people"
)]
fn whole(rate: f64) -> String {
    grouped(rate.max(0.0).round() as usize)
}

fn bytes(bytes: u64) -> String {
    match bytes as f64 {
        size if size >= 1e9 => format!("{:.2}\u{a0}GB", size / 1e9),
        size if size >= 1e6 => format!("{:.2}\u{a0}MB", size / 1e6),
        size if size >= 1e3 => format!("{:.1}\u{a0}kB", size / 1e3),
        _ => counted(usize::try_from(bytes).unwrap_or(usize::MAX), "byte"),
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The index above which by custom much has happened.
const MUCH_DRIFT: f64 = 0.25;
const THIS: &str = "This version";
const OTHER: &str = "The other";
const NONE: &str = "–";

const OVERVIEW: (&str, &str) = ("overview", "Overview");
const FIGURES: (&str, &str) = ("figures", "Figures");
const CALIBRATION: (&str, &str) = ("calibration", "Calibration");
const SCORES: (&str, &str) = ("scores", "Scores by label");
const ROC: (&str, &str) = ("roc", "ROC curve");
const RANKING: (&str, &str) = ("ranking", "Ranking");
const DRIFT: (&str, &str) = ("drift", "Drift since training");
const LATENCY: (&str, &str) = ("latency", "Latency");
const FILES: (&str, &str) = ("files", "Files");
const LINEAGE: (&str, &str) = ("lineage", "Lineage");

/// The sections, in their order, each with its anchor.
pub const SECTIONS: [(&str, &str); 10] =
    [OVERVIEW, FIGURES, CALIBRATION, SCORES, ROC, RANKING, DRIFT, LATENCY, FILES, LINEAGE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_people_read_them() {
        assert_eq!([0.012_344, -0.5, 0.0].map(signed), ["+0.01234", "\u{2212}0.50000", "+0.00000"]);
        assert_eq!(
            [1, 999, 1_500, 2_400_000].map(bytes),
            ["1 byte", "999 bytes", "1.5\u{a0}kB", "2.40\u{a0}MB"]
        );
        assert_eq!([31.4, 12_345.0].map(micros), ["31\u{a0}µs", "12.3\u{a0}ms"]);
        assert_eq!((whole(1_234_567.8), capitalised("new")), ("1,234,568".into(), "New".into()));
    }
}
