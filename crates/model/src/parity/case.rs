//! Reading a case and comparing with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use opabinia_vision::VisionError;
use opabinia_weights::{LoadOptions, WeightDtype, WeightsError};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

use super::Check;
use crate::ModelError;

/// Below this, a relative deviation says nothing.
const TINY: f64 = 1e-3;

/// Why a case cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// A file or folder cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A JSON file is not what it should be.
    #[error("cannot understand `{}`", .path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The tensors of the case cannot be read.
    #[error("cannot read the tensors in `{}`: {reason}", .path.display())]
    Tensors {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A folder without cases.
    #[error("`{}` is no case and holds none: a case is a folder with a `case.json`", .path.display())]
    NoCases {
        /// Which.
        path: PathBuf,
    },
    /// A kind that nobody wrote a comparison for.
    #[error(
        "case `{case}` is of kind `{kind}`; the kinds that can be run are vision_encoder, sva, \
         projector, preprocess, conversations and model"
    )]
    Kind {
        /// Name of the folder.
        case: String,
        /// Its kind.
        kind: String,
    },
    /// The case lacks something, or contradicts itself.
    #[error("case `{case}` cannot be run: {reason}")]
    Content {
        /// Name of the folder.
        case: String,
        /// What is wrong.
        reason: String,
    },
    /// The program could not run it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An encoder could not be built or loaded.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// Weights could not be loaded.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A picture could not be loaded.
    #[error(transparent)]
    Image(#[from] opabinia_image::ImageError),
    /// A picture could not be preprocessed.
    #[error(transparent)]
    Prepare(#[from] opabinia_image::PrepareError),
}

/// How far off a value may be: `max_abs + rel · |reference|`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Tolerance {
    /// Absolute part.
    pub max_abs: f64,
    /// Relative part.
    #[serde(default)]
    pub rel: f64,
}

/// A tensor of the reference, whatever its type in the file.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f64>,
}

/// A case, opened.
pub struct Case {
    /// The folder.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// `kind` of `case.json`.
    pub kind: String,
    /// All of `case.json`.
    pub json: Value,
    /// All of `io.safetensors`; empty where there is none.
    pub tensors: BTreeMap<String, Reference>,
    /// The type of the large weights; f32 unless the case is run in a shorter one.
    pub(super) dtype: WeightDtype,
    /// Where it is computed; the CPU unless the case is run elsewhere.
    pub(super) device: Device,
    /// Names of tensors that were compared or fed in.
    used: RefCell<BTreeSet<String>>,
}

/// How far tensors may be off where weights are shorter than the reference's: the root mean square of
/// the deviations, relative to that of the reference.
///
/// Golden models are tiny and random, and nothing in them averages out: their sums have some dozens of
/// terms, and a rounding of each weight shows in full. A trained model of the usual width is several
/// times closer; `model quantize --measure` says how close.
///
/// Each is 1.5 to 2 times the largest deviation measured over all tensors of all golden cases, on
/// AVX-512 with bf16, where activations are rounded as well. That was, of parts (encoders, SVA,
/// projectors) and of whole models: f16 0.0005 and 0.0021, bf16 0.0048 and 0.023, int8 0.021 and 0.083,
/// int4 (whose parts are int8) 0.32 of whole models.
#[must_use]
pub fn reduced_tolerance(dtype: WeightDtype, extent: Extent) -> Option<f64> {
    let (part, model) = match dtype {
        WeightDtype::F32 | WeightDtype::AsStored => return None,
        WeightDtype::F16 => (0.0009, 0.004),
        WeightDtype::Bf16 | WeightDtype::PackedBf16 => (0.008, 0.04),
        WeightDtype::Int8 => (0.035, 0.14),
        WeightDtype::Int4 => (0.035, 0.5),
    };
    Some(match extent {
        Extent::Part => part,
        Extent::Model => model,
    })
}

/// How much of a model a case goes through: deviations add up on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One encoder, one connector.
    Part,
    /// From pictures and text to scores.
    Model,
}

