//! What can go wrong with checkpoints, in words for whoever has to mend it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::dtype::Dtype;
use crate::gguf::GgufError;

/// How many entries of a long list are printed.
pub(crate) const SHOWN: usize = 10;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The path does not exist.
    #[error("no checkpoint at {}: there is no such file or folder", path.display())]
    NotFound {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A folder without weights.
    #[error(
        "no weights in {}: expected model.safetensors, model.safetensors.index.json, \
         pytorch_model.bin or a single file of one of these kinds",
        folder.display()
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder with several files that could be meant.
    #[error(
        "several weights files in {}, none with a standard name: {}; give the path of one of them",
        folder.display(),
        listed(files.iter().map(|file| file.file_name().unwrap_or(file.as_os_str()).display()))
    )]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// The candidates.
        files: Vec<PathBuf>,
    },
    /// A file of no known kind.
    #[error(
        "{} is not a weights file: expected .safetensors, .bin, .pt, .pth, .gguf or an .index.json",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The system refused to open or read a file.
    #[error("cannot read {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A broken safetensors file.
    #[error(
        "{} is not a valid safetensors file; it may be incomplete: fetch it again",
        path.display()
    )]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        source: safetensors::SafeTensorError,
    },
    /// A broken PyTorch file, or one that holds something else.
    #[error(
        "{} is not a readable PyTorch checkpoint; it may be incomplete, or hold something else",
        path.display()
    )]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        source: Box<pytorch_reader::PytorchError>,
    },
    /// A GGUF file that cannot be used.
    #[error("cannot use the GGUF file {}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: GgufError,
    },
    /// A broken index.
    #[error("{} is not a valid index of shards", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// An index names a shard that is not there.
    #[error(
        "{} names the shard `{shard}`, which is not in its folder: fetch it again",
        index.display()
    )]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The file name in the index.
        shard: String,
    },
    /// An index names a key that its shard does not hold.
    #[error(
        "{} says that the tensor `{key}` is in `{shard}`, but that file does not hold it",
        index.display()
    )]
    NotInShard {
        /// The index.
        index: PathBuf,
        /// The tensor.
        key: String,
        /// The shard.
        shard: String,
    },
    /// A tensor that does not exist.
    #[error("no tensor `{key}` in {}{}", location.display(), did_you_mean(nearest.as_deref()))]
    NoSuchTensor {
        /// The name that was asked for.
        key: String,
        /// The checkpoint.
        location: PathBuf,
        /// The most similar name.
        nearest: Option<String>,
    },
    /// A packed weight cannot be used, or a weight cannot be packed.
    #[error("the weight `{key}` in {}: {problem}", file.display())]
    Packed {
        /// Its key.
        key: String,
        /// Where it is.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A tensor whose element type cannot be loaded for the purpose.
    #[error("the tensor `{key}` in {} is {dtype}, which cannot be loaded here", file.display())]
    Dtype {
        /// The tensor.
        key: String,
        /// The file that holds it.
        file: PathBuf,
        /// Its element type.
        dtype: Dtype,
    },
    /// Rows that a tensor does not have.
    #[error("the tensor `{key}` in {} has the shape {shape:?}: not the rows asked for", file.display())]
    Rows {
        /// The tensor.
        key: String,
        /// The file that holds it.
        file: PathBuf,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Parameters that a checkpoint cannot fill.
    #[error(transparent)]
    Load(#[from] Box<LoadFailure>),
    /// The system refused to write a file.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A header or index could not be put into words; a mistake of this program.
    #[error("cannot encode the header of {}", path.display())]
    Encode {
        /// The file that was being written.
        path: PathBuf,
        /// The encoder's reason.
        source: serde_json::Error,
    },
    /// Two parameters with the same key, or parts that do not make up a whole tensor.
    #[error("cannot write the tensor `{key}`: {problem}")]
    Layout {
        /// The key in the file.
        key: String,
        /// What does not fit.
        problem: String,
    },
    /// The values of a parameter could not be read back from its device.
    #[error("cannot read the values of the parameter `{path}` from its device")]
    Device {
        /// Path in the module.
        path: String,
        /// The device's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Tensors that nobody asked for, where all were expected to be used.
    #[error(
        "{} tensors of {} were not used: {}; if that is right, add them to the ignored keys",
        keys.len(), location.display(), listed(keys.iter())
    )]
    Unused {
        /// The checkpoint.
        location: PathBuf,
        /// Their keys.
        keys: Vec<String>,
    },
}

/// All the parameters of a module that a checkpoint cannot fill.
#[derive(Debug)]
pub struct LoadFailure {
    /// The checkpoint.
    pub location: PathBuf,
    /// Parameters in the module.
    pub parameters: usize,
    /// What is wrong, in the order of the module.
    pub mismatches: Vec<Mismatch>,
}

/// One parameter that a checkpoint cannot fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Path in the module.
    pub path: String,
    /// The key it was expected under.
    pub key: String,
    /// Shape in the module.
    pub shape: Vec<usize>,
    /// What was found instead.
    pub problem: Problem,
}

