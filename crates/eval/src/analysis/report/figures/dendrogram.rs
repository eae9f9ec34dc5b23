//! The tree of benchmarks: what joins early orders models alike.

use super::super::data::{Cell, DataTable};
use super::super::drawing::{Drawing, Paint, Point, Style, Text, at};
use super::super::scale::Scale;
use super::super::text;
use super::{Colours, Figure, WIDTH, name_column};
use crate::analysis::structure::Structure;

const ROW: f64 = 26.0;

pub(super) fn figure(structure: &Structure, colours: &Colours) -> Figure {
    let tree = &structure.tree;
    let order = tree.order();
    let mut drawing = Drawing::new(WIDTH, 0.0, "Tree of benchmarks");
    let entries = colours.legend(structure.groups.iter().map(Option::as_deref));
    let top = if entries.is_empty() {
        8.0
    } else {
        drawing.legend(at(8.0, 12.0), &entries) + 8.0
    };
    let bottom = top + ROW * order.len() as f64;
    drawing.height = bottom + 44.0;
    let left = name_column(structure.benchmarks.iter().map(String::as_str), 190.0) + 44.0;
    let highest = tree
        .joins
        .iter()
        .map(|join| join.height)
        .fold(1e-9, f64::max);
    let scale = Scale::new((0.0, highest * 1.05), (left, WIDTH - 20.0));
    draw_rows(&mut drawing, structure, &order, (left, top), colours);
    scale.horizontal_axis(&mut drawing, top, bottom, 6);
    let middle = at(f64::midpoint(left, WIDTH - 20.0), bottom + 36.0);
    drawing.text(
        Text::new(middle, "mean distance 1 - r where two branches join")
            .soft()
            .middle()
            .size(12.0),
    );
    draw_branches(&mut drawing, structure, &order, &scale, top);
    draw_cut(&mut drawing, structure, &scale, (top, bottom));
    Figure {
        name: "tree",
        title: "Tree of benchmarks",
        short: "Tree",
        caption: format!(
            "Average linkage on 1 − r over {} models. The dashed line cuts the tree into {} clusters, \
             numbered at the left; bands tell neighbouring clusters apart.",
            structure.models, structure.clusters
        ),
        drawing,
        data: data(structure),
    }
}

fn draw_rows(
    drawing: &mut Drawing,
    structure: &Structure,
    order: &[usize],
    (left, top): (f64, f64),
    colours: &Colours,
) {
    let (mut band, mut before) = (false, None);
    for (row, &leaf) in order.iter().enumerate() {
        let y = top + ROW * row as f64;
        let cluster = structure.linkage[leaf];
        if before != Some(cluster) {
            band = !band;
            before = Some(cluster);
            let number = Text::new(at(8.0, y + ROW / 2.0 + 4.5), (cluster + 1).to_string());
            // Under the bands of the rows that follow nothing of it is lost: it stands in the first.
            if band {
                drawing.rect(at(0.0, y), WIDTH, ROW, Style::fill(Paint::Band), None);
            }
            drawing.text(number.bold());
        } else if band {
            drawing.rect(at(0.0, y), WIDTH, ROW, Style::fill(Paint::Band), None);
        }
        let middle = y + ROW / 2.0;
        let colour = colours.of(structure.groups[leaf].as_deref());
        drawing.circle(at(left - 12.0, middle), 5.0, Style::fill(colour), None);
        let name = text::fitted(&structure.benchmarks[leaf], left - 44.0, text::SIZE);
        drawing.text(Text::new(at(left - 22.0, middle + 4.5), name).end());
    }
}

fn draw_branches(
    drawing: &mut Drawing,
    structure: &Structure,
    order: &[usize],
    scale: &Scale,
    top: f64,
) {
    let tree = &structure.tree;
    // Where each node's branch starts.
    let mut nodes: Vec<Point> = vec![at(scale.at(0.0), 0.0); tree.leaves];
    for (row, &leaf) in order.iter().enumerate() {
        nodes[leaf].y = top + ROW * (row as f64 + 0.5);
    }
    for join in &tree.joins {
        let (one, other) = (nodes[join.first], nodes[join.second]);
        let x = scale.at(join.height);
        let corners = vec![one, at(x, one.y), at(x, other.y), other];
        drawing.path(corners, Style::stroke(Paint::Ink, 1.5));
        let middle = at(x, f64::midpoint(one.y, other.y));
        let hover = format!("joined at 1 - r = {:.3}", join.height);
        drawing.circle(middle, 3.0, Style::fill(Paint::Ink), Some(hover));
        nodes.push(middle);
    }
}

fn draw_cut(
    drawing: &mut Drawing,
    structure: &Structure,
    scale: &Scale,
    (top, bottom): (f64, f64),
) {
    let joins = &structure.tree.joins;
    let kept = structure.tree.leaves.saturating_sub(structure.clusters);
    let below = kept
        .checked_sub(1)
        .and_then(|i| joins.get(i))
        .map_or(0.0, |join| join.height);
    if let Some(above) = joins.get(kept) {
        let x = scale.at(f64::midpoint(below, above.height));
        drawing.line(
            at(x, top),
            at(x, bottom),
            Style::stroke(Paint::Series(1), 2.0).dashed(),
        );
    }
}

fn data(structure: &Structure) -> DataTable {
    let mut data = DataTable::new(&["join", "first", "second", "height"]);
    let leaves = structure.tree.leaves;
    let name = |node: usize| match structure.benchmarks.get(node) {
        Some(name) => name.clone(),
        None => format!("join {}", node - leaves + 1),
    };
    for (i, join) in structure.tree.joins.iter().enumerate() {
        data.rows.push(vec![
            Cell::from(i + 1),
            Cell::Text(name(join.first)),
            Cell::Text(name(join.second)),
            join.height.into(),
        ]);
    }
    data
}
