//! A report as one HTML page for people: no scripts, nothing that is fetched, every text escaped. What stands on a page
//! is its report's; here is only how it looks.

pub(crate) mod chart;
pub(crate) mod figure;
pub(crate) mod plot;

use std::fmt::Write;

use self::{
    chart::{Bar, Shape, chart},
    plot::Ink,
};

/// What stands above a page.
pub(crate) struct Title<'a> {
    /// What a browser calls it.
    pub(crate) tab: &'a str,
    /// The heading.
    pub(crate) heading: &'a str,
    /// The line beneath it.
    pub(crate) below: &'a str,
}

/// Something that a reader should know.
pub(crate) struct Point<'a> {
    /// Whether it puts the rest in doubt.
    pub(crate) is_grave: bool,
    /// What it is about.
    pub(crate) title: &'a str,
    /// What there is to know.
    pub(crate) text: &'a str,
}

/// The page so far.
#[derive(Default)]
pub(crate) struct Page {
    html: String,
    is_in_section: bool,
}

impl Page {
    /// The head of a page with these sections, each an anchor and its title.
    pub(crate) fn open(title: &Title<'_>, sections: &[(&str, &str)]) -> Self {
        let mut page = Self::default();
        page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">");
        page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
        // The page fetches nothing and runs nothing, and a browser need not take its word for it.
        page.raw(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        );
        let Title { tab, heading, below } = title;
        page.raw(&format!("<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>", escaped(tab)));
        page.raw(&format!("<header><h1>{}</h1><p>{}</p></header>", escaped(heading), escaped(below)));
        page.raw("<nav aria-label=\"Sections\">");
        for (id, title) in sections {
            page.raw(&format!("<a href=\"#{id}\">{title}</a>"));
        }
        page.raw("</nav>\n<main>");
        page
    }

    /// The whole page.
    pub(crate) fn close(mut self) -> String {
        self.raw("</section>\n</main>\n</body>\n</html>");
        self.html
    }

    /// Begins one of the sections.
    pub(crate) fn section(&mut self, (id, title): (&str, &str)) {
        if std::mem::replace(&mut self.is_in_section, true) {
            self.raw("</section>");
        }
        self.raw(&format!(
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>"
        ));
    }

    /// A heading within a section.
    pub(crate) fn heading(&mut self, text: &str) {
        self.raw(&format!("<h3>{}</h3>", escaped(text)));
    }

    /// A paragraph; what stands between backticks is code.
    pub(crate) fn text(&mut self, text: &str) {
        self.raw(&format!("<p>{}</p>", marked(text)));
    }

    /// Figures that are read at a glance, each beneath its name.
    pub(crate) fn tiles(&mut self, tiles: &[(&str, String)]) {
        self.raw("<dl class=\"tiles\">");
        for (name, value) in tiles {
            self.raw(&format!("<div><dt>{}</dt><dd>{}</dd></div>", escaped(name), escaped(value)));
        }
        self.raw("</dl>");
    }

    /// What a reader should know before the rest.
    pub(crate) fn points(&mut self, points: &[Point<'_>]) {
        self.raw("<ul class=\"warnings\">");
        for Point { is_grave, title, text } in points {
            let class = if *is_grave { "grave" } else { "mild" };
            let (title, text) = (escaped(title), marked(text));
            self.raw(&format!("<li class=\"{class}\"><strong>{title}.</strong> {text}</li>"));
        }
        self.raw("</ul>");
    }

    /// A chart of bars and, to unfold, their figures.
    pub(crate) fn bars(&mut self, shape: Shape, caption: &str, name: &str, value: &str, bars: &[Bar]) {
        let rows: Vec<Vec<String>> =
            bars.iter().map(|bar| vec![bar.label.clone(), bar.text.clone()]).collect();
        self.figure(|alt| chart(shape, 0.0, alt, bars), caption, &[name, value], &rows);
    }

    /// What `draw` makes of the caption as plain text and, to unfold, the figures that it shows.
    pub(crate) fn figure(
        &mut self,
        draw: impl FnOnce(&str) -> String,
        caption: &str,
        head: &[&str],
        rows: &[Vec<String>],
    ) {
        self.raw("<figure>");
        self.raw(&draw(&caption.replace('`', "")));
        self.raw(&format!("<figcaption>{}</figcaption>", marked(caption)));
        self.raw("<details><summary>The figures</summary>");
        self.table(head, rows);
        self.raw("</details></figure>");
    }

    /// Says which ink is what.
    pub(crate) fn legend(&mut self, inks: &[(Ink, &str)]) {
        self.raw("<p class=\"legend\">");
        for (ink, name) in inks {
            self.raw(&format!("<span class=\"{}\">{}</span>", ink.class(), escaped(name)));
        }
        self.raw("</p>");
    }

    /// A table whose first column names its rows.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.raw("<div class=\"scroll\" tabindex=\"0\"><table>");
        self.rows(head, rows);
    }

    /// A table that is rather scrolled than squeezed.
    pub(crate) fn wide_table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.raw("<div class=\"scroll\" tabindex=\"0\"><table class=\"wide\">");
        self.rows(head, rows);
    }

    fn rows(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.raw("<thead><tr>");
        for name in head {
            self.raw(&format!("<th scope=\"col\">{}</th>", escaped(name)));
        }
        self.raw("</tr></thead><tbody>");
        for row in rows {
            self.html.push_str("<tr>");
            for (at, cell) in row.iter().enumerate() {
                let tag = if at == 0 { "th scope=\"row\"" } else { "td" };
                let end = if at == 0 { "th" } else { "td" };
                write!(self.html, "<{tag}>{}</{end}>", escaped(cell))
                    .expect("writing into memory does not fail");
            }
            self.raw("</tr>");
        }
        self.raw("</tbody></table></div>");
    }

    fn raw(&mut self, html: &str) {
        self.html.push_str(html);
        self.html.push('\n');
    }
}

/// `text` as HTML shows it, between tags and in attributes.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters are no part of HTML.
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    // A number keeps its unit.
    escaped.replace(" %", "&nbsp;%")
}

/// `text` as HTML, with what stands between backticks as code.
pub(crate) fn marked(text: &str) -> String {
    let text = escaped(text);
    if !text.matches('`').count().is_multiple_of(2) {
        return text;
    }
    let parts = text.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 0 { part.to_owned() } else { code(part) }).collect()
}

/// Code that is short does not break: the two hyphens of a flag would be a place for it.
fn code(text: &str) -> String {
    let class = if text.chars().count() <= 24 { " class=\"short\"" } else { "" };
    format!("<code{class}>{text}</code>")
}

const STYLE: &str = include_str!("page.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_is_never_markup() {
        assert_eq!(
            escaped("<a href=\"x\">'&'</a>\u{1}"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt; "
        );
        assert_eq!(marked("column `<b>` is"), "column <code class=\"short\">&lt;b&gt;</code> is");
        assert_eq!(marked("a ` alone"), "a ` alone");
    }
}
