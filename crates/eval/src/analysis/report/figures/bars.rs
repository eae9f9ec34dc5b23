//! Averages of the groups: one panel for each group, one bar for each model.

use super::super::data::{Cell, DataTable};
use super::super::drawing::{Drawing, Paint, Style, Text, at};
use super::super::scale::Scale;
use super::super::text;
use super::{Colours, Figure, WIDTH, name_column};
use crate::analysis::ranking::Ranking;

const ROW: f64 = 21.0;
const TOP: f64 = 30.0;
/// Models that are drawn; the files have all.
const MOST: usize = 24;
/// Groups that fit beside each other.
const PANELS: usize = 6;

pub(super) fn figure(ranking: &Ranking, colours: &Colours) -> Option<Figure> {
    let groups = &ranking.groups[..ranking.groups.len().min(PANELS)];
    if groups.is_empty() {
        return None;
    }
    let models = &ranking.models[..ranking.models.len().min(MOST)];
    let bottom = TOP + ROW * models.len() as f64;
    let mut drawing = Drawing::new(WIDTH, bottom + 8.0, "Averages of groups");
    for row in (0..models.len()).step_by(2) {
        let y = TOP + ROW * row as f64;
        drawing.rect(at(0.0, y), WIDTH, ROW, Style::fill(Paint::Band), None);
    }
    let left = name_column(models.iter().map(|model| model.name.as_str()), 250.0) + 18.0;
    for (row, model) in models.iter().enumerate() {
        let name = text::fitted(&model.name, left - 18.0, text::SIZE);
        drawing.text(Text::new(
            at(6.0, TOP + ROW * (row as f64 + 0.5) + 4.5),
            name,
        ));
    }
    let panel = (WIDTH - left) / groups.len() as f64;
    for (place, group) in groups.iter().enumerate() {
        let start = left + panel * place as f64;
        let scale = Scale::new((0.0, 100.0), (start, start + panel - 14.0));
        let colour = colours.of(Some(group));
        let title = text::fitted(group, panel - 10.0, text::SIZE);
        drawing.text(Text::new(at(start, TOP - 10.0), title).bold());
        for (row, model) in models.iter().enumerate() {
            let Some(average) = model.group_averages.get(place).copied().flatten() else {
                continue;
            };
            let y = TOP + ROW * row as f64;
            let end = scale.at(average);
            let hover = format!("{} on {group}: {average:.1}", model.name);
            let style = Style::fill(colour).opacity(0.85);
            drawing.rect(
                at(start, y + 3.5),
                end - start,
                ROW - 7.0,
                style,
                Some(hover),
            );
            let label = Text::new(at(end + 4.0, y + ROW / 2.0 + 4.0), format!("{average:.1}"));
            drawing.text(label.size(12.0));
        }
        drawing.line(
            at(start, TOP),
            at(start, bottom),
            Style::stroke(Paint::Soft, 1.0),
        );
    }
    let more = [
        (ranking.models.len() - models.len(), "models"),
        (ranking.groups.len() - groups.len(), "groups"),
    ];
    let more = more.into_iter().filter(|(n, _)| *n > 0);
    let rest: String = more
        .map(|(n, what)| format!(" {n} more {what} are in the files."))
        .collect();
    Some(Figure {
        name: "group_averages",
        title: "Averages of groups",
        short: "Groups",
        caption: format!(
            "The plain mean of each group's benchmarks in per cent, the best models overall first; all \
             bars start at 0 and could reach 100.{rest}"
        ),
        drawing,
        data: data(ranking),
    })
}

fn data(ranking: &Ranking) -> DataTable {
    let mut data = DataTable::new(&["model", "family", "group", "average", "rank"]);
    for model in &ranking.models {
        let values = model.group_averages.iter().zip(&model.group_ranks);
        for (group, (average, rank)) in ranking.groups.iter().zip(values) {
            data.rows.push(vec![
                Cell::from(&model.name),
                model.family.as_ref().into(),
                group.into(),
                (*average).into(),
                (*rank).into(),
            ]);
        }
    }
    data
}
