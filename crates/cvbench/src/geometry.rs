//! Boxes in a picture and solids in front of a camera.

use serde::{Deserialize, Serialize};

/// A box in pixels: columns to the right, rows down, from the upper left corner of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Box2 {
    /// Its left edge.
    pub left: f64,
    /// Its upper edge.
    pub top: f64,
    /// Its right edge.
    pub right: f64,
    /// Its lower edge.
    pub bottom: f64,
}

impl Box2 {
    /// A box of `[left, top, right, bottom]`, cut off at the edges of a picture; nothing if it is not
    /// finite or nothing of it is inside.
    #[must_use]
    pub fn within(corners: [f64; 4], width: u32, height: u32) -> Option<Self> {
        if !corners.iter().all(|value| value.is_finite()) {
            return None;
        }
        let [left, top, right, bottom] = corners;
        let (width, height) = (f64::from(width), f64::from(height));
        let inside = Self {
            left: left.clamp(0.0, width),
            top: top.clamp(0.0, height),
            right: right.clamp(0.0, width),
            bottom: bottom.clamp(0.0, height),
        };
        (inside.width() > 0.0 && inside.height() > 0.0).then_some(inside)
    }

    /// Pixels from left to right.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.right - self.left
    }

    /// Pixels from top to bottom.
    #[must_use]
    pub fn height(&self) -> f64 {
        self.bottom - self.top
    }

    /// Square pixels.
    #[must_use]
    pub fn area(&self) -> f64 {
        self.width() * self.height()
    }

    /// Column and row of the middle.
    #[must_use]
    pub fn centre(&self) -> [f64; 2] {
        [
            (self.left + self.right) / 2.0,
            (self.top + self.bottom) / 2.0,
        ]
    }

    /// What two boxes share, as a share of what they cover together: 1 for equal ones.
    #[must_use]
    pub fn overlap(&self, other: &Self) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        let shared = width.max(0.0) * height.max(0.0);
        let covered = self.area() + other.area() - shared;
        if covered > 0.0 { shared / covered } else { 0.0 }
    }

    /// `[left, top, right, bottom]`.
    #[must_use]
    pub fn corners(&self) -> [f64; 4] {
        [self.left, self.top, self.right, self.bottom]
    }
}

/// A point in metres, in the camera's frame: right, down, into the scene. The camera is the origin.
pub type Point = [f64; 3];

/// A box in space, by its eight corners.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solid {
    corners: [Point; 8],
}

impl Solid {
    /// A solid of finite corners.
    #[must_use]
    pub fn new(corners: [Point; 8]) -> Option<Self> {
        let finite = corners.iter().flatten().all(|value| value.is_finite());
        finite.then_some(Self { corners })
    }

    /// Its middle.
    #[must_use]
    pub fn centre(&self) -> Point {
        [0, 1, 2].map(|axis| self.corners.iter().map(|corner| corner[axis]).sum::<f64>() / 8.0)
    }

    /// Its corners.
    #[must_use]
    pub fn corners(&self) -> &[Point; 8] {
        &self.corners
    }

    /// Distances of its nearest and its farthest corner from the nearest of some points, in metres.
    #[must_use]
    pub fn range_from(&self, points: &[Point]) -> [f64; 2] {
        let to_nearest = |corner: &Point| {
            let distances = points.iter().map(|point| distance(corner, point));
            distances.fold(f64::INFINITY, f64::min)
        };
        let distances = self.corners.iter().map(to_nearest);
        distances.fold([f64::INFINITY, 0.0], |[near, far], distance| {
            [near.min(distance), far.max(distance)]
        })
    }
}

fn distance(a: &Point, b: &Point) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
    squares.sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_cut_off_at_the_edges() {
        let found = Box2::within([-5.0, 2.0, 8.0, 20.0], 10, 10).unwrap();
        assert_eq!(found.corners(), [0.0, 2.0, 8.0, 10.0]);
        assert_eq!((found.area(), found.centre()), (64.0, [4.0, 6.0]));
        assert!(Box2::within([11.0, 0.0, 12.0, 5.0], 10, 10).is_none());
        assert!(Box2::within([f64::NAN, 0.0, 1.0, 1.0], 10, 10).is_none());
        assert!(Box2::within([5.0, 5.0, 4.0, 6.0], 10, 10).is_none());
    }

    /// Two boxes of 4 that share 2: 2 of 6.
    #[test]
    fn overlap_is_a_share_of_the_union() {
        let at = |left: f64| Box2::within([left, 0.0, left + 2.0, 2.0], 10, 10).unwrap();
        assert!((at(0.0).overlap(&at(1.0)) - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(at(0.0).overlap(&at(0.0)), 1.0);
        assert_eq!(at(0.0).overlap(&at(5.0)), 0.0);
    }

    /// A cube of side 2 whose near face is 3 before the camera: 3 × (1, 1, 3) and (1, 1, 5).
    #[test]
    fn distances_of_a_cube() {
        let corners = [0, 1, 2, 3, 4, 5, 6, 7].map(|bits: u8| {
            let sign = |bit: u8| if bits >> bit & 1 == 0 { -1.0 } else { 1.0 };
            [sign(0), sign(1), 4.0 + sign(2)]
        });
        let cube = Solid::new(corners).unwrap();
        assert_eq!(cube.centre(), [0.0, 0.0, 4.0]);
        let [near, far] = cube.range_from(&[[0.0; 3]]);
        assert!((near - 11f64.sqrt()).abs() < 1e-12);
        assert!((far - 27f64.sqrt()).abs() < 1e-12);
        assert!(Solid::new([[f64::INFINITY; 3]; 8]).is_none());
    }
}
