//! With pictures, without, by chance: a row for each benchmark, the largest visual gain first.

use super::super::data::{Cell, DataTable};
use super::super::drawing::{Drawing, Paint, Style, Text, at};
use super::super::scale::Scale;
use super::super::text;
use super::{Colours, Figure, WIDTH, name_column};
use crate::analysis::gaps::Gap;

const ROW: f64 = 28.0;
const TOP: f64 = 62.0;
const RIGHT: f64 = 96.0;

pub(super) fn figure(gaps: &[Gap], colours: &Colours) -> Option<Figure> {
    if gaps.is_empty() {
        return None;
    }
    let bottom = TOP + ROW * gaps.len() as f64;
    let mut drawing = Drawing::new(WIDTH, bottom + 44.0, "Scores with and without pictures");
    let left = name_column(gaps.iter().map(|gap| gap.benchmark.as_str()), 190.0) + 24.0;
    let scale = Scale::new((0.0, 100.0), (left, WIDTH - RIGHT));
    for row in (0..gaps.len()).step_by(2) {
        let y = TOP + ROW * row as f64;
        drawing.rect(at(0.0, y), WIDTH, ROW, Style::fill(Paint::Band), None);
    }
    scale.horizontal_axis(&mut drawing, TOP, bottom, 5);
    drawing.text(
        Text::new(
            at(f64::midpoint(left, WIDTH - RIGHT), bottom + 36.0),
            "score, per cent",
        )
        .soft()
        .middle()
        .size(12.0),
    );
    drawing.text(
        Text::new(at(WIDTH - 8.0, TOP - 8.0), "visual gain")
            .end()
            .bold(),
    );
    legend(&mut drawing, gaps, colours);
    for (row, gap) in gaps.iter().enumerate() {
        draw_row(
            &mut drawing,
            gap,
            TOP + ROW * (row as f64 + 0.5),
            &scale,
            left,
            colours,
        );
    }
    Some(Figure {
        name: "vision_gaps",
        title: "With pictures, without them, by chance",
        short: "Vision",
        caption: "Mean scores over the models that were asked both ways. The bar is what pictures add \
                  to the same question without them. Visual gain is the score with pictures minus the \
                  larger of the score without and chance; benchmarks stand in its order, and it is bold where \
                  its 95 % interval is above 0. A gap that is surely below five points says that a \
                  benchmark can be answered blind."
            .into(),
        drawing,
        data: data(gaps),
    })
}

fn draw_row(drawing: &mut Drawing, gap: &Gap, y: f64, scale: &Scale, left: f64, colours: &Colours) {
    let colour = colours.of(gap.group.as_deref());
    let name = text::fitted(&gap.benchmark, left - 24.0, text::SIZE);
    drawing.text(Text::new(at(left - 14.0, y + 4.5), name).end());
    let (with, without) = (scale.at(gap.with), scale.at(gap.without));
    let bar = [with.min(without), (with - without).abs()];
    let hover = hover(gap);
    drawing.rect(
        at(bar[0], y - 5.0),
        bar[1],
        10.0,
        Style::fill(colour).opacity(0.35),
        Some(hover.clone()),
    );
    if let Some(chance) = gap.chance {
        let x = scale.at(chance);
        drawing.line(
            at(x, y - 10.0),
            at(x, y + 10.0),
            Style::stroke(Paint::Ink, 2.0).dashed(),
        );
    }
    if let Some(wrong) = gap.wrong {
        let x = scale.at(wrong);
        let corners = [(x, y - 6.0), (x + 6.0, y), (x, y + 6.0), (x - 6.0, y)];
        let style = Style::fill(Paint::Paper).outlined(Paint::Soft, 1.5);
        drawing.polygon(
            corners.map(|(x, y)| at(x, y)).to_vec(),
            style,
            Some(hover.clone()),
        );
    }
    let hollow = Style::fill(Paint::Paper).outlined(colour, 2.0);
    drawing.circle(at(without, y), 5.5, hollow, Some(hover.clone()));
    drawing.circle(at(with, y), 6.0, Style::fill(colour), Some(hover));
    // Bold is what is surely a gain.
    let gain = Text::new(at(WIDTH - 8.0, y + 4.5), format!("{:+.1}", gap.gain)).end();
    let is_sure = gap.gain_interval.is_some_and(|interval| interval.low > 0.0);
    drawing.text(if is_sure { gain.bold() } else { gain.soft() });
}

