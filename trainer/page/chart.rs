//! Charts as SVG to stand in a page. Each is drawn twice, for a desktop and for a phone, and the page's style shows the
//! one that fits: a drawing that is only scaled would have letters that nobody can read.
//!
//! The letters are the browser's: nothing here needs a font.

use std::{fmt::Write, io};

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::figure::{cropped, short};

/// A value and what it is called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    /// What it is called.
    pub(crate) label: String,
    /// What it is worth, not below 0.
    pub(crate) value: f64,
    /// Its value, as text.
    pub(crate) text: String,
}

/// How bars stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One below the other, for names.
    Rows,
    /// Side by side, for what has an order.
    Columns,
}

/// The chart of `bars`, which `alt` says in words. A bar of full length is worth the greatest of them, and `full` at
/// least.
pub(crate) fn chart(shape: Shape, full: f64, alt: &str, bars: &[Bar]) -> String {
    let most = greatest(bars).max(full);
    let height = |width: u32| match shape {
        Shape::Rows => RowLayout::of(width, bars).height * count(bars) + 2 * MARGIN,
        Shape::Columns => 260,
    };
    drawn(height, alt, |area| match shape {
        Shape::Rows => rows(area, bars, most),
        Shape::Columns => columns(area, bars, most),
    })
}

/// What `draw` draws, once for each kind of screen; `height` is that of a drawing of some width, in pixels.
pub(super) fn drawn(height: impl Fn(u32) -> u32, alt: &str, draw: impl Fn(&Area<'_>) -> Drawn) -> String {
    let one = |class: &str, width: u32| {
        let size = (width, height(width));
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            draw(&area).and_then(|()| area.present()).expect("drawing into memory does not fail");
        }
        framed(&svg, class, size, alt)
    };
    one("wide", 880) + &one("narrow", 360)
}

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// The drawing in a frame of our own: one that scales, and that says in words what it shows.
fn framed(svg: &str, class: &str, (width, height): (u32, u32), alt: &str) -> String {
    let start = svg.find('>').map_or(0, |end| end + 1);
    let mut framed = String::new();
    write!(
        framed,
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">{}",
        super::escaped(alt),
        &svg[start..]
    )
    .expect("writing into memory does not fail");
    framed
}

fn rows(area: &Area<'_>, bars: &[Bar], most: f64) -> Drawn {
    let (width, _) = area.dim_in_pixel();
    let layout = RowLayout::of(width, bars);
    let room = f64::from(width) - layout.left - widest(bars.iter().map(|bar| &bar.text)) - 2.0 * GAP;
    let left = pixels(layout.left);
    for (at, bar) in bars.iter().enumerate() {
        let top = pixels(f64::from(MARGIN) + at as f64 * f64::from(layout.height));
        let bottom = top + pixels(f64::from(layout.height)) - if layout.is_stacked { 6 } else { 3 };
        let middle = bottom - THICKNESS / 2;
        let right = left + pixels(room * bar.value / most).max(1);
        if layout.is_stacked {
            let label = fitting(&bar.label, f64::from(width) - 2.0 * GAP);
            area.draw(&Text::new(label, (left, top + 6), text(HPos::Left, VPos::Top)))?;
        } else {
            let label = fitting(&bar.label, layout.left - GAP);
            area.draw(&Text::new(label, (left - pixels(GAP), middle), text(HPos::Right, VPos::Center)))?;
        }
        area.draw(&Rectangle::new([(left, bottom - THICKNESS), (right, bottom)], BAR.filled()))?;
        area.draw(&Text::new(
            bar.text.clone(),
            (right + pixels(GAP), middle),
            text(HPos::Left, VPos::Center),
        ))?;
    }
    Ok(())
}

/// Where lying bars stand.
struct RowLayout {
    /// Where bars begin, in pixels from the left.
    left: f64,
    /// Pixels from one bar to the next.
    height: u32,
    /// Whether names stand above their bars, where there is no room beside them.
    is_stacked: bool,
}

