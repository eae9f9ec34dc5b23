//! Bars and lines over a common axis.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::{FEWEST, LEAST_EM, draw_colours, has_single_extremes, write_title};
use crate::document::Page;
use crate::font::{self, Face};
use crate::render::canvas::{Align, Canvas, Pen};
use crate::truth::{Box2d, Chart, ChartKind, Colour, Mark, MarkKind};
use crate::words::Theme;

/// Largest value of an axis, step between its grid lines, and of what values are multiples.
const SCALES: [(u32, u32, u32); 4] = [(10, 2, 1), (20, 5, 1), (50, 10, 5), (100, 20, 5)];
/// Size of the numbers at the axis and at marks.
const TICK_EM: f64 = 17.0;
/// Right end of the plot.
const RIGHT: f64 = 250.0;
/// Where values are zero.
pub(super) const BOTTOM: f64 = 224.0;

/// Title, axis and names: what bars and lines have in common.
pub(super) struct Axes {
    page: Page,
    face: Face,
    names: Vec<String>,
    /// Largest value, and the step between grid lines.
    top: u32,
    step: u32,
    multiple: u32,
    /// Size of the names in pixels.
    names_em: f64,
    /// In pixels of 256: left end, and where the largest value is.
    left: f64,
    ceiling: f64,
}

impl Axes {
    /// Room for up to `count` names of a theme; fewer if they are too long.
    pub fn draw(
        rng: &mut ChaCha8Rng,
        page: Page,
        face: Face,
        theme: &Theme,
        count: usize,
        written: bool,
    ) -> Self {
        let (top, step, multiple) = *SCALES.choose(rng).expect("there are scales");
        let left = 14.0 + font::width(face, TICK_EM, &top.to_string());
        let room_for = |count: usize| (RIGHT - left) / count as f64 - 4.0;
        let fits = |name: &str, count: usize| font::width(face, LEAST_EM, name) <= room_for(count);
        let names = (FEWEST..=count)
            .rev()
            .map(|count| theme.draw_names(rng, count, |name| fits(name, count)))
            .find(|names| names.len() >= FEWEST)
            .unwrap_or_default();
        let room = room_for(names.len());
        let names_em = names
            .iter()
            .map(|name| font::fit(face, 19.0, name, room))
            .fold(19.0, f64::min);
        Self {
            names_em,
            page,
            face,
            names,
            top,
            step,
            multiple,
            left,
            ceiling: if written { 54.0 } else { 42.0 },
        }
    }

    /// Draws values and paints everything; `kind` is bars or a line.
    pub fn paint(
        mut self,
        rng: &mut ChaCha8Rng,
        theme: &Theme,
        kind: ChartKind,
        written: bool,
    ) -> (Canvas, Chart) {
        let values = draw_values(rng, self.names.len(), self.top, self.multiple);
        let colours = draw_colours(rng, kind, self.names.len(), self.page.paper);
        let title = theme.draw_title(rng);
        write_title(&mut self.page, self.face, &title);
        self.paint_grid(rng.random_bool(0.7));
        match kind {
            ChartKind::Line => self.paint_line(&values, colours[0], written),
            ChartKind::Bar | ChartKind::Pie => self.paint_bars(&values, &colours, written),
        }
        self.paint_names();
        let entries = self.names.into_iter().zip(colours).zip(values);
        let chart = Chart {
            kind,
            title,
            entries: entries
                .map(|((name, colour), value)| (name, colour, value))
                .collect(),
            top: self.top,
            written,
        };
        (self.page.canvas, chart)
    }

    /// The middle of an entry's share of the axis.
    fn x(&self, index: usize) -> f64 {
        self.left + self.slot() * (index as f64 + 0.5)
    }

    fn slot(&self) -> f64 {
        (RIGHT - self.left) / self.names.len() as f64
    }

    fn y(&self, value: u32) -> f64 {
        BOTTOM - (BOTTOM - self.ceiling) * f64::from(value) / f64::from(self.top)
    }