fn hover(gap: &Gap) -> String {
    let mut text = format!(
        "{}: {:.1} with, {:.1} without pictures",
        gap.benchmark, gap.with, gap.without
    );
    if let Some(wrong) = gap.wrong {
        text += &format!(", {wrong:.1} with a wrong one");
    }
    if let Some(chance) = gap.chance {
        text += &format!(", chance {chance:.1}");
    }
    if let Some(interval) = gap.interval {
        text += &format!(
            "; gap {:.1}, 95 % {:.1} to {:.1}",
            gap.gap, interval.low, interval.high
        );
    }
    format!("{text}; {}", gap.reading.words())
}

fn legend(drawing: &mut Drawing, gaps: &[Gap], colours: &Colours) {
    let entries = colours.legend(gaps.iter().map(|gap| gap.group.as_deref()));
    drawing.legend(at(8.0, 12.0), &entries);
    let y = 38.0;
    let mut x = 8.0;
    let mut entry = |drawing: &mut Drawing, label: &str, mark: &dyn Fn(&mut Drawing, f64)| {
        mark(drawing, x + 6.0);
        drawing.text(Text::new(at(x + 18.0, y + 4.5), label).soft());
        x += 36.0 + text::width(label, text::SIZE, false);
    };
    entry(drawing, "with pictures", &|d, x| {
        d.circle(at(x, y), 6.0, Style::fill(Paint::Soft), None);
    });
    entry(drawing, "without", &|d, x| {
        d.circle(
            at(x, y),
            5.5,
            Style::fill(Paint::Paper).outlined(Paint::Soft, 2.0),
            None,
        );
    });
    if gaps.iter().any(|gap| gap.wrong.is_some()) {
        entry(drawing, "wrong picture", &|d, x| {
            let corners = [(x, y - 6.0), (x + 6.0, y), (x, y + 6.0), (x - 6.0, y)];
            let style = Style::fill(Paint::Paper).outlined(Paint::Soft, 1.5);
            d.polygon(corners.map(|(x, y)| at(x, y)).to_vec(), style, None);
        });
    }
    if gaps.iter().any(|gap| gap.chance.is_some()) {
        entry(drawing, "chance", &|d, x| {
            d.line(
                at(x, y - 9.0),
                at(x, y + 9.0),
                Style::stroke(Paint::Ink, 2.0).dashed(),
            );
        });
    }
}

fn data(gaps: &[Gap]) -> DataTable {
    let mut data = DataTable::new(&[
        "benchmark",
        "group",
        "models",
        "with_pictures",
        "without_pictures",
        "wrong_pictures",
        "chance",
        "gap",
        "gap_low",
        "gap_high",
        "visual_gain",
        "visual_gain_low",
        "visual_gain_high",
        "reading",
    ]);
    for gap in gaps {
        data.rows.push(vec![
            (&gap.benchmark).into(),
            gap.group.as_ref().into(),
            gap.models.into(),
            gap.with.into(),
            gap.without.into(),
            gap.wrong.into(),
            gap.chance.into(),
            gap.gap.into(),
            gap.interval.map(|i| i.low).into(),
            gap.interval.map(|i| i.high).into(),
            gap.gain.into(),
            gap.gain_interval.map(|i| i.low).into(),
            gap.gain_interval.map(|i| i.high).into(),
            Cell::from(gap.reading.words()),
        ]);
    }
    data
}
