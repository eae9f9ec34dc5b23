//! What each benchmark can tell apart: spread over models beside the noise of measuring.

use super::super::data::{Cell, DataTable};
use super::super::drawing::{Drawing, Paint, Style, Text, at};
use super::super::scale::Scale;
use super::super::text;
use super::{Colours, Figure, WIDTH, name_column};
use crate::analysis::resolution::Resolution;

const ROW: f64 = 26.0;
const RIGHT: f64 = 200.0;

pub(super) fn figure(resolutions: &[Resolution], colours: &Colours) -> Option<Figure> {
    if resolutions.is_empty() {
        return None;
    }
    let mut sorted: Vec<&Resolution> = resolutions.iter().collect();
    let key = |r: &Resolution| r.reliability.unwrap_or(-1.0);
    sorted.sort_by(|a, b| {
        key(b)
            .total_cmp(&key(a))
            .then(b.spread.total_cmp(&a.spread))
    });
    let mut drawing = Drawing::new(WIDTH, 0.0, "What benchmarks can tell apart");
    let entries = colours.legend(sorted.iter().map(|r| r.group.as_deref()));
    let legend = if entries.is_empty() {
        0.0
    } else {
        drawing.legend(at(8.0, 12.0), &entries)
    };
    let top = legend + 26.0;
    let bottom = top + ROW * sorted.len() as f64;
    drawing.height = bottom + 44.0;
    for row in (0..sorted.len()).step_by(2) {
        let y = top + ROW * row as f64;
        drawing.rect(at(0.0, y), WIDTH, ROW, Style::fill(Paint::Band), None);
    }
    let left = name_column(sorted.iter().map(|r| r.benchmark.as_str()), 190.0) + 24.0;
    let scale = Scale::new((0.0, 100.0), (left, WIDTH - RIGHT));
    scale.horizontal_axis(&mut drawing, top, bottom, 5);
    let middle = at(f64::midpoint(left, WIDTH - RIGHT), bottom + 36.0);
    drawing.text(
        Text::new(middle, "score, per cent")
            .soft()
            .middle()
            .size(12.0),
    );
    for (x, heading) in [
        (WIDTH - 136.0, "spread"),
        (WIDTH - 76.0, "noise"),
        (WIDTH - 8.0, "reliability"),
    ] {
        drawing.text(Text::new(at(x, top - 8.0), heading).end().soft().size(12.0));
    }
    for (row, resolution) in sorted.iter().enumerate() {
        draw_row(
            &mut drawing,
            resolution,
            top + ROW * (row as f64 + 0.5),
            &scale,
            left,
            colours,
        );
    }
    Some(Figure {
        name: "resolution",
        title: "What benchmarks can tell apart",
        short: "Resolution",
        caption: "Thin line: from the lowest to the highest model. Thick bar: mean ± one standard \
                  deviation over models (spread). Black whiskers: ± 1.96 standard errors of one score \
                  (noise), from its number of questions. Reliability is the share of the variance over \
                  models that is not noise; near 0 a benchmark cannot order these models."
            .into(),
        drawing,
        data: data(&sorted),
    })
}

fn draw_row(
    drawing: &mut Drawing,
    found: &Resolution,
    y: f64,
    scale: &Scale,
    left: f64,
    colours: &Colours,
) {
    let colour = colours.of(found.group.as_deref());
    let name = text::fitted(&found.benchmark, left - 24.0, text::SIZE);
    drawing.text(Text::new(at(left - 14.0, y + 4.5), name).end());
    let place = |score: f64| scale.at(score.clamp(0.0, 100.0));
    let (low, high) = (at(place(found.lowest), y), at(place(found.highest), y));
    drawing.line(low, high, Style::stroke(colour, 1.5));
    let (start, end) = (
        place(found.mean - found.spread),
        place(found.mean + found.spread),
    );
    let hover = format!(
        "{}: {:.1} to {:.1}, mean {:.1}, over {} models",
        found.benchmark, found.lowest, found.highest, found.mean, found.models
    );
    let style = Style::fill(colour).opacity(0.45);
    drawing.rect(at(start, y - 6.0), end - start, 12.0, style, Some(hover));
    if let Some(noise) = found.noise {
        let (from, to) = (
            place(found.mean - 1.96 * noise),
            place(found.mean + 1.96 * noise),
        );
        drawing.line(at(from, y), at(to, y), Style::stroke(Paint::Ink, 1.5));
        for x in [from, to] {
            drawing.line(
                at(x, y - 4.0),
                at(x, y + 4.0),
                Style::stroke(Paint::Ink, 1.5),
            );
        }
    }
    let number = |value: Option<f64>, digits: usize| {
        value.map_or("–".into(), |value| format!("{value:.digits$}"))
    };
    for (x, value) in [
        (WIDTH - 136.0, number(Some(found.spread), 1)),
        (WIDTH - 76.0, number(found.noise, 1)),
        (WIDTH - 8.0, number(found.reliability, 2)),
    ] {
        drawing.text(Text::new(at(x, y + 4.5), value).end());
    }
}

fn data(sorted: &[&Resolution]) -> DataTable {
    let mut data = DataTable::new(&[
        "benchmark",
        "group",
        "questions",
        "models",
        "mean",
        "lowest",
        "highest",
        "spread",
        "noise",
        "reliability",
    ]);
    for found in sorted {
        data.rows.push(vec![
            Cell::from(&found.benchmark),
            found.group.as_ref().into(),
            found.questions.into(),
            found.models.into(),
            found.mean.into(),
            found.lowest.into(),
            found.highest.into(),
            found.spread.into(),
            found.noise.into(),
            found.reliability.into(),
        ]);
    }
    data
}
