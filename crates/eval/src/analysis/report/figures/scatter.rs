//! Benchmarks as points in their first two components, as large as their number of questions.

use super::super::data::{Cell, DataTable};
use super::super::drawing::{Drawing, Paint, Point, Style, Text, at};
use super::super::labels::{Area, Dot, place};
use super::super::scale::{Scale, round_range};
use super::super::text;
use super::{Colours, Figure, WIDTH};
use crate::analysis::structure::Structure;

const HEIGHT: f64 = 560.0;
const FRAME: Area = Area {
    left: 56.0,
    top: 34.0,
    width: WIDTH - 72.0,
    height: HEIGHT - 34.0 - 52.0,
};
/// The radius of the largest benchmark, and of one whose number of questions is not known.
const RADII: (f64, f64) = (34.0, 7.0);

pub(super) fn figure(structure: &Structure, colours: &Colours) -> Figure {
    let mut drawing = Drawing::new(WIDTH, HEIGHT, "Benchmarks in their first two components");
    let coordinate = |axis: usize| {
        let points = structure.components.coordinates.iter();
        points.map(move |point| point.get(axis).copied().unwrap_or(0.0))
    };
    let right = FRAME.left + FRAME.width;
    let bottom = FRAME.top + FRAME.height;
    // Bubbles at the edge need room.
    let x = Scale::new(
        round_range(coordinate(0), 5.0),
        (FRAME.left + 40.0, right - 40.0),
    );
    let y = Scale::new(
        round_range(coordinate(1), 5.0),
        (bottom - 40.0, FRAME.top + 40.0),
    );
    x.horizontal_axis(&mut drawing, FRAME.top, bottom, 7);
    y.vertical_axis(&mut drawing, FRAME.left, right, 6);
    axis_names(&mut drawing, structure);
    let largest = structure
        .questions
        .iter()
        .flatten()
        .copied()
        .max()
        .unwrap_or(1)
        .max(1);
    let dots: Vec<Dot> = coordinate(0)
        .zip(coordinate(1))
        .zip(structure.benchmarks.iter().zip(&structure.questions))
        .map(|((cx, cy), (name, questions))| Dot {
            centre: at(x.at(cx), y.at(cy)),
            radius: questions.map_or(RADII.1, |n| {
                (RADII.0 * (n as f64 / largest as f64).sqrt()).max(4.0)
            }),
            label: (text::width(name, text::SIZE, true) + 4.0, 16.0),
        })
        .collect();
    outline_clusters(&mut drawing, structure, &dots);
    draw_bubbles(&mut drawing, structure, &dots, colours);
    draw_names(&mut drawing, structure, &dots);
    let entries = colours.legend(structure.groups.iter().map(Option::as_deref));
    drawing.legend(at(FRAME.left, 14.0), &entries);
    Figure {
        name: "components",
        title: "Benchmarks in their first two components",
        short: "Components",
        caption: format!(
            "Each benchmark is a point: its standardised scores over {} models. What lies close \
             together orders models alike. The area of a bubble is the number of scored questions; \
             dashed lines join the {} clusters of k-means. Axes have no direction of their own.",
            structure.models, structure.clusters
        ),
        drawing,
        data: data(structure),
    }
}

fn axis_names(drawing: &mut Drawing, structure: &Structure) {
    let share = |axis: usize| {
        100.0
            * structure
                .components
                .shares
                .get(axis)
                .copied()
                .unwrap_or(0.0)
    };
    let name =
        |ordinal: &str, axis| format!("{ordinal} component ({:.0} % of the variance)", share(axis));
    let middle = at(FRAME.left + FRAME.width / 2.0, HEIGHT - 10.0);
    drawing.text(
        Text::new(middle, name("first", 0))
            .soft()
            .middle()
            .size(12.0),
    );
    let middle = at(14.0, FRAME.top + FRAME.height / 2.0);
    drawing.text(
        Text::new(middle, name("second", 1))
            .soft()
            .middle()
            .size(12.0)
            .turned(-90.0),
    );
}

