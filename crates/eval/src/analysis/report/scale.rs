//! From numbers to places: axes and their ticks.

use super::drawing::{Anchor, Drawing, Paint, Style, Text, at};

/// A straight scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    /// Numbers `from.0` to `from.1` lie at places `to.0` to `to.1`.
    pub fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        // A range of nothing would divide by 0.
        let from = if from.1 > from.0 {
            from
        } else {
            (from.0 - 0.5, from.0 + 0.5)
        };
        Self { from, to }
    }

    pub fn at(&self, value: f64) -> f64 {
        let part = (value - self.from.0) / (self.from.1 - self.from.0);
        self.to.0 + part * (self.to.1 - self.to.0)
    }

    /// About so many round numbers.
    pub fn ticks(&self, about: usize) -> Vec<f64> {
        let step = round_step((self.from.1 - self.from.0) / about.max(1) as f64);
        let first = (self.from.0 / step - 1e-9).ceil() as i64;
        let last = (self.from.1 / step + 1e-9).floor() as i64;
        (first..=last).map(|i| i as f64 * step).collect()
    }

    /// Draws ticks of a horizontal axis: lines from `top` to `bottom`, numbers below.
    pub fn horizontal_axis(&self, drawing: &mut Drawing, top: f64, bottom: f64, about: usize) {
        let ticks = self.ticks(about);
        let digits = digits_of(&ticks);
        for tick in ticks {
            let x = self.at(tick);
            drawing.line(at(x, top), at(x, bottom), Style::stroke(Paint::Line, 1.0));
            let label = Text::new(at(x, bottom + 16.0), format!("{tick:.digits$}"));
            drawing.text(label.soft().middle().size(12.0));
        }
    }

    /// Draws ticks of a vertical axis: lines from `left` to `right`, numbers to the left.
    pub fn vertical_axis(&self, drawing: &mut Drawing, left: f64, right: f64, about: usize) {
        let ticks = self.ticks(about);
        let digits = digits_of(&ticks);
        for tick in ticks {
            let y = self.at(tick);
            drawing.line(at(left, y), at(right, y), Style::stroke(Paint::Line, 1.0));
            drawing.text(Text {
                anchor: Anchor::End,
                ..Text::new(at(left - 6.0, y + 4.0), format!("{tick:.digits$}"))
                    .soft()
                    .size(12.0)
            });
        }
    }
}

/// The range of some values, widened to multiples of a round number of which there are about so many
/// in it; 0 to 1 of no values.
pub(super) fn round_range(values: impl Iterator<Item = f64>, about: f64) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    if low > high {
        return (0.0, 1.0);
    }
    let step = round_step(((high - low) / about).max(1e-9));
    ((low / step).floor() * step, (high / step).ceil() * step)
}

/// The next of 1, 2, 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().map(|r| r * power);
    round
        .into_iter()
        .find(|r| *r >= step * (1.0 - 1e-9))
        .unwrap_or(step)
}

/// Digits behind the point that tell some ticks apart.
fn digits_of(ticks: &[f64]) -> usize {
    let step = match ticks {
        [first, second, ..] => second - first,
        _ => 1.0,
    };
    (-step.log10().floor()).clamp(0.0, 6.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let scale = Scale::new((0.0, 100.0), (50.0, 250.0));
        assert_eq!(scale.ticks(5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(scale.at(50.0), 150.0);
        assert_eq!(digits_of(&Scale::new((0.1, 0.5), (0.0, 1.0)).ticks(4)), 1);
        assert_eq!(round_range([12.0, 47.0].into_iter(), 5.0), (10.0, 50.0));
        assert_eq!(round_range(std::iter::empty(), 5.0), (0.0, 1.0));
        let flat = Scale::new((3.0, 3.0), (0.0, 10.0));
        assert_eq!(flat.at(3.0), 5.0);
    }
}