    /// Numbers beside the axis, and lines through the plot or only short ticks.
    fn paint_grid(&mut self, through: bool) {
        let (ink, paper, unit) = (self.page.ink, self.page.paper, self.page.unit);
        let faint: [u8; 3] =
            std::array::from_fn(|i| ((3 * u32::from(paper[i]) + u32::from(ink[i])) / 4) as u8);
        let rule = unit.max(1.0);
        let pen = Pen {
            face: self.face,
            em: TICK_EM * unit,
            colour: ink,
        };
        for value in (0..=self.top).step_by(self.step as usize) {
            let y = self.y(value) * unit;
            if through && value > 0 {
                let ends = [[self.left * unit, y], [RIGHT * unit, y]];
                self.page.canvas.line(ends[0], ends[1], rule, faint);
            }
            let ends = [[(self.left - 4.0) * unit, y], [self.left * unit, y]];
            self.page.canvas.line(ends[0], ends[1], rule, ink);
            let base = y + pen.capital_height() / 2.0;
            let at = [(self.left - 7.0) * unit, base];
            let text = value.to_string();
            self.page.canvas.write(&pen, &text, at, Align::Right);
        }
        let corner = [self.left * unit, BOTTOM * unit];
        let ends = [[corner[0], self.ceiling * unit], [RIGHT * unit, corner[1]]];
        self.page.canvas.line(corner, ends[0], 1.5 * rule, ink);
        self.page.canvas.line(corner, ends[1], 1.5 * rule, ink);
    }

    fn paint_bars(&mut self, values: &[u32], colours: &[Colour], written: bool) {
        let unit = self.page.unit;
        let half = 0.31 * self.slot();
        for (index, (value, colour)) in values.iter().zip(colours).enumerate() {
            let (x, y) = (self.x(index), self.y(*value));
            let area = Box2d {
                left: (x - half) * unit,
                top: y * unit,
                right: (x + half) * unit,
                bottom: (BOTTOM - 0.7) * unit,
            };
            let mark = self.mark(MarkKind::Bar, *colour, index, *value);
            let paint = |canvas: &mut Canvas| canvas.rectangle(area, 0.0, colour.rgb());
            self.page.canvas.mark(mark, paint);
            if written {
                self.write_value(*value, x, y - 4.0);
            }
        }
    }

    /// The mark of entry `index`.
    fn mark(&self, kind: MarkKind, colour: Colour, index: usize, value: u32) -> Mark {
        Mark {
            kind,
            colour,
            share: Some(f64::from(value) / f64::from(self.top)),
            name: self.names.get(index).cloned(),
        }
    }

    fn paint_line(&mut self, values: &[u32], colour: Colour, written: bool) {
        let unit = self.page.unit;
        let points: Vec<[f64; 2]> = values
            .iter()
            .enumerate()
            .map(|(index, value)| [self.x(index) * unit, self.y(*value) * unit])
            .collect();
        for pair in points.windows(2) {
            self.page
                .canvas
                .line(pair[0], pair[1], 3.0 * unit, colour.rgb());
        }
        for (index, (point, value)) in points.iter().zip(values).enumerate() {
            let mark = self.mark(MarkKind::Point, colour, index, *value);
            let paint = |canvas: &mut Canvas| canvas.disc(*point, 5.0 * unit, colour.rgb());
            self.page.canvas.mark(mark, paint);
        }
        if written {
            self.write_values_beside_points(values);
        }
    }