impl Case {
    /// Reads `case.json` and `io.safetensors`.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn open(folder: &Path) -> Result<Self, CaseError> {
        let json = read_json(&folder.join("case.json"))?;
        let name = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| folder.display().to_string());
        let kind = json["kind"].as_str().unwrap_or_default().to_owned();
        let io = folder.join("io.safetensors");
        let tensors = if io.is_file() {
            read_tensors(&io)?
        } else {
            BTreeMap::new()
        };
        let used = RefCell::default();
        Ok(Self {
            folder: folder.to_owned(),
            name,
            kind,
            json,
            tensors,
            dtype: WeightDtype::F32,
            device: Device::flex(),
            used,
        })
    }

    /// How weights of encoders and connectors are loaded.
    pub(super) fn load_options(&self) -> LoadOptions {
        LoadOptions::new(self.dtype.for_encoders()).on_device(&self.device)
    }

    /// See [`reduced_tolerance`].
    pub(super) fn reduced_tolerance(&self) -> Option<f64> {
        let extent = match self.kind.as_str() {
            "model" => Extent::Model,
            _ => Extent::Part,
        };
        reduced_tolerance(self.dtype, extent)
    }

    /// The tolerance that the case states.
    ///
    /// # Errors
    /// If it states none.
    pub fn tolerance(&self) -> Result<Tolerance, CaseError> {
        Tolerance::deserialize(&self.json["tolerance"]).map_err(|source| CaseError::Json {
            path: self.folder.join("case.json"),
            source,
        })
    }

    /// A tensor of the reference.
    ///
    /// # Errors
    /// If the case has none of this name.
    pub fn tensor(&self, name: &str) -> Result<&Reference, CaseError> {
        self.used.borrow_mut().insert(name.to_owned());
        self.tensors
            .get(name)
            .ok_or_else(|| self.wrong(format!("io.safetensors has no tensor `{name}`")))
    }

    /// A tensor of the reference as input on the device of the case.
    ///
    /// # Errors
    /// If the case has none of this name, or of another rank.
    pub fn input<const D: usize>(&self, name: &str) -> Result<burn::tensor::Tensor<D>, CaseError> {
        let reference = self.tensor(name)?;
        if reference.shape.len() != D {
            let rank = reference.shape.len();
            return Err(self.wrong(format!("`{name}` has {rank} dimensions, not {D}")));
        }
        let values: Vec<f32> = reference.values.iter().map(|&v| v as f32).collect();
        let data = TensorData::new(values, reference.shape.clone());
        Ok(burn::tensor::Tensor::from_data(data, &self.device))
    }

    /// An input whose sizes are known; `None` where any will do.
    ///
    /// # Errors
    /// As [`Case::input`], and if a size is another.
    pub fn sized_input<const D: usize>(
        &self,
        name: &str,
        sizes: [Option<usize>; D],
    ) -> Result<burn::tensor::Tensor<D>, CaseError> {
        let input = self.input::<D>(name)?;
        let found = input.dims();
        let fits = found
            .iter()
            .zip(&sizes)
            .all(|(n, size)| size.is_none_or(|size| size == *n));
        if !fits || found.contains(&0) {
            let expected = sizes.map(|size| size.map_or("any".into(), |size| size.to_string()));
            let expected = expected.join(", ");
            return Err(self.wrong(format!("`{name}` is of shape {found:?}, not [{expected}]")));
        }
        Ok(input)
    }

    /// Tensors of the reference that nothing was compared with.
    pub(super) fn untouched(&self) -> Vec<String> {
        let used = self.used.borrow();
        self.tensors
            .keys()
            .filter(|name| !used.contains(*name))
            .cloned()
            .collect()
    }

    /// Another JSON file of the folder.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(&self, name: &str) -> Result<Value, CaseError> {
        read_json(&self.folder.join(name))
    }

    /// An error about this case.
    pub fn wrong(&self, reason: impl Into<String>) -> CaseError {
        CaseError::Content {
            case: self.name.clone(),
            reason: reason.into(),
        }
    }

    pub(super) fn unknown_kind(&self) -> CaseError {
        CaseError::Kind {
            case: self.name.clone(),
            kind: self.kind.clone(),
        }
    }

    /// Compares a computed tensor with the reference's of the same name.
    ///
    /// # Errors
    /// If the case has none of this name.
    pub fn compare(
        &self,
        name: &str,
        ours: &TensorData,
        tolerance: Tolerance,
    ) -> Result<Check, CaseError> {
        let reference = self.tensor(name)?;
        Ok(match self.reduced_tolerance() {
            None => compare(name, ours, reference, tolerance),
            Some(allowed) => compare_whole(name, ours, reference, allowed),
        })
    }

    /// [`compare_values`], or as a whole where weights are shorter than the reference's.
    pub(super) fn compare_list(
        &self,
        name: &str,
        ours: &[f64],
        tolerance: Tolerance,
    ) -> Result<Check, CaseError> {
        let theirs = &self.tensor(name)?.values;
        Ok(match self.reduced_tolerance() {
            None => compare_values(name, ours, theirs, tolerance),
            Some(allowed) => compare_roots(name, ours, theirs, allowed),
        })
    }
}

