//! Where rays meet solid objects.
//!
//! Every object is intersected in its own frame, where its centre is the origin and its axes are
//! the coordinate axes. All but the ring are solved in closed form; a ring would need the roots of
//! a quartic, which lose digits near its rim, so its distance function is marched instead.

use super::camera::Ray;
use super::vector::Vec3;
use crate::truth::Shape;

/// Parameters below this are the surface that the ray starts from.
const NEAREST: f64 = 1e-6;
/// How near to a ring counts as on it, in metres: less than a hundredth of a pixel.
const ON_RING: f64 = 1e-4;
/// Steps along a ray before it has passed a ring by; grazing rays only.
const RING_STEPS: usize = 96;

/// Where a ray enters an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    /// Parameter of the ray.
    pub t: f64,
    /// Unit normal, outwards, in world coordinates.
    pub normal: Vec3,
}

/// An object as geometry.
#[derive(Clone, Debug)]
pub(crate) struct Solid {
    shape: Shape,
    /// Centre of its bounding box in world coordinates.
    pub centre: Vec3,
    /// Half its extent along its own axes.
    pub half: Vec3,
    sin: f64,
    cos: f64,
    /// Radius of a ball around the centre that contains it.
    pub reach: f64,
}

impl Solid {
    /// An object with its bounding box: `extent` is width, depth, height in metres.
    pub fn new(shape: Shape, centre: [f64; 3], extent: [f64; 3], yaw: f64) -> Self {
        let half = Vec3::from(extent) * 0.5;
        let (sin, cos) = yaw.sin_cos();
        let reach = if shape == Shape::Ball {
            half.x
        } else {
            half.length()
        };
        Self {
            shape,
            centre: centre.into(),
            half,
            sin,
            cos,
            reach,
        }
    }

    /// Radius of the disc on which it meets the ground.
    pub fn contact_radius(&self) -> f64 {
        match self.shape {
            Shape::Ball => 0.35 * self.half.x,
            Shape::Cube | Shape::Pyramid => 1.1 * self.half.x,
            Shape::Cylinder | Shape::Cone | Shape::Ring => self.half.x,
        }
    }

    /// Whether light that reaches one part of it may be blocked by another.
    pub fn shades_itself(&self) -> bool {
        self.shape == Shape::Ring
    }

    /// Where the ray enters it, if it does.
    pub fn hit(&self, ray: &Ray) -> Option<Hit> {
        let origin = self.to_own_frame(ray.origin - self.centre);
        let direction = self.to_own_frame(ray.direction);
        let (t, normal) = match self.shape {
            Shape::Ball => ball(self.half.x, origin, direction),
            Shape::Cube => cube(self.half, origin, direction),
            Shape::Cylinder => cylinder(self.half, origin, direction),
            Shape::Cone => cone(self.half, origin, direction),
            Shape::Pyramid => pyramid(self.half, origin, direction),
            Shape::Ring => ring(self.half, origin, direction),
        }?;
        Some(Hit {
            t,
            normal: self.to_world(normal),
        })
    }

    /// Whether a ray with a direction of length 1 comes near enough to be worth [`Solid::hit`].
    pub fn may_block(&self, ray: &Ray) -> bool {
        let offset = self.centre - ray.origin;
        let along = offset.dot(ray.direction);
        let off_axis = offset.dot(offset) - along * along;
        along > -self.reach && off_axis < self.reach * self.reach
    }

    fn to_own_frame(&self, v: Vec3) -> Vec3 {
        Vec3::new(
            self.cos * v.x + self.sin * v.y,
            self.cos * v.y - self.sin * v.x,
            v.z,
        )
    }

    fn to_world(&self, v: Vec3) -> Vec3 {
        Vec3::new(
            self.cos * v.x - self.sin * v.y,
            self.sin * v.x + self.cos * v.y,
            v.z,
        )
    }
}

/// A parameter of the ray and the unit normal there.
type Entry = Option<(f64, Vec3)>;

/// `|o + t·d| = radius`.
fn ball(radius: f64, o: Vec3, d: Vec3) -> Entry {
    let [t, _] = roots(d.dot(d), o.dot(d), o.dot(o) - radius * radius)?;
    (t > NEAREST).then(|| (t, (o + d * t) * (1.0 / radius)))
}

fn cube(half: Vec3, o: Vec3, d: Vec3) -> Entry {
    let planes = [
        (Vec3::new(1.0, 0.0, 0.0), half.x),
        (Vec3::new(-1.0, 0.0, 0.0), half.x),
        (Vec3::new(0.0, 1.0, 0.0), half.y),
        (Vec3::new(0.0, -1.0, 0.0), half.y),
        (Vec3::new(0.0, 0.0, 1.0), half.z),
        (Vec3::new(0.0, 0.0, -1.0), half.z),
    ];
    convex(&planes, o, d)
}

