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
pub(super) struct Bar {
    /// What it is called.
    pub(super) label: String,
    /// What it is worth, not below 0.
    pub(super) value: f64,
    /// Its value, as text.
    pub(super) text: String,
}

/// How bars stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One below the other, for names.
    Rows,
    /// Side by side, for what has an order.
    Columns,
}

/// The chart of `bars`, which `alt` says in words.
pub(super) fn chart(shape: Shape, alt: &str, bars: &[Bar]) -> String {
    let draw = |class: &str, width: u32| {
        let height = match shape {
            Shape::Rows => ROW * count(bars) + 2 * MARGIN,
            Shape::Columns => 260,
        };
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
            let drawn = match shape {
                Shape::Rows => rows(&area, bars),
                Shape::Columns => columns(&area, bars),
            };
            drawn.and_then(|()| area.present()).expect("drawing into memory does not fail");
        }
        framed(&svg, class, (width, height), alt)
    };
    draw("wide", 880) + &draw("narrow", 360)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// The drawing in a frame of our own: one that scales, and that says in words what it shows.
fn framed(svg: &str, class: &str, (width, height): (u32, u32), alt: &str) -> String {
    let start = svg.find('>').map_or(0, |end| end + 1);
    let mut framed = String::new();
    write!(
        framed,
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">{}",
        super::page::escaped(alt),
        &svg[start..]
    )
    .expect("writing into memory does not fail");
    framed
}

fn rows(area: &Area<'_>, bars: &[Bar]) -> Drawn {
    let (width, _) = area.dim_in_pixel();
    let (names, values) = if width < 500 { (132, 84) } else { (330, 130) };
    let room = f64::from(width - names - values);
    let most = greatest(bars);
    let left = pixels(f64::from(names));
    for (at, bar) in bars.iter().enumerate() {
        let top = pixels(f64::from(MARGIN) + at as f64 * f64::from(ROW));
        let middle = top + pixels(f64::from(ROW)) / 2;
        let right = left + pixels(room * bar.value / most).max(1);
        let label = cropped(&bar.label, letters(f64::from(names) - 10.0));
        area.draw(&Text::new(label, (left - 8, middle), text(HPos::Right, VPos::Center)))?;
        area.draw(&Rectangle::new(
            [(left, top + 3), (right, top + pixels(f64::from(ROW)) - 3)],
            BAR.filled(),
        ))?;
        area.draw(&Text::new(bar.text.clone(), (right + 6, middle), text(HPos::Left, VPos::Center)))?;
    }
    area.draw(&PathElement::new(
        [(left, pixels(f64::from(MARGIN))), (left, pixels(f64::from(ROW * count(bars) + MARGIN)))],
        AXIS,
    ))
}

fn columns(area: &Area<'_>, bars: &[Bar]) -> Drawn {
    let right = bars.len() as f64 - 0.5;
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .set_label_area_size(LabelAreaPosition::Left, 46)
        .set_label_area_size(LabelAreaPosition::Bottom, 26)
        .build_cartesian_2d(-0.5..right, 0.0..greatest(bars) * 1.05)?;
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
        Rectangle::new([(at - 0.4, 0.0), (at + 0.4, bar.value)], BAR.filled())
    }))?;
    let place = |at: usize| chart.backend_coord(&(at as f64, 0.0));
    let room =
        f64::from(place(bars.len().saturating_sub(1)).0 - place(0).0) / (bars.len() as f64 - 1.0).max(1.0);
    for at in (0..bars.len()).step_by(stride(bars, room)) {
        let (x, y) = place(at);
        area.draw(&Text::new(bars[at].label.clone(), (x, y + 8), text(HPos::Center, VPos::Top)))?;
    }
    Ok(())
}

/// Every which label has room, where a bar has `room` pixels.
fn stride(bars: &[Bar], room: f64) -> usize {
    let longest = bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0);
    let needed = longest as f64 * LETTER + 12.0;
    (1..bars.len().max(1)).find(|&stride| stride as f64 * room >= needed).unwrap_or(bars.len().max(1))
}

fn text(horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
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

/// The letters that have room in `width` pixels.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width on a page")]
fn letters(width: f64) -> usize {
    (width / LETTER) as usize
}

#[expect(clippy::cast_possible_truncation, reason = "a place on a page")]
fn pixels(length: f64) -> i32 {
    length.round() as i32
}

const INK: RGBColor = RGBColor(31, 41, 51);
const BAR: RGBColor = RGBColor(46, 111, 158);
const GRID: RGBColor = RGBColor(226, 232, 240);
const AXIS: RGBColor = RGBColor(148, 163, 184);
/// The height of letters, and the width of most of them.
const LETTERS: f64 = 13.0;
const LETTER: f64 = 7.2;
/// The height of a bar that lies.
const ROW: u32 = 24;
const MARGIN: u32 = 6;

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
        let svg = chart(Shape::Rows, "Items \"by\" events", &bars(&["<script>alert(1)</script>", "b"]));
        assert_eq!(svg.matches("aria-label=\"Items &quot;by&quot; events\"").count(), 2, "{svg}");
        assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script"), "{svg}");
        assert!(!svg.contains("http"), "{svg}");
        assert_eq!((svg.matches("<svg").count(), svg.matches("</svg>").count()), (2, 2));
    }

    #[test]
    fn a_bar_each_and_nothing_below_none() {
        let rectangles = |shape, labels: &[&str]| chart(shape, "", &bars(labels)).matches("<rect").count();
        assert_eq!(rectangles(Shape::Rows, &["a", "b", "c"]), 2 * 3);
        assert_eq!(rectangles(Shape::Columns, &["a", "b", "c"]), 2 * 3);
        assert_eq!(rectangles(Shape::Columns, &[]), 0);
    }

    #[test]
    fn labels_are_left_out_where_they_would_touch() {
        let days = bars(&["2010-01-01"; 30]);
        assert_eq!(stride(&days, 84.0), 1);
        assert_eq!(stride(&days, 28.0), 3);
        assert_eq!((stride(&days, 0.1), stride(&[], 0.0)), (30, 1));
    }
}