fn draw_bubbles(drawing: &mut Drawing, structure: &Structure, dots: &[Dot], colours: &Colours) {
    // Large ones first, so that no small one is hidden.
    let mut order: Vec<usize> = (0..dots.len()).collect();
    order.sort_by(|&a, &b| dots[b].radius.total_cmp(&dots[a].radius));
    for i in order {
        let colour = colours.of(structure.groups[i].as_deref());
        let questions = structure.questions[i].map_or("unknown".into(), |n| n.to_string());
        let hover = format!(
            "{}: {questions} questions, cluster {} of k-means",
            structure.benchmarks[i],
            structure.k_means.labels[i] + 1
        );
        let style = Style::fill(colour).opacity(0.45).outlined(colour, 1.5);
        drawing.circle(dots[i].centre, dots[i].radius, style, Some(hover));
    }
}

fn draw_names(drawing: &mut Drawing, structure: &Structure, dots: &[Dot]) {
    for ((area, dot), name) in place(dots, FRAME)
        .iter()
        .zip(dots)
        .zip(&structure.benchmarks)
    {
        let end = area.nearest(dot.centre);
        let away = (end.x - dot.centre.x).hypot(end.y - dot.centre.y);
        if away > dot.radius + 9.0 {
            let part = dot.radius / away;
            let rim = at(
                dot.centre.x + part * (end.x - dot.centre.x),
                dot.centre.y + part * (end.y - dot.centre.y),
            );
            drawing.line(rim, end, Style::stroke(Paint::Soft, 1.0));
        }
        let place = at(area.left + area.width / 2.0, area.top + 12.0);
        drawing.text(Text::new(place, name.clone()).bold().middle().halo());
    }
}

/// The hull of each cluster of two or more.
fn outline_clusters(drawing: &mut Drawing, structure: &Structure, dots: &[Dot]) {
    for cluster in 0..structure.clusters {
        let labels = structure.k_means.labels.iter();
        let mine = labels.zip(dots).filter(|(label, _)| **label == cluster);
        let points: Vec<Point> = mine.map(|(_, dot)| dot.centre).collect();
        let style = Style::stroke(Paint::Soft, 1.0).dashed();
        match points.len() {
            0 | 1 => {}
            2 => drawing.path(points, style),
            _ => drawing.polygon(hull(points), style, None),
        }
    }
}

/// The convex hull, after Andrew.
fn hull(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
    let turn = |a: Point, b: Point, c: Point| (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
    let half = |points: &mut dyn Iterator<Item = Point>| {
        let mut chain: Vec<Point> = Vec::new();
        for point in points {
            while let [.., a, b] = chain[..]
                && turn(a, b, point) <= 0.0
            {
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let mut hull = half(&mut points.iter().copied());
    hull.extend(half(&mut points.iter().rev().copied()));
    hull
}

fn data(structure: &Structure) -> DataTable {
    let mut data = DataTable::new(&[
        "benchmark",
        "group",
        "questions",
        "first_component",
        "second_component",
        "k_means_cluster",
        "linkage_cluster",
    ]);
    for (i, name) in structure.benchmarks.iter().enumerate() {
        let point = &structure.components.coordinates[i];
        data.rows.push(vec![
            Cell::from(name),
            structure.groups[i].as_ref().into(),
            structure.questions[i].into(),
            point.first().copied().into(),
            point.get(1).copied().into(),
            (structure.k_means.labels[i] + 1).into(),
            (structure.linkage[i] + 1).into(),
        ]);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hull_leaves_out_what_is_inside() {
        let points = [
            (0.0, 0.0),
            (4.0, 0.0),
            (4.0, 4.0),
            (0.0, 4.0),
            (2.0, 2.0),
            (2.0, 0.0),
        ];
        let found = hull(points.map(|(x, y)| at(x, y)).to_vec());
        assert_eq!(found.len(), 4, "{found:?}");
    }
}