/// Base at `z = -half.z`, tip at `z = half.z`. The side over the edge `x = a` goes through the tip
/// `(0, 0, c)` and `(a, ·, -c)`, so it is `2c·x + a·z = a·c`.
fn pyramid(half: Vec3, o: Vec3, d: Vec3) -> Entry {
    let side = |x: f64, y: f64, width: f64| {
        let scale = 1.0 / (2.0 * half.z).hypot(width);
        let normal = Vec3::new(2.0 * half.z * x, 2.0 * half.z * y, width) * scale;
        (normal, width * half.z * scale)
    };
    let planes = [
        side(1.0, 0.0, half.x),
        side(-1.0, 0.0, half.x),
        side(0.0, 1.0, half.y),
        side(0.0, -1.0, half.y),
        (Vec3::new(0.0, 0.0, -1.0), half.z),
    ];
    convex(&planes, o, d)
}

/// The part of space where `normal · p <= offset` for every plane: the ray is cut by one after
/// another.
fn convex(planes: &[(Vec3, f64)], o: Vec3, d: Vec3) -> Entry {
    let (mut enter, mut leave) = (f64::NEG_INFINITY, f64::INFINITY);
    let mut entered_by = Vec3::default();
    for &(normal, offset) in planes {
        let speed = normal.dot(d);
        let distance = offset - normal.dot(o);
        if speed == 0.0 {
            if distance < 0.0 {
                return None;
            }
            continue;
        }
        let t = distance / speed;
        if speed > 0.0 {
            leave = leave.min(t);
        } else if t > enter {
            (enter, entered_by) = (t, normal);
        }
    }
    (enter > NEAREST && enter < leave).then_some((enter, entered_by))
}

/// `x² + y² = radius²` between two lids.
fn cylinder(half: Vec3, o: Vec3, d: Vec3) -> Entry {
    let (low, high) = slab(half.z, o.z, d.z)?;
    let (enter, leave) = tube(half.x, o, d)?;
    let t = low.max(enter);
    if t <= NEAREST || t >= high.min(leave) {
        return None;
    }
    let normal = if low > enter {
        Vec3::new(0.0, 0.0, -d.z.signum())
    } else {
        let p = o + d * t;
        Vec3::new(p.x, p.y, 0.0) * (1.0 / half.x)
    };
    Some((t, normal))
}

/// `x² + y² = k²·(c - z)²` with `k = radius / 2c`, above its base at `z = -c`.
fn cone(half: Vec3, o: Vec3, d: Vec3) -> Entry {
    let (radius, c) = (half.x, half.z);
    let k2 = (radius / (2.0 * c)).powi(2);
    let down = c - o.z;
    let side = roots(
        d.x * d.x + d.y * d.y - k2 * d.z * d.z,
        o.x * d.x + o.y * d.y + k2 * down * d.z,
        o.x * o.x + o.y * o.y - k2 * down * down,
    )
    .into_iter()
    .flatten()
    .filter(|&t| t > NEAREST && (o.z + t * d.z).abs() <= c)
    .map(|t| {
        let p = o + d * t;
        (t, Vec3::new(p.x, p.y, k2 * (c - p.z)).unit())
    })
    .next();
    let base = (-c - o.z) / d.z;
    let on_base = o + d * base;
    if base > NEAREST
        && on_base.x * on_base.x + on_base.y * on_base.y <= radius * radius
        && side.is_none_or(|(t, _)| base < t)
    {
        return Some((base, Vec3::new(0.0, 0.0, -1.0)));
    }
    side
}

/// A lying torus that fills its bounding box; its distance function is
/// `|(|(x, y)| - R, z)| - r`.
fn ring(half: Vec3, o: Vec3, d: Vec3) -> Entry {
    let thickness = half.z;
    let radius = half.x - thickness;
    let (low, high) = slab(thickness, o.z, d.z)?;
    let (enter, leave) = tube(half.x, o, d)?;
    let mut t = low.max(enter).max(NEAREST);
    let end = high.min(leave);
    let speed = d.length();
    for _ in 0..RING_STEPS {
        if t > end {
            return None;
        }
        let p = o + d * t;
        // Not `hypot`, which takes care of overflow and five times as long.
        let from_axis = (p.x * p.x + p.y * p.y).sqrt();
        let off_core = from_axis - radius;
        let distance = (off_core * off_core + p.z * p.z).sqrt() - thickness;
        if distance < ON_RING {
            let outwards = off_core / from_axis;
            return Some((t, Vec3::new(p.x * outwards, p.y * outwards, p.z).unit()));
        }
        t += distance / speed;
    }
    None
}

