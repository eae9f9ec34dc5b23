//! Curves of runs beside each other, as SVG or pixels.
//!
//! A run's own figures are noisy, so they are drawn faintly with their running mean on top. A run
//! that shipped with the program can be drawn as a band: its running mean plus and minus one
//! standard deviation, which is what a healthy run of the same recipe should stay within.

use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::TrainError;
use crate::engine::record::StepRecord;
use crate::engine::run_folder::read_log;

/// Width and height of a plot in pixels.
pub const SIZE: (u32, u32) = (1000, 600);

/// Colours that people with any colour vision can tell apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// What the horizontal axis counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Axis {
    /// Optimizer steps.
    #[default]
    Steps,
    /// Samples seen.
    Samples,
    /// Tokens through the language model.
    Tokens,
    /// Minutes of training.
    Minutes,
}

impl Axis {
    /// What stands under the axis.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Samples => "samples",
            Self::Tokens => "tokens",
            Self::Minutes => "minutes",
        }
    }

    /// How far a step goes.
    fn advance(self, record: &StepRecord) -> f64 {
        match self {
            Self::Steps => 1.0,
            Self::Samples => record.samples as f64,
            Self::Tokens => record.tokens as f64,
            Self::Minutes => record.seconds / 60.0,
        }
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// Its log.
    pub records: Vec<StepRecord>,
}

impl Curve {
    /// Reads the logs of runs; each is called by as many of the last folders of its path as tell it
    /// from the others.
    ///
    /// # Errors
    /// If there is no log, or nothing in it.
    pub fn read_all(runs: &[PathBuf]) -> Result<Vec<Self>, TrainError> {
        let curves = runs.iter().zip(labels(runs));
        curves
            .map(|(run, name)| {
                Ok(Self {
                    name,
                    ..Self::read(run)?
                })
            })
            .collect()
    }

    /// Reads the log of a run; its name is that of the folder.
    ///
    /// # Errors
    /// If there is no log, or nothing in it.
    pub fn read(run: &Path) -> Result<Self, TrainError> {
        let records = read_log(run)?;
        if records.is_empty() {
            return Err(TrainError::Refused(format!(
                "the log of {} is empty; the run has not done a step yet",
                run.display()
            )));
        }
        Ok(Self {
            name: last_folders(run, 1),
            records,
        })
    }

    /// The points of a figure: `loss`, `grad_norm`, `lr` (the largest part's) or a metric.
    fn points(&self, figure: &str, axis: Axis) -> Vec<(f64, f64)> {
        let mut points = Vec::with_capacity(self.records.len());
        for (x, record) in self.places(axis) {
            let y = match figure {
                "loss" => (record.terms > 0).then_some(record.loss),
                "grad_norm" => (record.terms > 0).then_some(record.grad_norm),
                "lr" => record.lr.values().copied().reduce(f64::max),
                other => record.metrics.get(other).copied(),
            };
            if let Some(y) = y.filter(|y| y.is_finite()) {
                points.push((x, y));
            }
        }
        points
    }

    /// Where each record stands on an axis. Logs that ship with the program are thinned: a record that
    /// follows some steps after the one before counts as many times.
    fn places(&self, axis: Axis) -> impl Iterator<Item = (f64, &StepRecord)> {
        let (mut x, mut step) = (0.0, 0);
        self.records.iter().map(move |record| {
            let steps = record.step.saturating_sub(step).max(1);
            step = record.step;
            x += axis.advance(record) * steps as f64;
            (x, record)
        })
    }

    fn validation(&self, axis: Axis) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        for (x, record) in self.places(axis) {
            if let Some(y) = record.validation.filter(|y| y.is_finite()) {
                points.push((x, y));
            }
        }
        points
    }
}

/// The end of a path.
fn last_folders(path: &Path, count: usize) -> String {
    let folders: Vec<_> = path.iter().map(|folder| folder.to_string_lossy()).collect();
    folders[folders.len().saturating_sub(count)..].join("/")
}

