//! Which pixels an object covers, alone and among others: the z-buffer.

use crate::render::camera::corners;
use crate::render::solid::Solid;
use crate::truth::{Box2d, Camera};

/// Pixels, right and lower edges exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PixelBox {
    pub left: u32,
    pub top: u32,
    pub right: u32,
    pub bottom: u32,
}

impl PixelBox {
    /// Whether a pixel or one of its neighbours is inside.
    pub fn is_near(&self, x: u32, y: u32) -> bool {
        x + 1 >= self.left && x <= self.right && y + 1 >= self.top && y <= self.bottom
    }

    /// The smallest box around both.
    pub fn union(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    fn width(&self) -> usize {
        (self.right - self.left) as usize
    }
}

/// One object as if it were alone: the depth of each pixel that it covers.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// What its depths are for.
    pub bounds: PixelBox,
    /// Row by row, infinite where the object is not.
    depths: Vec<f64>,
    /// How many pixels it covers.
    pub covered: u32,
}

impl Layer {
    /// Casts a ray through the centre of every pixel that the object could cover.
    ///
    /// `None` unless its whole bounding box is inside the picture, at least `margin` pixels from
    /// each edge.
    pub fn cast(
        camera: &Camera,
        solid: &Solid,
        bounding: ([f64; 3], [f64; 3], f64),
        side: u32,
        margin: f64,
    ) -> Option<Self> {
        let (centre, extent, yaw) = bounding;
        let bounds = projected_box(camera, &corners(centre, extent, yaw))?;
        let last = f64::from(side) - margin;
        let inside = bounds.left >= margin
            && bounds.top >= margin
            && bounds.right <= last
            && bounds.bottom <= last;
        if !inside {
            return None;
        }
        let bounds = PixelBox {
            left: bounds.left as u32,
            top: bounds.top as u32,
            right: bounds.right.ceil() as u32,
            bottom: bounds.bottom.ceil() as u32,
        };
        let depths: Vec<f64> = (bounds.top..bounds.bottom)
            .flat_map(|y| camera.row_of_rays(y, bounds.left, bounds.right))
            .map(|(_, ray)| solid.hit(&ray).map_or(f64::INFINITY, |hit| hit.t))
            .collect();
        let covered = depths.iter().filter(|depth| depth.is_finite()).count() as u32;
        Some(Self {
            bounds,
            depths,
            covered,
        })
    }

    /// `(x, y, depth)` of the pixels that it covers.
    pub fn pixels(&self) -> impl Iterator<Item = (u32, u32, f64)> {
        let bounds = self.bounds;
        let rows = self.depths.chunks(bounds.width().max(1));
        rows.zip(bounds.top..).flat_map(move |(row, y)| {
            let row = row.iter().zip(bounds.left..);
            row.filter(|(depth, _)| depth.is_finite())
                .map(move |(depth, x)| (x, y, *depth))
        })
    }
}

/// The rectangle around projected points, in pixels; `None` if one is not in front of the camera.
pub(crate) fn projected_box(camera: &Camera, points: &[[f64; 3]]) -> Option<Box2d> {
    let mut found = Box2d {
        left: f64::INFINITY,
        top: f64::INFINITY,
        right: f64::NEG_INFINITY,
        bottom: f64::NEG_INFINITY,
    };
    for point in points {
        let [x, y] = camera.project(*point)?;
        found.left = found.left.min(x);
        found.right = found.right.max(x);
        found.top = found.top.min(y);
        found.bottom = found.bottom.max(y);
    }
    Some(found)
}

/// Layers on top of each other: at every pixel the nearest one is seen.
#[derive(Clone, Debug)]
pub(crate) struct DepthBuffer {
    side: u32,
    /// 0 for nothing, else the number of a layer, counted from 1 in the order of arrival.
    owners: Vec<u8>,
    depths: Vec<f64>,
    /// Visible pixels of each layer.
    visible: Vec<u32>,
}

impl DepthBuffer {
    /// Nothing on `side × side` pixels.
    pub fn new(side: u32) -> Self {
        let pixels = side as usize * side as usize;
        Self {
            side,
            owners: vec![0; pixels],
            depths: vec![f64::INFINITY; pixels],
            visible: Vec::new(),
        }
    }

    /// How many pixels of each layer would be visible, the new one last, if `layer` came too.
    pub fn visible_with(&self, layer: &Layer) -> Vec<u32> {
        let mut visible = self.visible.clone();
        let mut own = 0;
        for (x, y, depth) in layer.pixels() {
            let at = self.index(x, y);
            if depth < self.depths[at] {
                own += 1;
                if let Some(loser) = self.owners[at].checked_sub(1) {
                    visible[usize::from(loser)] -= 1;
                }
            }
        }
        visible.push(own);
        visible
    }

