//! Outlines of masks as polygons along the edges of pixels.

use crate::truth::Box2d;

/// The closed lines around the pixels of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outlines {
    /// One for each connected part, clockwise, corners only.
    pub parts: Vec<Vec<[u32; 2]>>,
    /// How many holes the parts have.
    pub holes: usize,
}

/// Directions, clockwise: right, down, left, up.
const STEPS: [[i64; 2]; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];

/// Walks around the pixels of `owner` in a row-major mask with rows of `width`; `bounds` is a box
/// that contains them.
///
/// Pixels that touch only at a corner are different parts.
pub(super) fn outlines(mask: &[u8], width: u32, owner: u8, bounds: &Box2d) -> Outlines {
    let mut edges = Edges::around(mask, width, owner, bounds);
    let mut found = Outlines::default();
    while let Some(line) = edges.walk() {
        if doubled_area(&line) > 0 {
            found.parts.push(line);
        } else {
            found.holes += 1;
        }
    }
    found
}

/// Twice the area inside a closed line, positive if it is walked clockwise.
fn doubled_area(line: &[[u32; 2]]) -> i64 {
    let next = line.iter().cycle().skip(1);
    line.iter()
        .zip(next)
        .map(|(a, b)| i64::from(a[0]) * i64::from(b[1]) - i64::from(b[0]) * i64::from(a[1]))
        .sum()
}

/// Edges of pixels with the object on their right-hand side.
struct Edges {
    left: i64,
    top: i64,
    /// Corners in a row.
    columns: i64,
    /// For each corner, one bit for each direction in which an edge leaves it.
    leaving: Vec<u8>,
    /// Corners before this one have no edges left.
    start: usize,
}

impl Edges {
    fn around(mask: &[u8], width: u32, owner: u8, bounds: &Box2d) -> Self {
        let (left, top) = (bounds.left as i64, bounds.top as i64);
        let (right, bottom) = (bounds.right as i64, bounds.bottom as i64);
        let columns = right - left + 1;
        let corners = columns * (bottom - top + 1);
        let mut edges = Self {
            left,
            top,
            columns,
            leaving: vec![0; usize::try_from(corners).unwrap_or(0)],
            start: 0,
        };
        let inside = |x: i64, y: i64| {
            (left..right).contains(&x)
                && (top..bottom).contains(&y)
                && mask.get((y * i64::from(width) + x) as usize) == Some(&owner)
        };
        for y in top..bottom {
            for x in left..right {
                if !inside(x, y) {
                    continue;
                }
                // The corner that the edge on each side leaves from, clockwise from the top.
                let sides = [
                    (inside(x, y - 1), [x, y]),
                    (inside(x + 1, y), [x + 1, y]),
                    (inside(x, y + 1), [x + 1, y + 1]),
                    (inside(x - 1, y), [x, y + 1]),
                ];
                for (direction, (hidden, corner)) in sides.into_iter().enumerate() {
                    if !hidden {
                        let at = edges.index(corner);
                        edges.leaving[at] |= 1 << direction;
                    }
                }
            }
        }
        edges
    }

    fn index(&self, [x, y]: [i64; 2]) -> usize {
        ((y - self.top) * self.columns + x - self.left) as usize
    }

    /// Follows edges that have not been followed yet until they close; `None` if there are none.
    fn walk(&mut self) -> Option<Vec<[u32; 2]>> {
        let found = self.leaving[self.start..]
            .iter()
            .position(|bits| *bits != 0)?;
        self.start += found;
        let at = self.start as i64;
        let mut corner = [self.left + at % self.columns, self.top + at / self.columns];
        let mut direction = self.leaving[self.start].trailing_zeros() as usize;
        let mut line = Vec::new();
        loop {
            line.push(corner.map(|axis| axis as u32));
            // Straight on for as long as no edge turns off.
            loop {
                let at = self.index(corner);
                self.leaving[at] &= !(1 << direction);
                corner = [0, 1].map(|axis| corner[axis] + STEPS[direction][axis]);
                let bits = self.leaving[self.index(corner)];
                // To the right first: around the same pixel.
                let turns = [direction + 1, direction, direction + 3].map(|turn| turn % 4);
                match turns.into_iter().find(|turn| bits >> turn & 1 == 1) {
                    Some(turn) if turn == direction => {}
                    Some(turn) => {
                        direction = turn;
                        break;
                    }
                    None => return Some(line),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mask: &[u8], width: u32) -> Outlines {
        let bounds = Box2d {
            left: 0.0,
            top: 0.0,
            right: f64::from(width),
            bottom: (mask.len() / width as usize) as f64,
        };
        outlines(mask, width, 1, &bounds)
    }

    #[test]
    fn a_rectangle_has_four_corners() {
        let found = of(&[0, 1, 1, 0, 1, 1], 3);
        assert_eq!(found.parts, [[[1, 0], [3, 0], [3, 2], [1, 2]]]);
        assert_eq!(found.holes, 0);
    }

    #[test]
    fn pixels_that_touch_at_a_corner_are_two_parts() {
        let found = of(&[1, 0, 0, 1], 2);
        let expected = [
            [[0, 0], [1, 0], [1, 1], [0, 1]],
            [[1, 1], [2, 1], [2, 2], [1, 2]],
        ];
        assert_eq!(found.parts, expected);
    }

    #[test]
    fn a_ring_has_one_part_and_one_hole() {
        let found = of(&[1, 1, 1, 1, 0, 1, 1, 1, 1], 3);
        assert_eq!(found.parts, [[[0, 0], [3, 0], [3, 3], [0, 3]]]);
        assert_eq!(found.holes, 1);
    }

    #[test]
    fn a_step_is_kept() {
        let found = of(&[1, 0, 1, 1], 2);
        assert_eq!(
            found.parts,
            [[[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [0, 2]]]
        );
    }

    #[test]
    fn nothing_has_no_outline() {
        assert_eq!(of(&[0, 0, 0, 0], 2), Outlines::default());
    }
}