/// Names for folders, short and, unless the same folder is given twice, different.
fn labels(paths: &[PathBuf]) -> Vec<String> {
    let name = |path: &PathBuf| {
        let longest = path.iter().count();
        let is_alone = |&count: &usize| {
            let name = last_folders(path, count);
            let same = |other: &&PathBuf| last_folders(other, count) == name;
            paths.iter().filter(same).count() == 1
        };
        last_folders(path, (1..longest).find(is_alone).unwrap_or(longest))
    };
    paths.iter().map(name).collect()
}

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The runs.
    pub curves: Vec<Curve>,
    /// A run to compare with, drawn as a band.
    pub band: Option<Curve>,
    /// `loss`, `grad_norm`, `lr` or a metric of the task.
    pub figure: String,
    /// The horizontal axis.
    pub axis: Axis,
    /// Whether the vertical axis is logarithmic.
    pub logarithmic: bool,
}

/// A curve, ready to draw.
struct Line {
    name: String,
    raw: Vec<(f64, f64)>,
    mean: Vec<(f64, f64)>,
    deviation: Vec<f64>,
    validation: Vec<(f64, f64)>,
}

impl Line {
    fn new(curve: &Curve, comparison: &Comparison) -> Self {
        let raw = curve.points(&comparison.figure, comparison.axis);
        // A fiftieth of the run on both sides shows its course and hides its noise; a learning rate
        // has none.
        let reach = match comparison.figure.as_str() {
            "lr" => 0,
            _ => (raw.len() / 50).min(200),
        };
        let (mean, deviation) = running(&raw, reach);
        let validation = if comparison.figure == "loss" {
            curve.validation(comparison.axis)
        } else {
            Vec::new()
        };
        Self {
            name: curve.name.clone(),
            raw,
            mean,
            deviation,
            validation,
        }
    }
}

/// Mean and standard deviation of each point and its `reach` neighbours on both sides, fewer at the
/// ends; centred, so that the mean does not run behind a curve that falls.
fn running(points: &[(f64, f64)], reach: usize) -> (Vec<(f64, f64)>, Vec<f64>) {
    let mean_and_deviation = |(i, &(x, _)): (usize, &(f64, f64))| {
        let reach = reach.min(i);
        let last = (i + reach).min(points.len() - 1);
        let window = &points[i - reach..=last];
        let count = window.len() as f64;
        let mean = window.iter().map(|(_, y)| y).sum::<f64>() / count;
        let squares = window.iter().map(|(_, y)| (y - mean).powi(2));
        ((x, mean), (squares.sum::<f64>() / count).sqrt())
    };
    points.iter().enumerate().map(mean_and_deviation).unzip()
}

