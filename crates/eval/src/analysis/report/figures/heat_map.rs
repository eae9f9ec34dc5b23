//! Correlations of benchmarks, those that belong together beside each other.

use super::super::data::{Cell, DataTable};
use super::super::drawing::{Drawing, Paint, Style, Text, at};
use super::super::palette::{diverging, readable_on};
use super::super::text;
use super::{Colours, Figure, WIDTH, name_column};
use crate::analysis::Analysis;
use crate::analysis::structure::Structure;

/// The largest cell.
const CELL: f64 = 46.0;

pub(super) fn figure(analysis: &Analysis, colours: &Colours) -> Option<Figure> {
    let matrix = &analysis.correlations;
    if matrix.names.len() < 2
        || matrix.values.iter().flatten().flatten().count() <= matrix.names.len()
    {
        return None;
    }
    let order = order(&matrix.names, analysis.structure.as_ref());
    let names: Vec<&str> = order.iter().map(|&i| matrix.names[i].as_str()).collect();
    let left = name_column(names.iter().copied(), 170.0) + 34.0;
    let cell = ((WIDTH - left - 40.0) / names.len() as f64).min(CELL);
    let top = left * 0.75 + 18.0;
    let side = cell * names.len() as f64;
    let mut drawing = Drawing::new(WIDTH, top + side + 74.0, "Correlations of benchmarks");
    for (row, &i) in order.iter().enumerate() {
        let y = top + cell * row as f64;
        for (column, &j) in order.iter().enumerate() {
            let place = at(left + cell * column as f64, y);
            draw_cell(&mut drawing, place, cell, analysis, (i, j));
        }
        let group = group_of(analysis, &matrix.names[i]);
        let middle = y + cell / 2.0;
        drawing.circle(
            at(left - 13.0, middle),
            5.0,
            Style::fill(colours.of(group)),
            None,
        );
        let name = text::fitted(names[row], left - 34.0, text::SIZE);
        drawing.text(Text::new(at(left - 24.0, middle + 4.5), name).end());
        let x = left + cell * (row as f64 + 0.5);
        let name = text::fitted(names[row], (top - 22.0) / 0.72, text::SIZE);
        drawing.text(Text::new(at(x - 2.0, top - 8.0), name).turned(-45.0));
    }
    if let Some(structure) = &analysis.structure {
        outline_clusters(
            &mut drawing,
            structure,
            &matrix.names,
            &order,
            (left, top, cell),
        );
    }
    let entries = colours.legend(names.iter().map(|name| group_of(analysis, name)));
    drawing.legend(at(left, top + side + 22.0), &entries);
    colour_bar(&mut drawing, left, top + side + 44.0);
    Some(Figure {
        name: "correlations",
        title: "Correlations of benchmarks",
        short: "Correlations",
        caption: "Pearson's correlation of two benchmarks over the models that have both scores, \
                  CV-Bench as one benchmark. Benchmarks stand in the order of the tree below; frames \
                  are the clusters that average linkage on 1 − r gives, dots the groups."
            .into(),
        drawing,
        data: data(analysis, &order),
    })
}

/// The benchmarks in the order of the tree; those that are not in it come last.
fn order(names: &[String], structure: Option<&Structure>) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    if let Some(structure) = structure {
        let leaves = structure.tree.order().into_iter();
        let places = leaves.filter_map(|leaf| {
            let name = structure.benchmarks.get(leaf)?;
            names.iter().position(|other| other == name)
        });
        order.extend(places);
    }
    let rest = (0..names.len()).filter(|i| !order.contains(i));
    order.extend(rest.collect::<Vec<_>>());
    order
}

fn group_of<'a>(analysis: &'a Analysis, name: &str) -> Option<&'a str> {
    let whole = analysis.structure.as_ref().and_then(|structure| {
        let place = structure
            .benchmarks
            .iter()
            .position(|other| other == name)?;
        structure.groups[place].as_deref()
    });
    let benchmarks = &analysis.table.benchmarks;
    let own = || benchmarks.iter().find(|b| b.name == name)?.group.as_deref();
    whole.or_else(own)
}

