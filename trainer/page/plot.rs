//! Plots of one figure over another as SVG: lines, columns, and points with intervals. Like the other charts each is
//! drawn for a desktop and for a phone.

use std::ops::Range;

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, VPos},
};

use super::chart::{AXIS, Area, BAR, Drawn, GRID, MARGIN, drawn, text};

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    /// What it shows.
    pub(crate) name: &'static str,
    /// From where to where.
    pub(crate) range: Range<f64>,
}

/// What is shown of one thing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    /// The ink.
    pub(crate) ink: Ink,
    /// The marks.
    pub(crate) marks: Marks,
}

/// Inks that differ in lightness as well as in colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// What the page is about.
    First,
    /// What it is held against.
    Second,
    /// What is only there to be compared with.
    Grey,
}

/// How a series is drawn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Marks {
    /// A line through these points.
    Line(Vec<[f64; 2]>),
    /// A column from the first to the second place, as high as the third says.
    Columns(Vec<[f64; 3]>),
    /// A point, and the interval that it lies in.
    Points(Vec<Estimate>),
}

/// A point with an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// Where.
    pub(crate) x: f64,
    /// How high.
    pub(crate) y: f64,
    /// The interval of the height.
    pub(crate) interval: [f64; 2],
}

/// The plot of `series` over the two axes, which `alt` says in words.
pub(crate) fn plot([x, y]: &[Axis; 2], alt: &str, series: &[Series]) -> String {
    drawn(|_| HEIGHT, alt, |area| plotted(area, x, y, series))
}

fn plotted(area: &Area<'_>, x: &Axis, y: &Axis, series: &[Series]) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .margin_right(MARGIN + 12)
        .set_label_area_size(LabelAreaPosition::Left, 62)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        .build_cartesian_2d(x.range.clone(), y.range.clone())?;
    let digits = |number: &f64| {
        let text = format!("{number:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .x_labels(6)
        .y_labels(6)
        .x_label_style(text(HPos::Center, VPos::Top))
        .y_label_style(text(HPos::Right, VPos::Center))
        .axis_desc_style(text(HPos::Center, VPos::Center))
        .x_label_formatter(&digits)
        .y_label_formatter(&digits)
        .x_desc(x.name)
        .y_desc(y.name)
        .draw()?;
    for Series { ink, marks } in series {
        let colour = ink.colour();
        match marks {
            Marks::Line(points) => {
                let line: Vec<(f64, f64)> = points.iter().map(|&[x, y]| (x, y)).collect();
                chart.draw_series([PathElement::new(line, colour.stroke_width(ink.thickness()))])?;
            }
            Marks::Columns(columns) => {
                let column = |&[from, to, height]: &[f64; 3]| {
                    Rectangle::new([(from, 0.0), (to, height)], colour.filled())
                };
                chart.draw_series(columns.iter().map(column))?;
            }
            Marks::Points(points) => {
                let whisker = |point: &Estimate| {
                    let ends = point.interval.map(|y| (point.x, y));
                    PathElement::new(ends.to_vec(), colour.stroke_width(2))
                };
                chart.draw_series(points.iter().map(whisker))?;
                let dot = |point: &Estimate| Circle::new((point.x, point.y), 4, colour.filled());
                chart.draw_series(points.iter().map(dot))?;
            }
        }
    }
    Ok(())
}

impl Ink {
    fn colour(self) -> RGBColor {
        match self {
            Self::First => BAR,
            Self::Second => RGBColor(217, 130, 43),
            Self::Grey => AXIS,
        }
    }

    fn thickness(self) -> u32 {
        if self == Self::Grey { 1 } else { 2 }
    }

    /// Its class in the style of a page.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
            Self::Grey => "grey",
        }
    }
}

/// In pixels.
const HEIGHT: u32 = 360;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_drawn_in_both_sizes() {
        let axes = ["score", "share"].map(|name| Axis { name, range: 0.0..1.0 });
        let point = Estimate { x: 0.5, y: 0.4, interval: [0.3, 0.5] };
        let series = [
            Series { ink: Ink::Grey, marks: Marks::Line(vec![[0.0, 0.0], [1.0, 1.0]]) },
            Series { ink: Ink::First, marks: Marks::Points(vec![point; 3]) },
            Series { ink: Ink::Second, marks: Marks::Columns(vec![[0.1, 0.2, 0.7]; 2]) },
        ];
        let svg = plot(&axes, "What <it> shows", &series);
        assert_eq!((svg.matches("<svg").count(), svg.matches("<circle").count()), (2, 2 * 3));
        assert_eq!(svg.matches("#D9822B").count(), 2 * 2, "columns in the second ink: {svg}");
        assert_eq!(svg.matches("aria-label=\"What &lt;it&gt; shows\"").count(), 2);
        assert!(svg.contains("score") && !svg.contains("http"), "{svg}");
    }
}