impl RowLayout {
    fn of(width: u32, bars: &[Bar]) -> Self {
        let names = (widest(bars.iter().map(|bar| &bar.label)) + GAP).ceil();
        if width >= WIDE {
            Self { left: names.min(MOST_NAME), height: 24, is_stacked: false }
        } else {
            Self { left: 1.0, height: 46, is_stacked: true }
        }
    }
}

fn columns(area: &Area<'_>, bars: &[Bar], most: f64) -> Drawn {
    let right = bars.len() as f64 - 0.5;
    // Few bars are no walls.
    let half = if bars.len() < 6 { 0.2 } else { 0.4 };
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .set_label_area_size(LabelAreaPosition::Left, 46)
        .set_label_area_size(LabelAreaPosition::Bottom, 26)
        .build_cartesian_2d(-0.5..right, 0.0..most * 1.05)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .x_labels(0)
        .y_labels(5)
        .y_label_style(text(HPos::Right, VPos::Center))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    chart.draw_series(bars.iter().enumerate().map(|(at, bar)| {
        let at = at as f64;
        Rectangle::new([(at - half, 0.0), (at + half, bar.value)], BAR.filled())
    }))?;
    let place = |at: usize| chart.backend_coord(&(at as f64, 0.0));
    for (at, x) in shown(bars, f64::from(area.dim_in_pixel().0), |at| f64::from(place(at).0)) {
        let at_axis = (pixels(x), place(at).1 + 8);
        area.draw(&Text::new(bars[at].label.clone(), at_axis, text(HPos::Center, VPos::Top)))?;
    }
    Ok(())
}

/// The labels beneath the bars that have room, with their centres: every so many, none of which touches the one before
/// it. One that would leave the drawing is moved into it; if that is the last and it then touches, it is left out.
fn shown(bars: &[Bar], width: f64, centre: impl Fn(usize) -> f64) -> Vec<(usize, f64)> {
    let every = |stride: usize| -> Vec<(usize, f64)> {
        let place = |at: usize| {
            let half = text_width(&bars[at].label) / 2.0;
            (at, centre(at).min(width - half - 1.0).max(half + 1.0))
        };
        (0..bars.len()).step_by(stride).map(place).collect()
    };
    let touch = |pair: &[(usize, f64)]| {
        let halves = f64::midpoint(text_width(&bars[pair[0].0].label), text_width(&bars[pair[1].0].label));
        pair[1].1 - pair[0].1 < halves + GAP
    };
    for stride in 1..bars.len() {
        let mut labels = every(stride);
        if labels.len() > 2 && touch(&labels[labels.len() - 2..]) {
            labels.pop();
        }
        if !labels.windows(2).any(touch) {
            return labels;
        }
    }
    every(bars.len().max(1))
}

pub(super) fn text(horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    // The backend divides by 1.24.
    let style = TextStyle::from(("sans-serif", LETTERS * 1.24).into_font());
    style.color(&INK).pos(Pos::new(horizontal, vertical))
}

fn greatest(bars: &[Bar]) -> f64 {
    let greatest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    if greatest > 0.0 { greatest } else { 1.0 }
}

fn count(bars: &[Bar]) -> u32 {
    u32::try_from(bars.len()).expect("a chart of few bars")
}

/// `text`, cropped to `width` pixels.
fn fitting(text: &str, width: f64) -> String {
    let most = text.chars().count();
    let fits = |&letters: &usize| text_width(&cropped(text, letters)) <= width;
    (1..=most).rev().find(fits).map_or_else(String::new, |letters| cropped(text, letters))
}

fn widest<'a>(texts: impl Iterator<Item = &'a String>) -> f64 {
    texts.map(|text| text_width(text)).fold(0.0, f64::max)
}

/// The width of `text` in a wide sans serif, in pixels: letters are the browser's, and most are narrower.
fn text_width(text: &str) -> f64 {
    let em = |letter: char| match letter {
        'i' | 'j' | 'l' | 'f' | 't' | 'r' | ' ' | '.' | ',' | ':' | '|' | '(' | ')' | '\'' => 0.42,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '…' => 1.0,
        letter if letter.is_uppercase() => 0.74,
        letter if letter.is_ascii() => 0.64,
        _ => 1.0,
    };
    text.chars().map(em).sum::<f64>() * LETTERS
}

