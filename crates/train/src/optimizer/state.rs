//! The optimizer's state as a safetensors file.
//!
//! Three tensors per parameter, named as PyTorch names them: `exp_avg.NAME` and `exp_avg_sq.NAME` in
//! the parameter's shape (`f32`), and `step.NAME` (`i64`, a scalar), where `NAME` is the module path.
//! Of a parameter that moves by Muon: `momentum_buffer.NAME` and `step.NAME`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{DType, TensorData};
use opabinia_weights::{Checkpoint, FloatDtype, WeightsError};
use safetensors::tensor::{Dtype, View, serialize_to_file};

use super::{AdamWConfig, Moments, Optimizer};

const FIRST: &str = "exp_avg.";
const SECOND: &str = "exp_avg_sq.";
const MOMENTUM: &str = "momentum_buffer.";
const UPDATES: &str = "step.";

/// What can be wrong with a stored optimizer.
#[derive(Debug, thiserror::Error)]
pub enum OptimizerError {
    /// The file could not be read.
    #[error("could not read the optimizer's state")]
    Read(#[from] WeightsError),
    /// The file could not be written.
    #[error("could not write the optimizer's state to {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// The module has no such parameter.
    #[error(
        "{} has state for `{name}`, which the module does not have; is it of another model?",
        path.display()
    )]
    UnknownParameter {
        /// The file.
        path: PathBuf,
        /// The parameter's name.
        name: String,
    },
    /// The parameter has another shape.
    #[error(
        "{} has state of shape {found:?} for `{name}`, which is {expected:?}; is it of another model?",
        path.display()
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The parameter's name.
        name: String,
        /// In the file.
        found: Vec<usize>,
        /// In the module.
        expected: Vec<usize>,
    },
    /// A tensor that is no part of the state, or a count that is none.
    #[error("`{key}` in {} is not part of an optimizer's state", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its key.
        key: String,
    },
}

impl Optimizer {
    /// Writes the state; the file appears complete or not at all.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&self, path: &Path) -> Result<(), OptimizerError> {
        let entries = self.moments.iter().flat_map(|(name, state)| {
            let moment = |kind: &str, values| {
                let stored = Stored::Moment(&state.shape, values);
                (format!("{kind}{name}"), stored)
            };
            let means = match &state.second {
                Some(second) => vec![moment(FIRST, &state.first), moment(SECOND, second)],
                None => vec![moment(MOMENTUM, &state.first)],
            };
            let updates = Stored::Count(state.updates.cast_signed());
            means
                .into_iter()
                .chain([(format!("{UPDATES}{name}"), updates)])
        });
        let rules = if self.moments.values().all(|state| state.second.is_some()) {
            "AdamW"
        } else {
            "AdamW, Muon"
        };
        let metadata = HashMap::from([("optimizer".to_owned(), rules.to_owned())]);
        serialize_to_file(entries, Some(metadata), path).map_err(|source| OptimizerError::Write {
            path: path.to_path_buf(),
            source,
        })
    }

    /// Reads the state of the parameters of `module`, to the devices that they are on.
    ///
    /// # Errors
    /// If the file cannot be read, or holds state of other parameters.
    pub fn load<M: Module>(
        config: AdamWConfig,
        path: &Path,
        module: &M,
    ) -> Result<Self, OptimizerError> {
        let mut places = Places::default();
        module.visit(&mut places);
        let file = Checkpoint::open(path)?;
        let mut moments = BTreeMap::new();
        for key in file.keys() {
            let Some(name) = key.strip_prefix(UPDATES) else {
                if parameter_of(key).is_none() {
                    return Err(foreign(path, key));
                }
                continue;
            };
            let place = places
                .found
                .get(name)
                .ok_or_else(|| OptimizerError::UnknownParameter {
                    path: path.to_path_buf(),
                    name: name.to_owned(),
                })?;
            let muon = file.contains(&format!("{MOMENTUM}{name}"));
            let adamw = [FIRST, SECOND].map(|kind| format!("{kind}{name}"));
            if let Some(key) = adamw.iter().find(|key| muon && file.contains(key)) {
                return Err(foreign(path, key));
            }
            let first = if muon { MOMENTUM } else { FIRST };
            let state = Moments {
                updates: count(&file, key).ok_or_else(|| foreign(path, key))?,
                shape: place.shape.clone(),
                first: moment(&file, path, first, name, place)?,
                second: match muon {
                    true => None,
                    false => Some(moment(&file, path, SECOND, name, place)?),
                },
            };
            moments.insert(name.to_owned(), state);
        }
        match file
            .keys()
            .find(|key| parameter_of(key).is_some_and(|name| !moments.contains_key(name)))
        {
            Some(key) => Err(foreign(path, key)),
            None => Ok(Self { config, moments }),
        }
    }
}

/// The parameter that a moment belongs to.
fn parameter_of(key: &str) -> Option<&str> {
    [FIRST, SECOND, MOMENTUM]
        .into_iter()
        .find_map(|kind| key.strip_prefix(kind))
}

fn foreign(path: &Path, key: &str) -> OptimizerError {
    OptimizerError::Foreign {
        path: path.to_path_buf(),
        key: key.to_owned(),
    }
}

fn count(file: &Checkpoint, key: &str) -> Option<u64> {
    let data = file.tensor(key, None).ok()?;
    if data.dtype() != DType::I64 {
        return None;
    }
    match data.try_to_vec::<i64>().ok()?.as_slice() {
        [count] => u64::try_from(*count).ok(),
        _ => None,
    }
}

fn moment(
    file: &Checkpoint,
    path: &Path,
    kind: &str,
    name: &str,
    place: &Place,
) -> Result<Tensor<1>, OptimizerError> {
    let key = format!("{kind}{name}");
    let data = file.tensor(&key, Some(FloatDtype::F32))?;
    let found = data.shape().to_vec();
    if found != place.shape {
        return Err(OptimizerError::Shape {
            path: path.to_path_buf(),
            name: name.to_owned(),
            found,
            expected: place.shape.clone(),
        });
    }
    // Copied out of the mapped file, which may be removed while the run goes on.
    let values = data.try_to_vec::<f32>().map_err(|_| foreign(path, &key))?;
    let count = values.len();
    Ok(Tensor::from_data(
        TensorData::new(values, [count]),
        &place.device,
    ))
}

/// Where a parameter is and what it looks like.
#[derive(Debug)]
struct Place {
    shape: Vec<usize>,
    device: Device,
}

/// Finds the parameters of a module.
#[derive(Debug, Default)]
struct Places {
    path: Vec<String>,
    found: HashMap<String, Place>,
}

impl ModuleVisitor for Places {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let place = Place {
            shape: param.lazy_shape().as_slice().to_vec(),
            device: param.lazy_device().inner(),
        };
        self.found.insert(self.path.join("."), place);
    }
}

/// A tensor of the file; moments are read from their device only when they are written.
enum Stored<'a> {
    Moment(&'a [usize], &'a Tensor<1>),
    Count(i64),
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Moment(..) => Dtype::F32,
            Self::Count(_) => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Moment(shape, _) => shape,
            Self::Count(_) => &[],
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Moment(_, values) => {
                Cow::Owned((*values).clone().into_data().as_bytes().to_vec())
            }
            Self::Count(count) => Cow::Owned(count.to_le_bytes().to_vec()),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Moment(shape, _) => shape.iter().product::<usize>() * size_of::<f32>(),
            Self::Count(_) => size_of::<i64>(),
        }
    }
}
