//! The plots of a report.
//!
//! Each file takes a part of the analysis and gives a [`Figure`], or nothing where there is nothing to
//! draw. All are 860 pixels wide, which fits a laptop's page and is still legible when it is reduced
//! to the width of A4.

mod bars;
mod dendrogram;
mod gap_chart;
mod heat_map;
mod radar;
mod ranking_chart;
mod resolution_chart;
mod scatter;

use super::data::DataTable;
use super::drawing::{Drawing, Paint};
use super::palette::SERIES;
use crate::analysis::Analysis;

/// The width of plots.
const WIDTH: f64 = 860.0;

/// One plot.
pub(super) struct Figure {
    /// What its files are called.
    pub name: &'static str,
    /// What stands over it.
    pub title: &'static str,
    /// The same in a word or two.
    pub short: &'static str,
    /// How to read it.
    pub caption: String,
    pub drawing: Drawing,
    pub data: DataTable,
}

/// All plots that can be drawn, in the order of the page.
pub(super) fn figures(analysis: &Analysis) -> Vec<Figure> {
    let groups = analysis.table.groups();
    let colours = Colours {
        names: &groups,
        first: 0,
    };
    let families = analysis.table.families();
    let families = Colours {
        names: &families,
        first: SERIES / 2,
    };
    let structure = analysis.structure.as_ref();
    let ranking = analysis.ranking.as_ref();
    let all = [
        gap_chart::figure(&analysis.gaps, &colours),
        ranking.map(|ranking| ranking_chart::figure(ranking, &families)),
        ranking.and_then(|ranking| bars::figure(ranking, &colours)),
        ranking.and_then(|ranking| radar::figure(ranking, &families)),
        heat_map::figure(analysis, &colours),
        structure.map(|structure| scatter::figure(structure, &colours)),
        structure.map(|structure| dendrogram::figure(structure, &colours)),
        resolution_chart::figure(&analysis.resolutions, &colours),
    ];
    all.into_iter().flatten().collect()
}

/// Which colour stands for which group or family.
struct Colours<'n> {
    names: &'n [String],
    /// The first one's series.
    first: usize,
}

impl Colours<'_> {
    /// The colour of a group; grey for none.
    fn of(&self, name: Option<&str>) -> Paint {
        let place = self.names.iter().position(|n| Some(n.as_str()) == name);
        place.map_or(Paint::Soft, |place| Paint::Series(self.first + place))
    }

    /// Colours and names of those that are there.
    fn legend<'a>(&self, there: impl Iterator<Item = Option<&'a str>>) -> Vec<(Paint, String)> {
        let there: Vec<Option<&str>> = there.collect();
        self.names
            .iter()
            .filter(|name| there.contains(&Some(name.as_str())))
            .map(|name| (self.of(Some(name)), name.clone()))
            .collect()
    }
}

/// The width that the longest of some names needs, at most `most`.
fn name_column<'a>(names: impl Iterator<Item = &'a str>, most: f64) -> f64 {
    let widths = names.map(|name| super::text::width(name, super::text::SIZE, true) + 1.0);
    widths.fold(40.0, f64::max).min(most)
}
