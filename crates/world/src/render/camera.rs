//! The pinhole camera: points to pixels and pixels to rays.
//!
//! The camera stands at `(0, 0, height)` and looks along `+y`, turned down by `pitch`. With
//! `c = cos(pitch)`, `s = sin(pitch)` and `Z' = Z - height`, a world point `(X, Y, Z)` is
//! `(X, -s·Y - c·Z', c·Y - s·Z')` to the camera, and `(x, y, z)` falls on the pixel
//! `centre + focal · (x/z, y/z)`.

use super::vector::Vec3;
use crate::truth::{Camera, Object};

/// A half-line; `direction` need not have length 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ray {
    pub origin: Vec3,
    pub direction: Vec3,
}

impl Ray {
    pub fn at(&self, t: f64) -> Vec3 {
        self.origin + self.direction * t
    }
}

impl Camera {
    /// Its axes as rows of a matrix that turns world directions into camera directions: right,
    /// down, forward.
    pub fn rotation(&self) -> [[f64; 3]; 3] {
        let (s, c) = self.pitch.sin_cos();
        [[1.0, 0.0, 0.0], [0.0, -s, -c], [0.0, c, -s]]
    }

    /// Where a world point is to the camera: right, down, forward, in metres.
    pub fn to_camera(&self, world: [f64; 3]) -> [f64; 3] {
        let [x, y, z] = world;
        let z = z - self.height;
        self.rotation()
            .map(|axis| axis[0] * x + axis[1] * y + axis[2] * z)
    }

    /// The pixel that a world point falls on, inside the picture or not; `None` for points that are
    /// not in front of the camera.
    pub fn project(&self, world: [f64; 3]) -> Option<[f64; 2]> {
        let [x, y, z] = self.to_camera(world);
        (z > 0.0).then(|| {
            [
                self.centre[0] + self.focal * x / z,
                self.centre[1] + self.focal * y / z,
            ]
        })
    }

    /// The intrinsic matrix `K`.
    pub fn intrinsics(&self) -> [[f64; 3]; 3] {
        [
            [self.focal, 0.0, self.centre[0]],
            [0.0, self.focal, self.centre[1]],
            [0.0, 0.0, 1.0],
        ]
    }

    /// The ray through a pixel position; its direction advances camera `z` by 1, so that the ray's
    /// parameter is the depth.
    pub(crate) fn ray(&self, u: f64, v: f64) -> Ray {
        let (s, c) = self.pitch.sin_cos();
        self.ray_turned(s, c, u, v)
    }

    /// Rays through the centres of the pixels `left..right` of row `y`.
    pub(crate) fn row_of_rays(
        &self,
        y: u32,
        left: u32,
        right: u32,
    ) -> impl Iterator<Item = (u32, Ray)> {
        let (s, c) = self.pitch.sin_cos();
        (left..right).map(move |x| {
            (
                x,
                self.ray_turned(s, c, f64::from(x) + 0.5, f64::from(y) + 0.5),
            )
        })
    }

    /// [`Camera::ray`] with sine and cosine of the pitch given.
    fn ray_turned(&self, s: f64, c: f64, u: f64, v: f64) -> Ray {
        let x = (u - self.centre[0]) / self.focal;
        let y = (v - self.centre[1]) / self.focal;
        Ray {
            origin: Vec3::new(0.0, 0.0, self.height),
            direction: Vec3::new(x, c - y * s, -s - y * c),
        }
    }
}

impl Object {
    /// The corners of its 3D box in world coordinates.
    ///
    /// Seen along its own depth axis: upper left, upper right, lower right, lower left of the near
    /// face, then of the far face: the order of Omni3D (arXiv 2207.10660).
    pub fn corners(&self) -> [[f64; 3]; 8] {
        corners(self.centre, self.extent, self.yaw)
    }
}

/// The corners of a box that stands upright, in the order of [`Object::corners`].
pub(crate) fn corners(centre: [f64; 3], extent: [f64; 3], yaw: f64) -> [[f64; 3]; 8] {
    const SIDES: [[f64; 3]; 8] = [
        [-0.5, -0.5, 0.5],
        [0.5, -0.5, 0.5],
        [0.5, -0.5, -0.5],
        [-0.5, -0.5, -0.5],
        [-0.5, 0.5, 0.5],
        [0.5, 0.5, 0.5],
        [0.5, 0.5, -0.5],
        [-0.5, 0.5, -0.5],
    ];
    let (s, c) = yaw.sin_cos();
    SIDES.map(|side| {
        let (x, y) = (side[0] * extent[0], side[1] * extent[1]);
        [
            centre[0] + c * x - s * y,
            centre[1] + s * x + c * y,
            centre[2] + side[2] * extent[2],
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(pitch: f64) -> Camera {
        Camera {
            focal: 200.0,
            centre: [128.0, 128.0],
            height: 2.0,
            pitch,
        }
    }

    /// Level camera 2 m up: a point 1 m to the right, 4 m away, on the ground is at
    /// `x = 128 + 200·1/4 = 178`, `y = 128 + 200·2/4 = 228`.
    #[test]
    fn a_level_camera_projects_by_similar_triangles() {
        assert_eq!(camera(0.0).project([1.0, 4.0, 0.0]), Some([178.0, 228.0]));
        assert_eq!(camera(0.0).to_camera([1.0, 4.0, 0.0]), [1.0, 2.0, 4.0]);
        assert_eq!(camera(0.0).project([0.0, -1.0, 0.0]), None);
    }

    /// Looking down at 45°, the point 2 m ahead on the ground is on the axis, √8 m away.
    #[test]
    fn a_pitched_camera_looks_down() {
        let camera = camera(std::f64::consts::FRAC_PI_4);
        let [x, y] = camera.project([0.0, 2.0, 0.0]).unwrap();
        assert!((x - 128.0).abs() < 1e-9 && (y - 128.0).abs() < 1e-9);
        let depth = camera.to_camera([0.0, 2.0, 0.0])[2];
        assert!((depth - 8f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_ray_passes_through_what_projects_onto_its_pixel() {
        let camera = camera(0.4);
        let point = [0.7, 3.0, 0.3];
        let [u, v] = camera.project(point).unwrap();
        let depth = camera.to_camera(point)[2];
        let reached: [f64; 3] = camera.ray(u, v).at(depth).into();
        for (reached, point) in reached.iter().zip(point) {
            assert!((reached - point).abs() < 1e-12);
        }
    }

    #[test]
    fn corners_turn_with_the_object() {
        let flat = corners([0.0, 5.0, 1.0], [2.0, 4.0, 2.0], 0.0);
        assert_eq!(flat[0], [-1.0, 3.0, 2.0]);
        assert_eq!(flat[6], [1.0, 7.0, 0.0]);
        let turned = corners(
            [0.0, 0.0, 0.0],
            [2.0, 4.0, 2.0],
            std::f64::consts::FRAC_PI_2,
        );
        assert!((turned[0][0] - 2.0).abs() < 1e-12 && (turned[0][1] + 1.0).abs() < 1e-12);
    }
}
