//! The groups as a star, for a few models: who is good at what.

use std::f64::consts::{FRAC_PI_2, TAU};

use super::super::data::{Cell, DataTable};
use super::super::drawing::{Drawing, Paint, Point, Style, Text, at};
use super::super::palette::SERIES;
use super::super::scale::{Scale, round_range};
use super::super::text;
use super::{Colours, Figure, WIDTH};
use crate::analysis::ranking::{RankedModel, Ranking};

const HEIGHT: f64 = 430.0;
const RADIUS: f64 = 165.0;
const CENTRE: Point = Point { x: 280.0, y: 215.0 };
/// Models that can still be told apart.
const MOST: usize = 5;

pub(super) fn figure(ranking: &Ranking, families: &Colours) -> Option<Figure> {
    let axes = &ranking.groups;
    if axes.len() < 3 {
        return None;
    }
    let models = chosen(ranking);
    let mut drawing = Drawing::new(WIDTH, HEIGHT, "Groups as a star");
    let all = models
        .iter()
        .flat_map(|model| model.group_averages.iter().flatten());
    let range = range(&all.copied().collect::<Vec<f64>>());
    let scale = Scale::new(range, (0.0, RADIUS));
    grid(&mut drawing, axes, &scale);
    for (i, model) in models.iter().enumerate() {
        let colour = if by_family(ranking) {
            families.of(model.family.as_deref())
        } else {
            Paint::Series(SERIES / 2 + i)
        };
        let corner = |axis: usize| {
            let average = model.group_averages.get(axis).copied().flatten();
            on_axis(
                axis,
                axes.len(),
                average.map_or(0.0, |average| scale.at(average)),
            )
        };
        let corners: Vec<Point> = (0..axes.len()).map(corner).collect();
        let style = Style::fill(colour).opacity(0.08).outlined(colour, 2.0);
        drawing.polygon(corners.clone(), style, None);
        for (axis, corner) in corners.into_iter().enumerate() {
            let average = model.group_averages.get(axis).copied().flatten();
            let value = average.map_or("no score".into(), |average| format!("{average:.1}"));
            let hover = format!("{} on {}: {value}", model.name, axes[axis]);
            drawing.circle(corner, 4.0, Style::fill(colour), Some(hover));
        }
        let y = 70.0 + 50.0 * i as f64;
        drawing.circle(at(560.0, y), 5.0, Style::fill(colour), None);
        let name = text::fitted(&model.name, 284.0, text::SIZE);
        drawing.text(Text::new(at(572.0, y + 4.5), name).bold());
        let values = model.group_averages.iter();
        let values: Vec<String> = values
            .map(|v| v.map_or("–".into(), |v| format!("{v:.1}")))
            .collect();
        let values = text::fitted(&values.join("  /  "), 284.0, text::SIZE);
        drawing.text(Text::new(at(572.0, y + 23.0), values).soft());
    }
    Some(Figure {
        name: "radar",
        title: "Groups as a star",
        short: "Star",
        caption: format!(
            "Group averages of {}, clockwise from the top in the order of the numbers beside the \
             names. The middle of the star is {} per cent.",
            if by_family(ranking) {
                "the best model of each family"
            } else {
                "the best models"
            },
            range.0
        ),
        drawing,
        data: data(ranking, &models),
    })
}

/// From below the worst average, so that no model shrinks to a dot, to above the best.
fn range(averages: &[f64]) -> (f64, f64) {
    let (low, high) = round_range(averages.iter().copied(), 4.0);
    let room = (low - (high - low) / 2.0).max(0.0);
    round_range([room, high].into_iter(), 4.0)
}

fn by_family(ranking: &Ranking) -> bool {
    let first = ranking
        .models
        .first()
        .and_then(|model| model.family.as_ref());
    ranking
        .models
        .iter()
        .any(|model| model.family.as_ref() != first)
}

/// The best model of each family, or the best ones if there are no families.
fn chosen(ranking: &Ranking) -> Vec<&RankedModel> {
    let mut chosen: Vec<&RankedModel> = Vec::new();
    let families = by_family(ranking);
    for model in &ranking.models {
        let known = chosen.iter().any(|other| other.family == model.family);
        if chosen.len() < MOST && !(families && known) {
            chosen.push(model);
        }
    }
    chosen
}

fn grid(drawing: &mut Drawing, axes: &[String], scale: &Scale) {
    for tick in scale.ticks(4) {
        let ring = (0..axes.len()).map(|axis| on_axis(axis, axes.len(), scale.at(tick)));
        drawing.polygon(ring.collect(), Style::stroke(Paint::Line, 1.0), None);
    }
    for (axis, name) in axes.iter().enumerate() {
        let end = on_axis(axis, axes.len(), RADIUS);
        drawing.line(CENTRE, end, Style::stroke(Paint::Line, 1.0));
        let place = on_axis(axis, axes.len(), RADIUS + 16.0);
        let label = Text::new(at(place.x, place.y + 4.5), name.clone()).bold();
        let aside = place.x - CENTRE.x;
        drawing.text(if aside.abs() < 20.0 {
            label.middle()
        } else if aside > 0.0 {
            label
        } else {
            label.end()
        });
    }
    for tick in scale.ticks(4) {
        let place = on_axis(0, axes.len(), scale.at(tick));
        let label = Text::new(at(place.x + 4.0, place.y + 4.0), format!("{tick}"));
        drawing.text(label.soft().size(11.0).halo());
    }
}

/// A place so far from the middle on an axis; the first axis points up.
fn on_axis(axis: usize, axes: usize, distance: f64) -> Point {
    let (sine, cosine) = (TAU * axis as f64 / axes as f64 - FRAC_PI_2).sin_cos();
    at(CENTRE.x + distance * cosine, CENTRE.y + distance * sine)
}

fn data(ranking: &Ranking, models: &[&RankedModel]) -> DataTable {
    let mut data = DataTable::new(&["model", "family"]);
    data.columns.extend(ranking.groups.iter().cloned());
    for model in models {
        let mut row = vec![Cell::from(&model.name), model.family.as_ref().into()];
        row.extend(
            model
                .group_averages
                .iter()
                .map(|average| Cell::from(*average)),
        );
        data.rows.push(row);
    }
    data
}
