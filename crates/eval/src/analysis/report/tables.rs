//! The tables of the page. A click on a heading sorts by it.

use std::fmt::Write;

use super::page::thousands;
use super::svg::escape;
use crate::Vision;
use crate::analysis::Analysis;
use crate::analysis::agreement::Agreement;
use crate::analysis::compare::p_value;
use crate::analysis::ranking::Ranking;
use crate::analysis::structure::Structure;

/// A table that sorts: each heading with whether its column holds numbers.
fn sortable(class: &str, headings: &[(String, bool)], rows: &[Vec<String>]) -> String {
    let mut out = format!("<div class=\"wide {class}\"><table class=\"sortable\">\n<thead><tr>");
    for (heading, number) in headings {
        let class = if *number { " class=\"n\"" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(out, "<th{class}><button>{}</button></th>", escape(heading));
    }
    out += "</tr></thead>\n<tbody>\n";
    for row in rows {
        out += "<tr>";
        for (cell, (_, number)) in row.iter().zip(headings) {
            let class = if *number { " class=\"n\"" } else { "" };
            let _ = write!(out, "<td{class}>{}</td>", escape(cell));
        }
        out += "</tr>\n";
    }
    out + "</tbody>\n</table></div>\n"
}

fn text(heading: &str) -> (String, bool) {
    (heading.to_owned(), false)
}

fn number(heading: impl Into<String>) -> (String, bool) {
    (heading.into(), true)
}

fn digits(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

/// Averages and ranks, overall and in each group.
pub(super) fn ranking(ranking: &Ranking) -> String {
    let mut headings = vec![
        text("model"),
        number("average"),
        number("rank"),
        text("95 %"),
    ];
    for group in &ranking.groups {
        headings.push(number(group.clone()));
        headings.push(number("rank"));
    }
    let rows: Vec<Vec<String>> = ranking
        .models
        .iter()
        .map(|model| {
            let (best, worst) = model.rank_interval;
            let mut row = vec![
                model.name.clone(),
                format!("{:.1}", model.average),
                model.rank.to_string(),
                format!("{best}–{worst}"),
            ];
            for (average, rank) in model.group_averages.iter().zip(&model.group_ranks) {
                row.push(digits(*average, 1));
                row.push(rank.map_or_else(String::new, |rank| rank.to_string()));
            }
            row
        })
        .collect();
    format!(
        "<details><summary>All averages and ranks</summary>\n{}</details>\n",
        sortable("", &headings, &rows)
    )
}

/// Where each benchmark belongs by name and by the data, and how far these agree.
pub(super) fn groups_and_clusters(structure: &Structure) -> String {
    let headings = [
        text("benchmark"),
        text("group"),
        number("k-means"),
        number("average linkage"),
        number("questions"),
    ];
    let rows: Vec<Vec<String>> = (0..structure.benchmarks.len())
        .map(|i| {
            vec![
                structure.benchmarks[i].clone(),
                structure.groups[i].clone().unwrap_or_default(),
                (structure.k_means.labels[i] + 1).to_string(),
                (structure.linkage[i] + 1).to_string(),
                structure.questions[i].map_or_else(String::new, thousands),
            ]
        })
        .collect();
    let mut out = String::from("<h3>Groups beside clusters</h3>\n");
    if let Some(comparison) = &structure.comparison {
        let agreement = |name: &str, found: &Agreement| {
            vec![
                name.to_owned(),
                format!("{:.0} %", 100.0 * found.matched),
                format!("{:.0} %", 100.0 * found.matched_by_chance),
                format!("{:.2}", found.adjusted_rand),
                p_value(found.p).replace("p ", "").replace("= ", ""),
            ]
        };
        let headings = [
            text("computed clusters"),
            number("benchmarks in matching groups"),
            number("by chance"),
            number("adjusted Rand index"),
            number("p"),
        ];
        let rows = [
            agreement("k-means", &comparison.k_means),
            agreement("average linkage", &comparison.linkage),
        ];
        out += &sortable("", &headings, &rows);
    }
    out + &sortable("", &headings, &rows)
}

/// What each benchmark was judged by, and where the scores are from.
pub(super) fn runs(analysis: &Analysis) -> String {
    let headings = [
        text("benchmark"),
        text("protocol"),
        number("questions"),
        text("judged by"),
        text("data"),
        text("runs"),
    ];
    let rows: Vec<Vec<String>> = analysis
        .sources()
        .into_iter()
        .map(|source| {
            vec![
                source.benchmark,
                source.protocol,
                thousands(source.questions as u64),
                source.scorer,
                source.data,
                source.runs.join(", "),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "<p>The scores are from tables, which do not say by whose rules the answers were \
                judged.</p>\n"
            .to_owned();
    }
    let mut out = sortable("", &headings, &rows);
    let table = &analysis.table;
    if table.models.iter().any(|model| model.answers.is_empty()) {
        out += "<p>Other scores are from tables, which do not say by whose rules the answers were \
                judged.</p>\n";
    }
    if !table.cautions.is_empty() {
        out += "<p>What the runs were made with differently:</p>\n<ul>\n";
        for caution in &table.cautions {
            let _ = writeln!(out, "<li>{}</li>", escape(caution));
        }
        out += "</ul>\n";
    }
    out
}

/// Every score, in per cent, and those without pictures where there are some.
pub(super) fn scores(analysis: &Analysis) -> String {
    let table = &analysis.table;
    let mut headings = vec![text("model")];
    if !table.families().is_empty() {
        headings.push(text("family"));
    }
    let families = headings.len() > 1;
    headings.push(number("average"));
    headings.extend(table.benchmarks.iter().map(|b| number(b.name.clone())));
    let chosen = &analysis.selection.benchmarks;
    let mut rows = Vec::new();
    for (m, model) in table.models.iter().enumerate() {
        for vision in Vision::ALL {
            let scores: Vec<Option<f64>> = (0..table.benchmarks.len())
                .map(|b| table.score_with(vision, m, b))
                .collect();
            if scores.iter().all(Option::is_none) {
                continue;
            }
            let name = match vision {
                Vision::On => model.name.clone(),
                _ => format!("{}, {}", model.name, vision.heading()),
            };
            let mut row = vec![name];
            if families {
                row.push(model.family.clone().unwrap_or_default());
            }
            let complete: Option<Vec<f64>> = chosen.iter().map(|&b| scores[b]).collect();
            let average = complete
                .filter(|scores| !scores.is_empty())
                .map(|scores| scores.iter().sum::<f64>() / scores.len() as f64);
            row.push(digits(average, 1));
            row.extend(scores.into_iter().map(|score| digits(score, 1)));
            rows.push(row);
        }
    }
    format!(
        "<p>In per cent of full marks. <span class=\"screen\">A click on a heading sorts.</span></p>\n{}",
        sortable("scores", &headings, &rows)
    )
}
