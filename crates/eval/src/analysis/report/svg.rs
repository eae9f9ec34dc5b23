//! Drawings as SVG.

use std::fmt::Write;

use super::drawing::{Anchor, Drawing, Paint, Point, Shape, Style, Text};
use super::palette::{LIGHT, hex, variable};

/// Where the SVG will stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a page that gives colours and font.
    Page,
    /// In a file of its own, which must look the same in any program.
    File,
}

/// The fonts of a file; the first is the one that text was measured with.
const FONTS: &str = "Roboto, Arial, Helvetica, sans-serif";

/// The drawing as SVG.
pub(super) fn svg(drawing: &Drawing, place: Place) -> String {
    let mut out = String::new();
    let (width, height) = (number(drawing.width), number(drawing.height));
    let title = escape(&drawing.title);
    let attributes = match place {
        Place::Page => String::new(),
        Place::File => format!(
            " xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"{FONTS}\""
        ),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<svg{attributes} viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">"
    );
    if place == Place::File {
        let paper = hex(LIGHT.paper);
        let _ = write!(
            out,
            "<title>{title}</title><rect width=\"100%\" height=\"100%\" fill=\"{paper}\"/>"
        );
    }
    for shape in &drawing.shapes {
        out.push('\n');
        write_shape(&mut out, shape, place);
    }
    out.push_str("\n</svg>\n");
    out
}

fn write_shape(out: &mut String, shape: &Shape, place: Place) {
    match shape {
        Shape::Path {
            points,
            closed,
            style,
            hover,
        } => {
            let mut path = String::new();
            for (i, Point { x, y }) in points.iter().enumerate() {
                let letter = if i == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{} {}", number(*x), number(*y));
            }
            if *closed {
                path.push('Z');
            }
            let style = attributes(style, place);
            element(
                out,
                &format!("path d=\"{path}\"{style}"),
                "path",
                hover.as_deref(),
            );
        }
        Shape::Circle {
            centre,
            radius,
            style,
            hover,
        } => {
            let (x, y, r) = (number(centre.x), number(centre.y), number(*radius));
            let style = attributes(style, place);
            let start = format!("circle cx=\"{x}\" cy=\"{y}\" r=\"{r}\"{style}");
            element(out, &start, "circle", hover.as_deref());
        }
        Shape::Text(text) => write_text(out, text, place),
    }
}

fn element(out: &mut String, start: &str, name: &str, hover: Option<&str>) {
    let _ = match hover {
        None => write!(out, "<{start}/>"),
        Some(hover) => write!(out, "<{start}><title>{}</title></{name}>", escape(hover)),
    };
}

fn attributes(style: &Style, place: Place) -> String {
    let mut out = match style.fill {
        Some(paint) => format!(" fill=\"{}\"", colour(paint, place)),
        None => " fill=\"none\"".into(),
    };
    if style.fill.is_some() && style.opacity < 1.0 {
        let _ = write!(out, " fill-opacity=\"{}\"", number(style.opacity));
    }
    if let Some(paint) = style.stroke {
        let (paint, width) = (colour(paint, place), number(style.width));
        let _ = write!(
            out,
            " stroke=\"{paint}\" stroke-width=\"{width}\" stroke-linejoin=\"round\""
        );
        if style.dashed {
            out.push_str(" stroke-dasharray=\"4 3\"");
        }
    }
    out
}

fn write_text(out: &mut String, text: &Text, place: Place) {
    let (x, y) = (number(text.place.x), number(text.place.y));
    let _ = write!(
        out,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" fill=\"{}\"",
        number(text.size),
        colour(text.paint, place)
    );
    match text.anchor {
        Anchor::Start => {}
        Anchor::Middle => out.push_str(" text-anchor=\"middle\""),
        Anchor::End => out.push_str(" text-anchor=\"end\""),
    }
    if text.bold {
        out.push_str(" font-weight=\"bold\"");
    }
    if text.turn != 0.0 {
        let _ = write!(out, " transform=\"rotate({} {x} {y})\"", number(text.turn));
    }
    if text.halo {
        let paper = colour(Paint::Paper, place);
        let _ = write!(
            out,
            " stroke=\"{paper}\" stroke-width=\"3\" stroke-linejoin=\"round\" paint-order=\"stroke\""
        );
    }
    let _ = write!(out, ">{}</text>", escape(&text.text));
}

fn colour(paint: Paint, place: Place) -> String {
    match (place, variable(paint)) {
        (Place::Page, Some(variable)) => format!("var({variable})"),
        _ => hex(LIGHT.colour(paint)),
    }
}

/// A coordinate with at most two digits behind the point.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.into()
    }
}

/// Text that is safe between tags and in attributes of HTML and XML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML allows no other control characters.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::drawing::at;
    use super::*;

    #[test]
    fn shapes_become_elements() {
        let mut drawing = Drawing::new(100.0, 50.0, "a < b");
        let style = Style::fill(Paint::Series(1))
            .opacity(0.5)
            .outlined(Paint::Ink, 1.5);
        drawing.rect(at(1.0, 2.0), 3.0, 4.0, style, Some("x & y".into()));
        drawing.circle(
            at(1.004, -0.001),
            2.0,
            Style::fill(Paint::Fixed([1, 2, 3])),
            None,
        );
        drawing.text(Text::new(at(5.0, 6.0), "5 > 4").bold().end().turned(-90.0));
        let page = svg(&drawing, Place::Page);
        assert!(
            page.starts_with("<svg viewBox=\"0 0 100 50\" role=\"img\" aria-label=\"a &lt; b\">")
        );
        assert!(
            page.contains(
                "<path d=\"M1 2L4 2L4 6L1 6Z\" fill=\"var(--series-1)\" fill-opacity=\"0.5\" \
             stroke=\"var(--ink)\" stroke-width=\"1.5\" stroke-linejoin=\"round\">\
             <title>x &amp; y</title></path>"
            ),
            "{page}"
        );
        assert!(
            page.contains("<circle cx=\"1\" cy=\"0\" r=\"2\" fill=\"#010203\"/>"),
            "{page}"
        );
        assert!(
            page.contains("rotate(-90 5 6)") && page.contains(">5 &gt; 4</text>"),
            "{page}"
        );
        let file = svg(&drawing, Place::File);
        assert!(file.contains("xmlns=") && file.contains("#d55e00") && !file.contains("var("));
    }
}