/// The parameters between which `|z| <= half`.
fn slab(half: f64, o: f64, d: f64) -> Option<(f64, f64)> {
    if d == 0.0 {
        return (o.abs() <= half).then_some((f64::NEG_INFINITY, f64::INFINITY));
    }
    let (a, b) = ((-half - o) / d, (half - o) / d);
    Some((a.min(b), a.max(b)))
}

/// The parameters between which `x² + y² <= radius²`.
fn tube(radius: f64, o: Vec3, d: Vec3) -> Option<(f64, f64)> {
    let across = d.x * d.x + d.y * d.y;
    let outside = o.x * o.x + o.y * o.y - radius * radius;
    if across == 0.0 {
        return (outside <= 0.0).then_some((f64::NEG_INFINITY, f64::INFINITY));
    }
    let [enter, leave] = roots(across, o.x * d.x + o.y * d.y, outside)?;
    Some((enter, leave))
}

/// The roots of `a·t² + 2b·t + c` in ascending order.
fn roots(a: f64, b: f64, c: f64) -> Option<[f64; 2]> {
    let discriminant = b * b - a * c;
    if discriminant < 0.0 || a == 0.0 {
        return None;
    }
    let root = discriminant.sqrt();
    let (first, second) = ((-b - root) / a, (-b + root) / a);
    Some([first.min(second), first.max(second)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONG_Y: Vec3 = Vec3::new(0.0, 1.0, 0.0);

    fn towards(shape: Shape, yaw: f64, x: f64, z: f64) -> Option<Hit> {
        let solid = Solid::new(shape, [0.0, 5.0, 1.0], [2.0, 2.0, 2.0], yaw);
        solid.hit(&Ray {
            origin: Vec3::new(x, 0.0, z),
            direction: ALONG_Y,
        })
    }

    fn assert_hit(hit: Option<Hit>, t: f64, normal: [f64; 3]) {
        let hit = hit.unwrap();
        assert!((hit.t - t).abs() < 1e-3, "{hit:?}");
        assert!((hit.normal - Vec3::from(normal)).length() < 1e-3, "{hit:?}");
    }

    #[test]
    fn rays_meet_the_near_side() {
        assert_hit(towards(Shape::Ball, 0.0, 0.0, 1.0), 4.0, [0.0, -1.0, 0.0]);
        assert_hit(towards(Shape::Cube, 0.0, 0.5, 1.5), 4.0, [0.0, -1.0, 0.0]);
        assert_hit(
            towards(Shape::Cylinder, 0.0, 0.0, 1.9),
            4.0,
            [0.0, -1.0, 0.0],
        );
    }

    /// Half-way up, a cone of base radius 1 and height 2 has radius 1/2; its side rises 2 for 1.
    #[test]
    fn cone_and_pyramid_taper() {
        let slope = 1.0 / 5f64.sqrt();
        let normal = [0.0, -2.0 * slope, slope];
        assert_hit(towards(Shape::Cone, 0.0, 0.0, 1.0), 4.5, normal);
        assert_hit(towards(Shape::Pyramid, 0.0, 0.0, 1.0), 4.5, normal);
        assert!(towards(Shape::Cone, 0.0, 0.6, 1.0).is_none());
        assert!(towards(Shape::Pyramid, 0.0, 0.4, 1.9).is_none());
    }

    #[test]
    fn a_cube_on_its_edge_comes_nearer() {
        let hit = towards(Shape::Cube, std::f64::consts::FRAC_PI_4, 0.01, 1.0).unwrap();
        assert!((hit.t - (5.0 - 2f64.sqrt() + 0.01)).abs() < 1e-9);
    }

    /// A flat ring: outer radius 1, thickness 0.25 in each direction, so the hole has radius 0.5.
    #[test]
    fn one_can_look_through_a_ring() {
        let solid = Solid::new(Shape::Ring, [0.0, 0.0, 0.25], [2.0, 2.0, 0.5], 0.0);
        let from_above = |x: f64| {
            solid.hit(&Ray {
                origin: Vec3::new(x, 0.0, 3.0),
                direction: Vec3::new(0.0, 0.0, -1.0),
            })
        };
        assert!(from_above(0.0).is_none());
        assert!(from_above(0.49).is_none());
        assert_hit(from_above(0.75), 2.5, [0.0, 0.0, 1.0]);
        assert!(from_above(1.01).is_none());
    }

    #[test]
    fn nothing_behind_the_origin_is_met() {
        for shape in Shape::ALL {
            let solid = Solid::new(shape, [0.0, -5.0, 1.0], [2.0, 2.0, 1.0], 0.3);
            let ray = Ray {
                origin: Vec3::new(0.0, 0.0, 1.0),
                direction: ALONG_Y,
            };
            assert!(solid.hit(&ray).is_none(), "{shape:?}");
            assert!(!solid.may_block(&ray));
        }
    }
}