impl Comparison {
    /// The plot as an SVG document.
    ///
    /// # Errors
    /// If there is nothing to draw.
    pub fn svg(&self) -> Result<String, TrainError> {
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area())?;
        Ok(text)
    }

    /// The plot as RGB pixels, row-major, of [`SIZE`].
    ///
    /// # Errors
    /// If there is nothing to draw.
    pub fn pixels(&self) -> Result<Vec<u8>, TrainError> {
        let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area())?;
        Ok(pixels)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), TrainError> {
        load_font();
        let lines: Vec<Line> = self.curves.iter().map(|c| Line::new(c, self)).collect();
        let band = self.band.as_ref().map(|curve| Line::new(curve, self));
        let Some((x, y)) = ranges(lines.iter().chain(&band), self.logarithmic) else {
            return Err(TrainError::Refused(format!(
                "no run has a figure named `{}`; the logs know {}",
                self.figure,
                self.figures().join(", ")
            )));
        };
        area.fill(&WHITE).map_err(failed)?;
        let mut builder = ChartBuilder::on(area);
        builder
            .margin(18)
            .x_label_area_size(48)
            .y_label_area_size(70);
        if self.logarithmic {
            let mut chart = builder
                .build_cartesian_2d(x, y.log_scale())
                .map_err(failed)?;
            self.frame(chart.configure_mesh())?;
            draw_lines(&mut chart, &lines, band.as_ref())
        } else {
            let mut chart = builder.build_cartesian_2d(x, y).map_err(failed)?;
            self.frame(chart.configure_mesh())?;
            draw_lines(&mut chart, &lines, band.as_ref())
        }
        .map_err(failed)?;
        area.present().map_err(failed)
    }

    fn frame<'a, X, Y, B>(
        &self,
        mut mesh: plotters::chart::MeshStyle<'a, '_, X, Y, B>,
    ) -> Result<(), TrainError>
    where
        B: DrawingBackend + 'a,
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        mesh.x_desc(self.axis.title())
            .y_desc(self.figure.replace('_', " "))
            .axis_desc_style(("sans-serif", 18))
            .label_style(("sans-serif", 15))
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.1))
            .axis_style(BLACK.mix(0.5))
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| short(*y))
            .draw()
            .map_err(failed)
    }

    /// The figures that the logs have.
    #[must_use]
    pub fn figures(&self) -> Vec<String> {
        let mut names: Vec<String> = ["loss", "grad_norm", "lr"].map(String::from).into();
        for record in self.curves.iter().filter_map(|c| c.records.last()) {
            for name in record.metrics.keys() {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        names
    }
}

fn draw_lines<'a, B, X, Y>(
    chart: &mut ChartContext<'a, B, Cartesian2d<X, Y>>,
    lines: &[Line],
    band: Option<&Line>,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>>
where
    B: DrawingBackend + 'a,
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    // What lies above would be drawn along the upper edge.
    let top = chart.y_range().end;
    if let Some(band) = band {
        let grey = RGBColor(120, 120, 120);
        let upper = band
            .mean
            .iter()
            .zip(&band.deviation)
            .map(|(&(x, y), d)| (x, (y + d).min(top)));
        let lower = band
            .mean
            .iter()
            .zip(&band.deviation)
            .map(|(&(x, y), d)| (x, (y - d).max(1e-6)));
        let mut outline: Vec<_> = upper.collect();
        outline.extend(lower.rev());
        chart
            .draw_series(std::iter::once(Polygon::new(outline, grey.mix(0.25))))?
            .label(&band.name)
            .legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 22, y + 5)], grey.mix(0.35).filled())
            });
    }
    for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        let raw = line.raw.iter().copied().filter(|(_, y)| *y <= top);
        chart.draw_series(LineSeries::new(raw, colour.mix(0.2)))?;
        chart
            .draw_series(LineSeries::new(
                line.mean.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(3)));
        if !line.validation.is_empty() {
            let point = |&p: &(f64, f64)| Circle::new(p, 4, colour.filled());
            chart
                .draw_series(line.validation.iter().map(point))?
                .label(format!("{}, validation", line.name))
                .legend(move |(x, y)| Circle::new((x + 11, y), 4, colour.filled()));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(12)
        .legend_area_size(32)
        .label_font(("sans-serif", 15))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()
}

type Span = std::ops::Range<f64>;

/// The spans of both axes: all running means, and of single steps all but the highest spikes.
fn ranges<'a>(lines: impl Iterator<Item = &'a Line>, logarithmic: bool) -> Option<(Span, Span)> {
    let (mut right, mut top) = (0.0f64, f64::NEG_INFINITY);
    let mut values = Vec::new();
    for line in lines {
        top = line.mean.iter().map(|(_, y)| *y).fold(top, f64::max);
        let shown = line.raw.iter().chain(&line.validation);
        for &(x, y) in shown.filter(|(_, y)| !logarithmic || *y > 0.0) {
            right = right.max(x);
            values.push(y);
        }
    }
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let low = values[0];
    let high = values[(values.len() - 1) * 99 / 100]
        .max(top)
        .max(low + low.abs() * 1e-3 + 1e-12);
    let span = if logarithmic {
        low * 0.9..high * 1.1
    } else {
        let pad = (high - low) * 0.05;
        // An axis from zero, unless that wastes more than half of the picture.
        let bottom = if low >= 0.0 && low < high * 0.5 {
            0.0
        } else {
            low - pad
        };
        bottom..high + pad
    };
    Some((0.0..right.max(1.0), span))
}