    /// Lays one more layer down.
    ///
    /// # Panics
    /// At the 256th: owners are bytes, and scenes are far smaller.
    pub fn add(&mut self, layer: &Layer) {
        self.visible = self.visible_with(layer);
        let number = u8::try_from(self.visible.len()).expect("a scene has at most 255 objects");
        for (x, y, depth) in layer.pixels() {
            let at = self.index(x, y);
            if depth < self.depths[at] {
                self.depths[at] = depth;
                self.owners[at] = number;
            }
        }
    }

    /// Visible pixels of each layer.
    pub fn visible(&self) -> &[u32] {
        &self.visible
    }

    /// Row by row: 0 for nothing, else the number of a layer, from 1.
    pub fn into_mask(self) -> Vec<u8> {
        self.owners
    }

    fn index(&self, x: u32, y: u32) -> usize {
        y as usize * self.side as usize + x as usize
    }
}

/// The tight box around each number `1..=count` of a mask with rows of `side` pixels.
///
/// A number that does not occur has a box without area at the origin.
pub(crate) fn boxes(mask: &[u8], side: u32, count: usize) -> Vec<Box2d> {
    let mut found: Vec<Option<PixelBox>> = vec![None; count];
    for (row, y) in mask.chunks(side.max(1) as usize).zip(0u32..) {
        for (owner, x) in row.iter().zip(0u32..) {
            let Some(owner) = usize::from(*owner).checked_sub(1) else {
                continue;
            };
            if let Some(slot) = found.get_mut(owner) {
                let known = slot.unwrap_or(PixelBox {
                    left: x,
                    top: y,
                    right: x + 1,
                    bottom: y + 1,
                });
                *slot = Some(PixelBox {
                    left: known.left.min(x),
                    top: known.top,
                    right: known.right.max(x + 1),
                    bottom: y + 1,
                });
            }
        }
    }
    let as_numbers = |found: Option<PixelBox>| match found {
        Some(found) => Box2d {
            left: f64::from(found.left),
            top: f64::from(found.top),
            right: f64::from(found.right),
            bottom: f64::from(found.bottom),
        },
        None => Box2d {
            left: 0.0,
            top: 0.0,
            right: 0.0,
            bottom: 0.0,
        },
    };
    found.into_iter().map(as_numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::truth::Shape;

    fn level_camera() -> Camera {
        Camera {
            focal: 64.0,
            centre: [32.0, 32.0],
            height: 1.0,
            pitch: 0.0,
        }
    }

    fn cube(x: f64, y: f64, extent: f64) -> Layer {
        let bounding = ([x, y, 1.0], [extent; 3], 0.0);
        let solid = Solid::new(Shape::Cube, bounding.0, bounding.1, bounding.2);
        Layer::cast(&level_camera(), &solid, bounding, 64, 0.0).unwrap()
    }

    /// A cube of 1 m whose near side is 4 m away covers 64/4 = 16 pixels each way.
    #[test]
    fn a_cube_covers_what_its_near_side_projects_to() {
        let layer = cube(0.0, 4.5, 1.0);
        assert_eq!(layer.covered, 16 * 16);
        let (x, y, depth) = layer.pixels().next().unwrap();
        assert_eq!((x, y), (24, 24));
        assert!((depth - 4.0).abs() < 1e-9);
    }

    #[test]
    fn the_nearer_object_wins_whatever_the_order() {
        let (near, far) = (cube(0.0, 4.5, 1.0), cube(0.0, 8.5, 3.0));
        // 3 m at 7 m distance: 27.4 pixels, of which 16 × 16 are hidden.
        for order in [[&near, &far], [&far, &near]] {
            let mut buffer = DepthBuffer::new(64);
            buffer.add(order[0]);
            buffer.add(order[1]);
            let (of_near, of_far) = if order[0].covered == near.covered {
                (0, 1)
            } else {
                (1, 0)
            };
            assert_eq!(buffer.visible()[of_near], 256);
            assert_eq!(buffer.visible()[of_far], far.covered - 256);
            assert_eq!(usize::from(buffer.into_mask()[32 * 64 + 32]), of_near + 1);
        }
    }

    #[test]
    fn what_reaches_over_the_edge_is_refused() {
        let bounding = ([2.0, 4.5, 1.0], [1.0; 3], 0.0);
        let solid = Solid::new(Shape::Cube, bounding.0, bounding.1, bounding.2);
        assert!(Layer::cast(&level_camera(), &solid, bounding, 64, 0.0).is_none());
    }

    #[test]
    fn boxes_are_tight() {
        let mask = [0, 1, 1, 0, 0, 1, 0, 0, 2];
        let found = boxes(&mask, 3, 2);
        let as_tuple = |found: Box2d| (found.left, found.top, found.right, found.bottom);
        assert_eq!(as_tuple(found[0]), (1.0, 0.0, 3.0, 2.0));
        assert_eq!(as_tuple(found[1]), (2.0, 2.0, 3.0, 3.0));
    }
}
