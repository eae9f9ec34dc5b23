//! The ranking: averages with what other questions would change, ranks with what other benchmarks
//! would change.

use super::super::data::{Cell, DataTable};
use super::super::drawing::{Drawing, Paint, Point, Style, Text, at};
use super::super::scale::{Scale, round_range};
use super::super::text;
use super::{Colours, Figure, WIDTH, name_column};
use crate::analysis::ranking::{QuestionNoise, RankedModel, Ranking};

const ROW: f64 = 22.0;
/// Models that are drawn; the table has all.
const MOST: usize = 40;

pub(super) fn figure(ranking: &Ranking, families: &Colours) -> Figure {
    let models = &ranking.models[..ranking.models.len().min(MOST)];
    let entries = families.legend(models.iter().map(|model| model.family.as_deref()));
    let mut drawing = Drawing::new(WIDTH, 0.0, "Ranking of models");
    let legend = if entries.is_empty() {
        0.0
    } else {
        drawing.legend(at(8.0, 12.0), &entries)
    };
    let top = legend + 30.0;
    let bottom = top + ROW * models.len() as f64;
    drawing.height = bottom + 44.0;
    for row in (0..models.len()).step_by(2) {
        let y = top + ROW * row as f64;
        drawing.rect(at(0.0, y), WIDTH, ROW, Style::fill(Paint::Band), None);
    }
    let left = name_column(models.iter().map(|model| model.name.as_str()), 300.0) + 66.0;
    let middle = left + (WIDTH - left) * 0.55;
    let ends = models.iter().flat_map(|model| {
        let interval = model.average_interval;
        [
            model.average,
            interval.map_or(model.average, |i| i.low),
            interval.map_or(model.average, |i| i.high),
        ]
    });
    let averages = Scale::new(round_range(ends, 5.0), (left, middle - 34.0));
    let ranks = Scale::new(
        (1.0, ranking.models.len() as f64),
        (middle + 20.0, WIDTH - 20.0),
    );
    averages.horizontal_axis(&mut drawing, top, bottom, 5);
    ranks.horizontal_axis(&mut drawing, top, bottom, 6);
    drawing.text(
        Text::new(at(ranks.at(1.0), bottom + 16.0), "1")
            .soft()
            .middle()
            .size(12.0),
    );
    heading(
        &mut drawing,
        at(f64::midpoint(left, middle - 34.0), top - 9.0),
        "average over benchmarks, per cent",
    );
    heading(
        &mut drawing,
        at(f64::midpoint(middle + 20.0, WIDTH - 20.0), top - 9.0),
        "rank",
    );
    for (row, model) in models.iter().enumerate() {
        let y = top + ROW * (row as f64 + 0.5);
        let colour = families.of(model.family.as_deref());
        let name = text::fitted(&model.name, left - 66.0, text::SIZE);
        drawing.text(
            Text::new(at(28.0, y + 4.5), model.rank.to_string())
                .end()
                .soft(),
        );
        drawing.text(Text::new(at(36.0, y + 4.5), name));
        draw_average(&mut drawing, model, y, &averages, colour);
        draw_ranks(&mut drawing, model, y, &ranks, colour);
    }
    Figure {
        name: "ranking",
        title: "Ranking of models",
        short: "Ranking",
        caption: caption(ranking, models.len()),
        drawing,
        data: data(ranking),
    }
}

fn heading(drawing: &mut Drawing, place: Point, text: &str) {
    drawing.text(Text::new(place, text).soft().middle().size(12.0));
}

fn draw_average(drawing: &mut Drawing, model: &RankedModel, y: f64, scale: &Scale, colour: Paint) {
    let mut hover = format!("{}: {:.2}", model.name, model.average);
    if let Some(interval) = model.average_interval {
        hover += &format!(
            ", 95 % {:.2} to {:.2} over questions",
            interval.low, interval.high
        );
        let (low, high) = (
            at(scale.at(interval.low), y),
            at(scale.at(interval.high), y),
        );
        drawing.line(low, high, Style::stroke(colour, 2.0));
        for end in [low, high] {
            drawing.line(
                at(end.x, y - 4.0),
                at(end.x, y + 4.0),
                Style::stroke(colour, 2.0),
            );
        }
    }
    drawing.circle(
        at(scale.at(model.average), y),
        4.5,
        Style::fill(colour),
        Some(hover),
    );
}

fn draw_ranks(drawing: &mut Drawing, model: &RankedModel, y: f64, scale: &Scale, colour: Paint) {
    let (best, worst) = model.rank_interval;
    let hover = format!(
        "{}: rank {}, {best} to {worst} in 95 % of draws of benchmarks, first in {:.0} %",
        model.name,
        model.rank,
        100.0 * model.share_first
    );
    let (from, to) = (scale.at(best as f64), scale.at(worst as f64));
    drawing.rect(
        at(from - 3.0, y - 4.0),
        to - from + 6.0,
        8.0,
        Style::fill(colour).opacity(0.3),
        Some(hover.clone()),
    );
    drawing.circle(
        at(scale.at(model.rank as f64), y),
        4.5,
        Style::fill(colour),
        Some(hover),
    );
}

fn caption(ranking: &Ranking, drawn: usize) -> String {
    let questions = match ranking.question_noise {
        Some(QuestionNoise::Resampled) => "95 % interval over resampled questions",
        Some(QuestionNoise::FromCounts) => {
            "95 % interval from the numbers of questions, as if models failed independently of each \
             other"
        }
        Some(QuestionNoise::Mixed) => {
            "95 % interval over resampled questions or, where there are none, from their numbers"
        }
        None => "no interval, because numbers of questions are missing",
    };
    let rest = match ranking.models.len() - drawn {
        0 => String::new(),
        n => format!(" The last {n} are in the table and in the files."),
    };
    format!(
        "Left: the average of all benchmarks, with {questions}. Right: the rank, with the ranks that \
         95 % of draws of the same number of benchmarks, with replacement, give.{rest}"
    )
}

fn data(ranking: &Ranking) -> DataTable {
    let mut data = DataTable::new(&[
        "model",
        "family",
        "average",
        "average_low",
        "average_high",
        "rank",
        "rank_low",
        "rank_high",
        "share_first",
        "rank_low_over_questions",
        "rank_high_over_questions",
    ]);
    for group in &ranking.groups {
        data.columns.push(group.clone());
        data.columns.push(format!("{group} rank"));
    }
    for model in &ranking.models {
        let mut row: Vec<Cell> = vec![
            (&model.name).into(),
            model.family.as_ref().into(),
            model.average.into(),
            model.average_interval.map(|i| i.low).into(),
            model.average_interval.map(|i| i.high).into(),
            model.rank.into(),
            model.rank_interval.0.into(),
            model.rank_interval.1.into(),
            model.share_first.into(),
            model.question_rank_interval.map(|i| i.0).into(),
            model.question_rank_interval.map(|i| i.1).into(),
        ];
        for (average, rank) in model.group_averages.iter().zip(&model.group_ranks) {
            row.push((*average).into());
            row.push((*rank).into());
        }
        data.rows.push(row);
    }
    data
}