#[expect(clippy::cast_possible_truncation, reason = "a place on a page")]
fn pixels(length: f64) -> i32 {
    length.round() as i32
}

const INK: RGBColor = RGBColor(31, 41, 51);
pub(super) const BAR: RGBColor = RGBColor(46, 111, 158);
pub(super) const GRID: RGBColor = RGBColor(226, 232, 240);
pub(super) const AXIS: RGBColor = RGBColor(148, 163, 184);
/// The height of letters. This and the others below are in pixels.
const LETTERS: f64 = 13.0;
/// The thickness of a bar that lies.
const THICKNESS: i32 = 17;
/// Between a bar and its name or value.
const GAP: f64 = 7.0;
/// The most room for names beside lying bars.
const MOST_NAME: f64 = 380.0;
/// A drawing that is narrower has no room for names beside bars.
const WIDE: u32 = 500;
pub(super) const MARGIN: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(labels: &[&str]) -> Vec<Bar> {
        let bar = |(at, label): (usize, &&str)| Bar {
            label: (*label).into(),
            value: at as f64,
            text: at.to_string(),
        };
        labels.iter().enumerate().map(bar).collect()
    }

    #[test]
    fn a_chart_says_in_words_what_it_shows_and_runs_nothing() {
        let svg = chart(Shape::Rows, 0.0, "Items \"by\" events", &bars(&["<script>alert(1)</script>", "b"]));
        assert_eq!(svg.matches("aria-label=\"Items &quot;by&quot; events\"").count(), 2, "{svg}");
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script"), "{svg}");
        assert!(!svg.contains("http"), "{svg}");
        assert_eq!((svg.matches("<svg").count(), svg.matches("</svg>").count()), (2, 2));
    }

    #[test]
    fn a_bar_each_and_nothing_below_none() {
        let rectangles =
            |shape, labels: &[&str]| chart(shape, 0.0, "", &bars(labels)).matches("<rect").count();
        assert_eq!(rectangles(Shape::Rows, &["a", "b", "c"]), 2 * 3);
        assert_eq!(rectangles(Shape::Columns, &["a", "b", "c"]), 2 * 3);
        assert_eq!(rectangles(Shape::Columns, &[]), 0);
    }

    #[test]
    fn small_bars_stay_small_beside_what_is_worth_a_full_one() {
        let widths = |full: f64| {
            let svg = chart(Shape::Rows, full, "", &bars(&["a", "b", "c"]));
            let width = |bar: &str| bar.split('"').next().and_then(|width| width.parse::<f64>().ok());
            let found = svg.split("width=\"").skip(1).filter_map(width);
            found.fold(0.0, f64::max)
        };
        assert!(widths(20.0) < 0.15 * widths(0.0), "{} {}", widths(20.0), widths(0.0));
        assert!((widths(1.0) - widths(0.0)).abs() < 0.5);
    }

    #[test]
    fn labels_are_left_out_where_they_would_touch_and_stay_inside() {
        let days = bars(&["2010-01-01"; 30]);
        for (room, width) in [(84.0, 2600.0), (28.0, 900.0), (9.0, 300.0), (0.1, 90.0)] {
            let labels = shown(&days, width, |at| 20.0 + at as f64 * room);
            let half = text_width("2010-01-01") / 2.0;
            assert!(!labels.is_empty());
            for pair in labels.windows(2) {
                assert!(pair[0].1 + half < pair[1].1 - half, "{labels:?}");
            }
            assert!(labels.iter().all(|(_, x)| *x >= half && x + half <= width), "{labels:?}");
        }
        assert_eq!(shown(&[], 100.0, |_| 0.0), []);
    }

    #[test]
    fn a_long_name_is_cropped_to_its_room() {
        assert_eq!(fitting("Mug", 100.0), "Mug");
        let cropped = fitting(&"WHITE HANGING HEART ".repeat(20), 200.0);
        assert!(cropped.ends_with('…') && text_width(&cropped) <= 200.0, "{cropped}");
        assert_eq!(fitting("", 100.0), "");
    }
}