    /// Writes each value above its point, or wherever else it crosses neither the line nor another
    /// value.
    fn write_values_beside_points(&mut self, values: &[u32]) {
        let height = font::capital_height(self.face, TICK_EM);
        let points: Vec<[f64; 2]> = values
            .iter()
            .enumerate()
            .map(|(index, value)| [self.x(index), self.y(*value)])
            .collect();
        let mut taken: Vec<Box2d> = Vec::new();
        for (value, [x, y]) in values.iter().zip(points.iter().copied()) {
            let half = font::width(self.face, TICK_EM, &value.to_string()) / 2.0;
            let (above, below) = (y - 9.0, y + 9.0 + height);
            let aside = half + 4.0;
            let places = [
                [x, above],
                [x, below],
                [x - aside, above + 3.0],
                [x + aside, above + 3.0],
                [x - aside, below - 3.0],
                [x + aside, below - 3.0],
                [x + half + 8.0, y + height / 2.0],
                [x - half - 8.0, y + height / 2.0],
            ];
            let area = |[x, base]: [f64; 2]| Box2d {
                left: x - half - 1.5,
                top: base - height - 1.5,
                right: x + half + 1.5,
                bottom: base + 1.5,
            };
            let free = |place: &[f64; 2]| {
                let area = area(*place);
                area.bottom < BOTTOM - 2.0
                    && area.left > self.left + 2.0
                    && area.right < 255.0
                    && !points
                        .windows(2)
                        .any(|ends| crosses(&area, ends[0], ends[1]))
                    && taken.iter().all(|other| are_apart(&area, other))
            };
            let place = places.into_iter().find(free).unwrap_or(places[0]);
            taken.push(area(place));
            self.write_value(*value, place[0], place[1]);
        }
    }

    fn write_value(&mut self, value: u32, x: f64, base: f64) {
        let unit = self.page.unit;
        let pen = Pen {
            face: self.face,
            em: TICK_EM * unit,
            colour: self.page.ink,
        };
        let at = [x * unit, base * unit];
        self.page
            .canvas
            .write(&pen, &value.to_string(), at, Align::Centre);
    }

    fn paint_names(&mut self) {
        let unit = self.page.unit;
        let pen = Pen {
            face: self.face,
            em: self.names_em * unit,
            colour: self.page.ink,
        };
        for (index, name) in self.names.iter().enumerate() {
            let at = [self.x(index) * unit, (BOTTOM + 20.0) * unit];
            self.page.canvas.write(&pen, name, at, Align::Centre);
        }
    }
}

/// Whether two boxes have no point in common.
pub(super) fn are_apart(a: &Box2d, b: &Box2d) -> bool {
    a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top
}

/// Whether a line from `a` to `b` passes through a box: what is left of it between the box's sides,
/// one pair after the other, is not empty.
fn crosses(area: &Box2d, a: [f64; 2], b: [f64; 2]) -> bool {
    let sides = [(area.left, area.right), (area.top, area.bottom)];
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (axis, (low, high)) in sides.into_iter().enumerate() {
        let way = b[axis] - a[axis];
        if way == 0.0 {
            if a[axis] < low || a[axis] > high {
                return false;
            }
            continue;
        }
        let (t0, t1) = ((low - a[axis]) / way, (high - a[axis]) / way);
        enter = enter.max(t0.min(t1));
        leave = leave.min(t0.max(t1));
    }
    enter <= leave
}

/// Values up to `top` that use more than half of the axis, with one largest and one smallest.
fn draw_values(rng: &mut ChaCha8Rng, count: usize, top: u32, multiple: u32) -> Vec<u32> {
    loop {
        let values: Vec<u32> = (0..count)
            .map(|_| multiple * rng.random_range(1..=top / multiple))
            .collect();
        let largest = values.iter().max().copied().unwrap_or(0);
        if 2 * largest > top && has_single_extremes(&values) {
            return values;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_crosses_a_box_or_passes_it_by() {
        let area = Box2d {
            left: 10.0,
            top: 10.0,
            right: 20.0,
            bottom: 20.0,
        };
        assert!(crosses(&area, [0.0, 0.0], [30.0, 30.0]));
        assert!(crosses(&area, [15.0, 12.0], [15.0, 90.0]));
        assert!(!crosses(&area, [0.0, 15.0], [30.0, 40.0]));
        assert!(!crosses(&area, [0.0, 9.0], [30.0, 9.0]));
        assert!(!crosses(&area, [0.0, 0.0], [9.0, 9.0]));
    }
}
