//! Omni3D: <https://github.com/facebookresearch/omni3d> (arXiv 2207.10660).
//!
//! Camera coordinates: right, down, forward, in metres, as in the rest of this crate. An object's
//! own axes are x along its width, y down and z along its depth; Omni3D calls the extent along x
//! *length*, along y *height* and along z *width*.

use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sections::Sections;
use super::{Named, Written, category_id, scene};
use crate::error::WorldError;
use crate::truth::{Box2d, Object, Picture, Scene};

/// For messages.
const WHAT: &str = "Omni3D annotations";
/// Number of this source of data; Omni3D's own are below 20.
const DATASET_ID: u32 = 100;
/// What Omni3D writes where nothing is known.
const UNKNOWN: i64 = -1;

/// An entry of `images`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(non_snake_case, reason = "the names of the format")]
pub struct Image {
    /// Number of the picture.
    pub id: u64,
    /// Number of the source.
    pub dataset_id: u32,
    /// Its file.
    pub file_path: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Intrinsic matrix.
    pub K: [[f64; 3]; 3],
    /// Quarter turns of the source.
    pub src_90_rotate: u32,
    /// Whether the source doubts it.
    pub src_flagged: bool,
}

/// An entry of `annotations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(non_snake_case, reason = "the names of the format")]
pub struct Annotation {
    /// Number of the annotation, from 1 within a file.
    pub id: u64,
    /// Number of its picture.
    pub image_id: u64,
    /// Number of the source.
    pub dataset_id: u32,
    /// Number of its class.
    pub category_id: u32,
    /// Name of its class.
    pub category_name: String,
    /// Whether the 3D box is there; always.
    pub valid3D: bool,
    /// Left, top, right, bottom of the visible pixels.
    pub bbox2D_tight: [f64; 4],
    /// The same of the projected 3D box.
    pub bbox2D_proj: [f64; 4],
    /// The same, cut off at the edges of the picture.
    pub bbox2D_trunc: [f64; 4],
    /// Corners in camera coordinates: upper left, upper right, lower right, lower left of the near
    /// face, then of the far face.
    pub bbox3D_cam: [[f64; 3]; 8],
    /// Centre in camera coordinates.
    pub center_cam: [f64; 3],
    /// Width, height, length.
    pub dimensions: [f64; 3],
    /// Rotation from the object's own axes to the camera's.
    pub R_cam: [[f64; 3]; 3],
    /// Whether it is behind the camera; never.
    pub behind_camera: bool,
    /// Share of its pixels that is visible.
    pub visibility: f64,
    /// Share of its projected box that is outside the picture.
    pub truncation: f64,
    /// Visible pixels.
    pub segmentation_pts: i64,
    /// Unknown: there is no lidar.
    pub lidar_pts: i64,
    /// 0: depth is exact.
    pub depth_error: f64,
}

/// What a file says about one picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    image: Image,
    annotations: Vec<Annotation>,
}

impl Record {
    /// Describes a picture, or nothing if it is no scene.
    pub fn of(id: u64, file_name: &str, picture: &Picture) -> Option<Self> {
        let scene = scene(picture)?;
        let annotations = scene.objects.iter();
        Some(Self {
            image: Image {
                id,
                dataset_id: DATASET_ID,
                file_path: file_name.to_owned(),
                width: scene.width,
                height: scene.height,
                K: scene.camera.intrinsics(),
                src_90_rotate: 0,
                src_flagged: false,
            },
            annotations: annotations
                .map(|object| annotation(id, scene, object))
                .collect(),
        })
    }
}

fn annotation(image_id: u64, scene: &Scene, object: &Object) -> Annotation {
    let camera = &scene.camera;
    let corners = object.corners();
    let projected = corners.iter().filter_map(|corner| camera.project(*corner));
    let projected = projected.fold(
        [
            f64::INFINITY,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NEG_INFINITY,
        ],
        |[left, top, right, bottom], [x, y]| [left.min(x), top.min(y), right.max(x), bottom.max(y)],
    );
    let (width, height) = (f64::from(scene.width), f64::from(scene.height));
    let [left, top, right, bottom] = projected;
    let inside = [
        left.clamp(0.0, width),
        top.clamp(0.0, height),
        right.clamp(0.0, width),
        bottom.clamp(0.0, height),
    ];
    let Box2d {
        left,
        top,
        right,
        bottom,
    } = object.box2d;
    let [along_x, along_y, along_z] = object.extent;
    Annotation {
        id: 0,
        image_id,
        dataset_id: DATASET_ID,
        category_id: category_id(object.shape),
        category_name: object.shape.name().to_owned(),
        valid3D: true,
        bbox2D_tight: [left, top, right, bottom],
        bbox2D_proj: projected,
        bbox2D_trunc: inside,
        bbox3D_cam: corners.map(|corner| camera.to_camera(corner)),
        center_cam: camera.to_camera(object.centre),
        dimensions: [along_y, along_z, along_x],
        R_cam: rotation(scene, object),
        behind_camera: false,
        visibility: f64::from(object.visible) / f64::from(object.covered.max(1)),
        truncation: 1.0 - area(inside) / area(projected).max(f64::MIN_POSITIVE),
        segmentation_pts: i64::from(object.visible),
        lidar_pts: UNKNOWN,
        depth_error: 0.0,
    }
}

fn area([left, top, right, bottom]: [f64; 4]) -> f64 {
    (right - left) * (bottom - top)
}

/// Columns are the object's own axes (x along its width, y down, z along its depth) in camera
/// coordinates.
fn rotation(scene: &Scene, object: &Object) -> [[f64; 3]; 3] {
    let (s, c) = object.yaw.sin_cos();
    let axes = [[c, s, 0.0], [0.0, 0.0, -1.0], [-s, c, 0.0]];
    scene
        .camera
        .rotation()
        .map(|row| axes.map(|axis| row[0] * axis[0] + row[1] * axis[1] + row[2] * axis[2]))
}

/// Writes a file record by record.
#[derive(Debug)]
pub struct Writer<W>(Sections<W, Image>);

impl<W: Write> Writer<W> {
    /// Begins a file about one split, for instance `train`.
    ///
    /// # Errors
    /// [`WorldError::Stream`] if `out` cannot be written to.
    pub fn new(out: W, split: &str) -> Result<Self, WorldError> {
        let info = json!({
            "id": DATASET_ID,
            "source": "opabinia world",
            "name": format!("opabinia world {split}"),
            "split": split,
            "version": env!("CARGO_PKG_VERSION"),
        });
        Ok(Self(Sections::begin(out, WHAT, info)?))
    }

    /// Writes what is known about one picture; annotations are numbered here.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn add(&mut self, record: Record) -> Result<(), WorldError> {
        for mut annotation in record.annotations {
            annotation.id = self.0.next_id();
            self.0.annotation(&annotation)?;
        }
        self.0.image(record.image);
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn finish(self) -> Result<Written, WorldError> {
        Ok(self.0.finish()?.1)
    }
}

/// Writes a file about all scenes among the pictures of a split.
///
/// # Errors
/// [`WorldError::Stream`] if `out` cannot be written to.
pub fn write<'a>(
    out: impl Write,
    split: &str,
    pictures: impl IntoIterator<Item = Named<'a>>,
) -> Result<Written, WorldError> {
    let mut writer = Writer::new(out, split)?;
    for (id, file_name, picture) in pictures {
        if let Some(record) = Record::of(id, file_name, picture) {
            writer.add(record)?;
        }
    }
    writer.finish()
}