/// Why a parameter cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is no such key.
    Missing {
        /// The most similar key; sought for the first ten only.
        nearest: Option<String>,
    },
    /// The tensor has another shape.
    Shape {
        /// The shape in the file.
        found: Vec<usize>,
        /// The rows of it that were wanted.
        rows: Option<std::ops::Range<usize>>,
    },
    /// The tensor is not a float.
    Dtype {
        /// The element type in the file.
        found: Dtype,
    },
    /// The file has the weight packed in a format, and another type was asked for.
    Packed {
        /// The format in the file.
        found: opabinia_nn::packed::Format,
    },
    /// The parameter is not a float: modules of this program have none of these.
    NotFloat,
}

impl std::error::Error for LoadFailure {}

impl fmt::Display for LoadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bad, all) = (self.mismatches.len(), self.parameters);
        let location = self.location.display();
        write!(
            f,
            "{bad} of {all} parameters cannot be loaded from {location}"
        )?;
        for mismatch in self.mismatches.iter().take(SHOWN) {
            write!(f, "\n  {mismatch}")?;
        }
        if bad > SHOWN {
            write!(f, "\n  and {} more", bad - SHOWN)?;
        }
        Ok(())
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path, key, shape, ..
        } = self;
        write!(f, "{path} {shape:?}: ")?;
        match &self.problem {
            Problem::Missing { nearest } => {
                write!(f, "no tensor `{key}`{}", did_you_mean(nearest.as_deref()))
            }
            Problem::Shape { found, rows: None } => {
                write!(f, "the tensor `{key}` has the shape {found:?}")
            }
            Problem::Shape {
                found,
                rows: Some(rows),
            } => write!(
                f,
                "the tensor `{key}` has the shape {found:?}, wanted its rows {}..{}",
                rows.start, rows.end
            ),
            Problem::Dtype { found } => {
                write!(f, "the tensor `{key}` is {found}, wanted a float type")
            }
            Problem::Packed { found } => write!(
                f,
                "the file has it packed as {}, which cannot become another type; \
                 `--dtype stored` takes it as it is",
                found.name()
            ),
            Problem::NotFloat => f.write_str("only float parameters can be loaded"),
        }
    }
}

/// `a, b, c and 7 more`.
pub(crate) fn listed<T: fmt::Display>(items: impl ExactSizeIterator<Item = T>) -> String {
    let more = items.len().saturating_sub(SHOWN);
    let shown: Vec<String> = items.take(SHOWN).map(|item| item.to_string()).collect();
    let shown = shown.join(", ");
    if more > 0 {
        format!("{shown} and {more} more")
    } else {
        shown
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!(" (the nearest is `{key}`)"))
}