/// A number as an axis shows it.
fn short(x: f64) -> String {
    let digits = |x: f64| {
        let text = format!("{x:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match x.abs() {
        0.0 => "0".into(),
        a if a >= 1e9 => format!("{} B", digits(x / 1e9)),
        a if a >= 1e6 => format!("{} M", digits(x / 1e6)),
        a if a >= 1e4 => format!("{} k", digits(x / 1e3)),
        a if a < 0.01 => format!("{x:.1e}"),
        _ => digits(x),
    }
}

/// Text is measured, and in pixels drawn, with a font that ships with the program.
fn load_font() {
    static FONT: &[u8] = include_bytes!("../../../assets/fonts/Roboto-Regular.ascii.ttf");
    // Registering the same font again changes nothing, and the bytes are known to be a font.
    let _ = register_font("sans-serif", FontStyle::Normal, FONT);
}

fn failed(error: impl std::fmt::Display) -> TrainError {
    TrainError::Refused(format!("could not draw the curves: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, level: f64) -> Curve {
        let record = |step: u64| StepRecord {
            loss: level + 5.0 / step as f64,
            terms: 10,
            samples: 8,
            seconds: 0.5,
            validation: step.is_multiple_of(50).then_some(level + 0.1),
            ..StepRecord::at(step)
        };
        Curve {
            name: name.into(),
            records: (1..=200).map(record).collect(),
        }
    }

    fn comparison() -> Comparison {
        Comparison {
            curves: vec![curve("first", 1.0), curve("second", 2.0)],
            band: Some(curve("shipped", 1.5)),
            figure: "loss".into(),
            axis: Axis::Steps,
            logarithmic: false,
        }
    }

    /// Every tenth record of a log says of every axis how long the run was.
    #[test]
    fn a_thinned_log_is_as_long_as_the_run() {
        let whole = curve("whole", 1.0);
        let thinned = Curve {
            name: "thinned".into(),
            records: whole.records.iter().step_by(10).cloned().collect(),
        };
        for (axis, end) in [
            (Axis::Steps, 191.0),
            (Axis::Samples, 191.0 * 8.0),
            (Axis::Minutes, 191.0 * 0.5 / 60.0),
        ] {
            let place = |curve: &Curve| {
                let mut places = curve.places(axis);
                places.find(|(_, record)| record.step == 191).unwrap().0
            };
            let (whole, thinned) = (place(&whole), place(&thinned));
            assert!((whole - end).abs() < 1e-9 && (thinned - end).abs() < 1e-9);
        }
    }

    #[test]
    fn every_curve_is_in_the_legend() {
        let svg = comparison().svg().unwrap();
        for name in ["first", "second, validation", "shipped", "steps", "loss"] {
            assert!(svg.contains(name), "{name}");
        }
    }

    #[test]
    fn pixels_are_not_blank() {
        let pixels = comparison().pixels().unwrap();
        let dark = pixels
            .chunks(3)
            .filter(|p| p.iter().all(|&v| v < 100))
            .count();
        assert!(dark > 500, "{dark} dark pixels: text is missing");
    }

    #[test]
    fn unknown_figures_name_the_known_ones() {
        let mut comparison = comparison();
        comparison.figure = "lossy".into();
        let error = comparison.svg().unwrap_err().to_string();
        assert!(error.contains("grad_norm"), "{error}");
    }

    #[test]
    fn axes_count_what_they_say() {
        let curve = curve("x", 1.0);
        assert_eq!(curve.points("loss", Axis::Samples)[1].0, 16.0);
        assert!((curve.points("loss", Axis::Minutes)[119].0 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn names_are_as_long_as_they_must_be() {
        let paths = ["runs/a/align", "runs/b/align", "instruct/", "x/y"].map(PathBuf::from);
        assert_eq!(labels(&paths), ["a/align", "b/align", "instruct", "y"]);
        let twice = ["runs/a", "runs/a"].map(PathBuf::from);
        assert_eq!(labels(&twice), ["runs/a", "runs/a"]);
    }

    #[test]
    fn the_running_mean_does_not_lag() {
        let points: Vec<_> = (0..9)
            .map(|x| (f64::from(x), 10.0 - f64::from(x)))
            .collect();
        let (mean, deviation) = running(&points, 2);
        assert_eq!(mean[..7], points[..7]);
        assert_eq!(mean[8], (8.0, 3.0));
        assert!((deviation[4] - 2f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_constant_has_no_deviation() {
        let points: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0)).collect();
        let (mean, deviation) = running(&points, 4);
        assert!(mean.iter().all(|&(_, y)| (y - 3.0).abs() < 1e-12));
        assert!(deviation.iter().all(|&d| d < 1e-6));
    }
}