/// Compares as a whole, see [`reduced_tolerance`]; shapes must be equal.
fn compare_whole(name: &str, ours: &TensorData, reference: &Reference, allowed: f64) -> Check {
    let shape: Vec<usize> = ours.shape().iter().copied().collect();
    if shape != reference.shape {
        let difference = format!("shape {shape:?}, not {:?}", reference.shape);
        return mismatch(name, difference);
    }
    let ours: Vec<f64> = ours.clone().convert::<f64>().iter::<f64>().collect();
    compare_roots(name, &ours, &reference.values, allowed)
}

fn compare_roots(name: &str, ours: &[f64], theirs: &[f64], allowed: f64) -> Check {
    // For the largest deviations; it judges nothing.
    let free = Tolerance {
        max_abs: f64::INFINITY,
        rel: 0.0,
    };
    let mut check = compare_values(name, ours, theirs, free);
    if check.max_abs.is_none() {
        return check;
    }
    let root = |squares: f64| (squares / ours.len().max(1) as f64).sqrt();
    let off = root(ours.iter().zip(theirs).map(|(a, b)| (a - b).powi(2)).sum());
    let size = root(theirs.iter().map(|b| b.powi(2)).sum());
    let share = if off == 0.0 {
        0.0
    } else {
        off / size / allowed
    };
    // Written so that a NaN does not hold.
    check.holds = share <= 1.0;
    check.of_allowed = Some(if share.is_nan() { f64::INFINITY } else { share });
    check.difference = (!check.holds)
        .then(|| format!("off by {:.3} of its size, {allowed} is allowed", off / size));
    check
}

/// Compares elementwise; shapes must be equal too.
pub fn compare(
    name: &str,
    ours: &TensorData,
    reference: &Reference,
    tolerance: Tolerance,
) -> Check {
    let shape: Vec<usize> = ours.shape().iter().copied().collect();
    if shape != reference.shape {
        let difference = format!("shape {shape:?}, not {:?}", reference.shape);
        return mismatch(name, difference);
    }
    let ours: Vec<f64> = ours.clone().convert::<f64>().iter::<f64>().collect();
    compare_values(name, &ours, &reference.values, tolerance)
}

/// Compares two lists of numbers of the same length.
pub fn compare_values(name: &str, ours: &[f64], theirs: &[f64], tolerance: Tolerance) -> Check {
    if ours.len() != theirs.len() {
        return mismatch(name, format!("{} values, not {}", ours.len(), theirs.len()));
    }
    let (mut max_abs, mut max_rel, mut of_allowed) = (0f64, 0f64, 0f64);
    let mut worst = None;
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let off = (a - b).abs();
        let allowed = tolerance.max_abs + tolerance.rel * b.abs();
        // Written so that a NaN is the worst deviation of all; zero off is fine at zero tolerance.
        let share = if off == 0.0 { 0.0 } else { off / allowed };
        if share.is_nan() || share > of_allowed {
            of_allowed = if share.is_nan() { f64::INFINITY } else { share };
            worst = Some((i, *a, *b));
        }
        max_abs = if off.is_nan() {
            f64::INFINITY
        } else {
            max_abs.max(off)
        };
        if b.abs() > TINY {
            max_rel = max_rel.max(off / b.abs());
        }
    }
    let holds = of_allowed <= 1.0;
    let difference = match worst {
        Some((i, a, b)) if !holds => Some(format!("element {i} is {a}, not {b}")),
        _ => None,
    };
    Check {
        name: name.into(),
        holds,
        max_abs: Some(max_abs),
        max_rel: Some(max_rel),
        of_allowed: Some(of_allowed),
        difference,
    }
}