fn draw_cell(
    drawing: &mut Drawing,
    place: super::super::drawing::Point,
    cell: f64,
    analysis: &Analysis,
    (i, j): (usize, usize),
) {
    let matrix = &analysis.correlations;
    let (one, other) = (&matrix.names[i], &matrix.names[j]);
    let style = |paint| Style::fill(paint).outlined(Paint::Paper, 1.0);
    let Some(r) = matrix.values[i][j] else {
        let hover = format!(
            "{one} and {other}: not defined over {} models",
            matrix.pairs[i][j]
        );
        drawing.rect(place, cell, cell, style(Paint::Band), Some(hover));
        return;
    };
    let colour = diverging(r);
    let spearman = analysis.rank_correlations.values[i][j];
    let spearman = spearman.map_or_else(String::new, |rho| format!(", of ranks {rho:.2}"));
    let hover = format!(
        "{one} and {other}: r = {r:.2}{spearman}, {} models",
        matrix.pairs[i][j]
    );
    drawing.rect(place, cell, cell, style(Paint::Fixed(colour)), Some(hover));
    if cell >= 26.0 {
        let label = if i == j {
            "1".into()
        } else {
            format!("{r:.2}").replacen("0.", ".", 1)
        };
        let middle = at(place.x + cell / 2.0, place.y + cell / 2.0 + 4.0);
        let size = (cell * 0.3).clamp(10.0, 13.0);
        drawing.text(
            Text::new(middle, label)
                .middle()
                .paint(readable_on(colour))
                .size(size),
        );
    }
}

/// Frames around neighbours of one cluster.
fn outline_clusters(
    drawing: &mut Drawing,
    structure: &Structure,
    names: &[String],
    order: &[usize],
    (left, top, cell): (f64, f64, f64),
) {
    let cluster = |i: usize| {
        let place = structure
            .benchmarks
            .iter()
            .position(|name| *name == names[i])?;
        structure.linkage.get(place).copied()
    };
    let mut start = 0;
    while start < order.len() {
        let mine = cluster(order[start]);
        let same = order[start..].iter().take_while(|&&i| cluster(i) == mine);
        let n = same.count().max(1);
        if mine.is_some() {
            let (x, y) = (left + cell * start as f64, top + cell * start as f64);
            let side = cell * n as f64;
            drawing.rect(at(x, y), side, side, Style::stroke(Paint::Ink, 2.0), None);
        }
        start += n;
    }
}

fn colour_bar(drawing: &mut Drawing, left: f64, top: f64) {
    const STEPS: u32 = 60;
    const LENGTH: f64 = 300.0;
    let step = LENGTH / f64::from(STEPS);
    for i in 0..STEPS {
        let value = (f64::from(i) + 0.5) / f64::from(STEPS) * 2.0 - 1.0;
        let style = Style::fill(Paint::Fixed(diverging(value)));
        // A little wider, so that no paper shines through between two steps.
        drawing.rect(
            at(left + step * f64::from(i), top),
            step + 0.4,
            10.0,
            style,
            None,
        );
    }
    for (part, label) in [(0.0, "-1"), (0.5, "0"), (1.0, "r = 1")] {
        let place = at(left + LENGTH * part, top + 24.0);
        let label = Text::new(place, label).soft().size(12.0);
        drawing.text(if part == 0.0 { label } else { label.middle() });
    }
}

fn data(analysis: &Analysis, order: &[usize]) -> DataTable {
    let matrix = &analysis.correlations;
    let mut data = DataTable::new(&["benchmark"]);
    data.columns
        .extend(order.iter().map(|&i| matrix.names[i].clone()));
    for &i in order {
        let mut row = vec![Cell::from(&matrix.names[i])];
        row.extend(order.iter().map(|&j| Cell::from(matrix.values[i][j])));
        data.rows.push(row);
    }
    data
}
