//! Where names of dots go so that they cover neither each other nor the dots.
//!
//! Each label tries places around its dot, near ones first, and takes the one that covers least; a
//! few rounds let early ones make room for late ones. With tens of labels nothing cleverer is needed.

use super::drawing::{Point, at};

/// A rectangle by its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    /// How much two areas have in common.
    pub fn overlap(&self, other: &Self) -> f64 {
        let along = |a: f64, a_size: f64, b: f64, b_size: f64| {
            ((a + a_size).min(b + b_size) - a.max(b)).max(0.0)
        };
        along(self.left, self.width, other.left, other.width)
            * along(self.top, self.height, other.top, other.height)
    }

    /// How much of it lies outside another one.
    fn outside(&self, other: &Self) -> f64 {
        (self.width * self.height - self.overlap(other)).max(0.0)
    }

    /// Its point that is nearest to a place.
    pub fn nearest(&self, place: Point) -> Point {
        at(
            place.x.clamp(self.left, self.left + self.width),
            place.y.clamp(self.top, self.top + self.height),
        )
    }
}

/// A dot that wants a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dot {
    pub centre: Point,
    pub radius: f64,
    /// Width and height of its label.
    pub label: (f64, f64),
}

impl Dot {
    fn area(&self) -> Area {
        Area {
            left: self.centre.x - self.radius,
            top: self.centre.y - self.radius,
            width: 2.0 * self.radius,
            height: 2.0 * self.radius,
        }
    }

    /// The label in one of twelve directions, so far from the dot's rim.
    fn label_at(&self, direction: usize, distance: f64) -> Area {
        let (sine, cosine) = (std::f64::consts::TAU * direction as f64 / 12.0).sin_cos();
        let (width, height) = self.label;
        let reach = self.radius + distance;
        // The label's own half size in that direction keeps its edge, not its middle, at the rim.
        let x = self.centre.x + cosine * (reach + width / 2.0);
        let y = self.centre.y + sine * (reach + height / 2.0);
        Area {
            left: x - width / 2.0,
            top: y - height / 2.0,
            width,
            height,
        }
    }
}

/// The areas of the labels of some dots within a rectangle.
pub(super) fn place(dots: &[Dot], within: Area) -> Vec<Area> {
    let mut labels: Vec<Area> = dots.iter().map(|dot| dot.label_at(0, 3.0)).collect();
    for _ in 0..4 {
        for i in 0..dots.len() {
            labels[i] = best(i, dots, &labels, &within);
        }
    }
    labels
}

fn best(i: usize, dots: &[Dot], labels: &[Area], within: &Area) -> Area {
    let mut best = (f64::INFINITY, labels[i]);
    for distance in [3.0, 10.0, 20.0, 32.0, 48.0, 70.0, 95.0] {
        // Right and left read best, then above and below, then what lies between.
        for (preference, direction) in [0, 6, 9, 3, 11, 1, 7, 5, 10, 8, 2, 4]
            .into_iter()
            .enumerate()
        {
            let area = dots[i].label_at(direction, distance);
            let others = (0..dots.len()).filter(|&j| j != i);
            let on_labels: f64 = others.map(|j| area.overlap(&labels[j])).sum();
            let on_dots: f64 = dots.iter().map(|dot| area.overlap(&dot.area())).sum();
            let cost = 50.0 * area.outside(within)
                + 20.0 * on_labels
                + 6.0 * on_dots
                + 3.0 * distance
                + preference as f64;
            if cost < best.0 {
                best = (cost, area);
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crowded_labels_do_not_overlap() {
        let within = Area {
            left: 0.0,
            top: 0.0,
            width: 400.0,
            height: 300.0,
        };
        let dots: Vec<Dot> = (0..12)
            .map(|i| Dot {
                centre: at(
                    180.0 + 7.0 * f64::from(i % 4),
                    140.0 + 6.0 * f64::from(i / 4),
                ),
                radius: 4.0,
                label: (60.0, 14.0),
            })
            .collect();
        let labels = place(&dots, within);
        for i in 0..labels.len() {
            assert!(labels[i].outside(&within) < 1e-9);
            for j in 0..i {
                assert_eq!(labels[i].overlap(&labels[j]), 0.0, "{i} {j}");
            }
        }
    }
}