/// Compares things that must be equal.
pub fn equal<T: PartialEq + std::fmt::Debug>(name: &str, ours: &T, theirs: &T) -> Check {
    if ours == theirs {
        return Check {
            name: name.into(),
            holds: true,
            max_abs: None,
            max_rel: None,
            of_allowed: None,
            difference: None,
        };
    }
    let shorten = |value: &T| {
        let text = format!("{value:?}");
        let cut: String = text.chars().take(400).collect();
        if cut.len() < text.len() {
            cut + "…"
        } else {
            cut
        }
    };
    mismatch(name, format!("{}, not {}", shorten(ours), shorten(theirs)))
}

fn mismatch(name: &str, difference: String) -> Check {
    Check {
        name: name.into(),
        holds: false,
        max_abs: None,
        max_rel: None,
        of_allowed: None,
        difference: Some(difference),
    }
}

fn read_json(path: &Path) -> Result<Value, CaseError> {
    let text = std::fs::read_to_string(path).map_err(|source| CaseError::Io {
        path: path.into(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| CaseError::Json {
        path: path.into(),
        source,
    })
}

fn read_tensors(path: &Path) -> Result<BTreeMap<String, Reference>, CaseError> {
    let wrong = |reason: String| CaseError::Tensors {
        path: path.into(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|source| CaseError::Io {
        path: path.into(),
        source,
    })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let values = numbers(view.dtype(), view.data())
            .ok_or_else(|| wrong(format!("`{name}` is of type {:?}", view.dtype())))?;
        tensors.insert(
            name.to_owned(),
            Reference {
                shape: view.shape().to_vec(),
                values,
            },
        );
    }
    Ok(tensors)
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let (chunks, _) = bytes.as_chunks::<N>();
        chunks.iter().map(|chunk| value(*chunk)).collect()
    }
    Some(match dtype {
        Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => each(bytes, |[b]| f64::from(b)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOSE: Tolerance = Tolerance {
        max_abs: 0.1,
        rel: 0.1,
    };

    #[test]
    fn deviation_is_measured_in_units_of_what_is_allowed() {
        let check = compare_values("x", &[1.0, 2.2], &[1.0, 2.0], LOOSE);
        assert!(check.holds);
        assert!((check.of_allowed.unwrap() - 0.2 / 0.3).abs() < 1e-9);
        assert!(!compare_values("x", &[1.3], &[1.0], LOOSE).holds);
    }

    #[test]
    fn nan_never_holds() {
        for (ours, theirs) in [(f64::NAN, 1.0), (1.0, f64::NAN), (f64::INFINITY, 1.0)] {
            assert!(!compare_values("x", &[ours], &[theirs], LOOSE).holds);
        }
    }

    /// 3 and 4 off by 0.3 and 0.4: a tenth of the size.
    #[test]
    fn shorter_weights_are_judged_as_a_whole() {
        let check = compare_roots("x", &[3.3, 3.6], &[3.0, 4.0], 0.2);
        assert!(check.holds);
        assert!((check.of_allowed.unwrap() - 0.5).abs() < 1e-9);
        assert!(!compare_roots("x", &[3.3, 3.6], &[3.0, 4.0], 0.09).holds);
        assert!(!compare_roots("x", &[f64::NAN], &[3.0], 0.5).holds);
        assert!(!compare_roots("x", &[1.0], &[0.0], 0.5).holds);
    }

    #[test]
    fn shapes_must_be_equal() {
        let ours = TensorData::new(vec![1f32, 2.0], [2, 1]);
        let reference = Reference {
            shape: vec![1, 2],
            values: vec![1.0, 2.0],
        };
        assert!(!compare("x", &ours, &reference, LOOSE).holds);
    }
}
