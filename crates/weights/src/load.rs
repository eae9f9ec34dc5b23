//! Filling a module from a checkpoint.
//!
//! Two passes: the first walks the module, resolves every parameter through the key map and checks
//! its shape and type, and reports everything that is wrong at once; the second reads the data. A
//! parameter that was never initialised is replaced without being initialised, so loading costs no
//! memory beyond the weights.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId, Parameter};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use opabinia_nn::packed::{self, Format, Packed};
use regex::Regex;

use crate::checkpoint::{Checkpoint, Entry};
use crate::dtype::{FloatDtype, WeightDtype, checked_count};
use crate::error::{LoadFailure, Mismatch, Problem, SHOWN, WeightsError};
use crate::inspect::PathStack;
use crate::key_map::{FileKey, KeyMap, compiled};
use crate::report::LoadReport;

/// Called with the bytes loaded so far and the bytes to load.
type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How to load; `LoadOptions::default()` loads everything as `f32` and expects to use every key.
///
/// Only the two-dimensional `weight`s (of linear layers and embeddings) take the reduced type:
/// they are nearly all of the bytes. Norms, biases, position tables and convolutions stay `f32`,
/// where a rounding would cost accuracy and win nothing. Types that are packed apply to linear layers
/// on a CPU without gradients; there the parameter stays lazy and its layer has the bytes
/// ([`opabinia_nn::packed`]). A file that was packed before is used where it is mapped.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// The type of the two-dimensional weights.
    pub dtype: WeightDtype,
    /// Module paths that stay `f32` although they are two-dimensional weights.
    pub keep_f32: Vec<Regex>,
    /// File keys that are known not to be used: text towers, buffers.
    pub ignore: Vec<Regex>,
    /// Where the module goes first; where it is, if `None`.
    pub device: Option<Device>,
    /// Called after each tensor.
    pub progress: Option<Progress>,
}

impl LoadOptions {
    /// Options with the given type for the two-dimensional weights.
    pub fn new(dtype: WeightDtype) -> Self {
        Self {
            dtype,
            ..Self::default()
        }
    }

    /// Keeps the module paths that match in `f32`.
    ///
    /// # Panics
    /// If `pattern` is not a regular expression.
    #[must_use]
    pub fn keep_f32(mut self, pattern: &str) -> Self {
        self.keep_f32.push(compiled(pattern));
        self
    }

    /// Expects the file keys that match to be unused.
    ///
    /// # Panics
    /// If `pattern` is not a regular expression.
    #[must_use]
    pub fn ignore(mut self, pattern: &str) -> Self {
        self.ignore.push(compiled(pattern));
        self
    }

    /// Moves the module to `device` before it is loaded; parameters not initialised yet cost
    /// nothing to move.
    #[must_use]
    pub fn on_device(mut self, device: &Device) -> Self {
        self.device = Some(device.clone());
        self
    }

    /// Calls `progress` after each tensor with the bytes loaded so far and the bytes to load.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// The type for the parameter at `path`, which is stored like `entry`.
    fn target(&self, path: &str, rank: usize, entry: &Entry) -> FloatDtype {
        if rank == 2 && self.reduces(path) {
            self.dtype.for_stored(entry.dtype)
        } else {
            FloatDtype::F32
        }
    }

    /// The format that the matrix at `path` is packed in, if it is the weight of a linear layer.
    fn packing(&self, path: &str) -> Option<Format> {
        self.dtype.packing(path).filter(|_| self.reduces(path))
    }

    /// Whether a matrix at `path` takes a reduced type.
    fn reduces(&self, path: &str) -> bool {
        let is_weight = path == "weight" || path.ends_with(".weight");
        is_weight && !any_match(&self.keep_f32, path)
    }
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("dtype", &self.dtype)
            .field("keep_f32", &self.keep_f32)
            .field("ignore", &self.ignore)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// Fills every parameter of `module` from `checkpoint`.
///
/// Identities, requires-grad flags and devices of the parameters stay as they are.
///
/// # Errors
/// [`WeightsError::Load`] with every parameter that has no tensor, or one of another shape or of
/// no float type; nothing is read then. Otherwise what reading a file can give.
pub fn load_into<M: Module>(
    module: M,
    checkpoint: &Checkpoint,
    map: &KeyMap,
    options: &LoadOptions,
) -> Result<(M, LoadReport), WeightsError> {
    let start = Instant::now();
    let mut planner = Planner::new(checkpoint, map, options);
    module.visit(&mut planner);
    let plan = planner.finish()?;
    let (ignored, unused) = plan.leftovers(checkpoint, options);

    let module = match &options.device {
        Some(device) => module.fork(device),
        None => module,
    };
    let mut loader = Loader::new(checkpoint, options, plan);
    let module = module.map(&mut loader);
    let done = loader.finish()?;
    let report = LoadReport {
        location: checkpoint.location().to_path_buf(),
        tensors: done.tensors,
        parameters: done.parameters,
        bytes: done.bytes,
        ignored,
        unused,
        seconds: start.elapsed().as_secs_f64(),
    };
    tracing::debug!(location = %report.location.display(), "{report}");
    Ok((module, report))
}

fn any_match(patterns: &[Regex], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(text))
}

/// Where each parameter comes from.
#[derive(Default)]
struct Plan {
    /// By module path.
    sources: HashMap<String, Source>,
    /// By file key: the row ranges that are used, or all (`None`).
    used: BTreeMap<String, Vec<Option<Range<usize>>>>,
    /// Size in memory.
    bytes: u64,
}

struct Source {
    at: FileKey,
    target: Target,
}

/// What a parameter becomes.
enum Target {
    /// A tensor.
    Float(FloatDtype),
    /// Bytes that are packed now.
    Packed(Format),
    /// Bytes that the file has packed under this key.
    Stored(String, Format),
}

impl Plan {
    /// The keys that no parameter comes from: those that match `ignore`, and the others. Tensors
    /// of which only some rows are used are among the others.
    fn leftovers(
        &self,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
    ) -> (Vec<String>, Vec<String>) {
        let left = checkpoint.entries().iter().filter_map(|(key, entry)| {
            let rows = entry.shape.first().copied().unwrap_or(1);
            match self.used.get(key) {
                Some(used) if covers(used, rows) => None,
                _ => Some(key.clone()),
            }
        });
        left.partition(|key| any_match(&options.ignore, key))
    }
}

/// Whether the ranges (all rows if `None`) leave none of `rows` rows out.
fn covers(used: &[Option<Range<usize>>], rows: usize) -> bool {
    if used.contains(&None) {
        return true;
    }
    let mut ranges: Vec<_> = used.iter().flatten().collect();
    ranges.sort_by_key(|range| range.start);
    let mut covered = 0;
    for range in ranges {
        if range.start > covered {
            return false;
        }
        covered = covered.max(range.end);
    }
    covered >= rows
}

/// First pass: resolves and checks every parameter.
struct Planner<'a> {
    checkpoint: &'a Checkpoint,
    map: &'a KeyMap,
    options: &'a LoadOptions,
    stack: PathStack,
    plan: Plan,
    parameters: usize,
    mismatches: Vec<Mismatch>,
}

impl<'a> Planner<'a> {
    fn new(checkpoint: &'a Checkpoint, map: &'a KeyMap, options: &'a LoadOptions) -> Self {
        Self {
            checkpoint,
            map,
            options,
            stack: PathStack::default(),
            plan: Plan::default(),
            parameters: 0,
            mismatches: Vec::new(),
        }
    }

    fn finish(mut self) -> Result<Plan, WeightsError> {
        if self.mismatches.is_empty() {
            return Ok(self.plan);
        }
        // Comparing names takes a while; only those that are printed are worth it.
        for mismatch in self.mismatches.iter_mut().take(SHOWN) {
            if let Problem::Missing { nearest } = &mut mismatch.problem {
                *nearest = self
                    .checkpoint
                    .nearest(&mismatch.key, Some(&mismatch.shape));
            }
        }
        Err(WeightsError::Load(Box::new(LoadFailure {
            location: self.checkpoint.location().to_path_buf(),
            parameters: self.parameters,
            mismatches: self.mismatches,
        })))
    }

    fn add_float(&mut self, shape: Vec<usize>, packs: bool) {
        let path = self.stack.path();
        let at = self.map.file_key(&path);
        self.parameters += 1;
        if let [n, k] = *shape
            && packs
            && let Some((key, format)) = self.checkpoint.find_packed(&at, [n, k])
        {
            let wanted = self.options.packing(&path);
            if self.options.dtype != WeightDtype::AsStored && wanted != Some(format) {
                let problem = Problem::Packed { found: format };
                return self.mismatch(path, key, shape, problem);
            }
            self.plan.bytes += format.bytes([n, k]).unwrap_or(0) as u64;
            self.plan.used.entry(key.clone()).or_default().push(None);
            let target = Target::Stored(key, format);
            self.plan.sources.insert(path, Source { at, target });
            return;
        }
        match self.check(&path, &at, &shape) {
            Ok(target) => {
                let packing = self.options.packing(&path).filter(|_| packs);
                let (target, bytes) = match (packing, shape.as_slice()) {
                    (Some(format), [n, k]) => {
                        let bytes = format.bytes([*n, *k]).unwrap_or(0);
                        (Target::Packed(format), bytes)
                    }
                    _ => {
                        let bytes = checked_count(&shape).unwrap_or(0) * target.size();
                        (Target::Float(target), bytes)
                    }
                };
                self.plan.bytes += bytes as u64;
                let used = self.plan.used.entry(at.key.clone()).or_default();
                used.push(at.rows.clone());
                self.plan.sources.insert(path, Source { at, target });
            }
            Err(problem) => self.mismatch(path, at.key, shape, problem),
        }
    }

    fn mismatch(&mut self, path: String, key: String, shape: Vec<usize>, problem: Problem) {
        self.mismatches.push(Mismatch {
            path,
            key,
            shape,
            problem,
        });
    }

    /// Whether the parameter at `path` can be filled from `at`, and with which type.
    fn check(&self, path: &str, at: &FileKey, shape: &[usize]) -> Result<FloatDtype, Problem> {
        let Some(entry) = self.checkpoint.entries().get(&at.key) else {
            return Err(Problem::Missing { nearest: None });
        };
        if !entry.dtype.is_float() {
            return Err(Problem::Dtype { found: entry.dtype });
        }
        let fits = match shape_of_rows(&entry.shape, at.rows.as_ref()) {
            Some(found) if self.map.may_reshape(path) => {
                checked_count(&found) == checked_count(shape)
            }
            Some(found) => found == shape,
            None => false,
        };
        if fits {
            Ok(self.options.target(path, shape.len(), entry))
        } else {
            Err(Problem::Shape {
                found: entry.shape.clone(),
                rows: at.rows.clone(),
            })
        }
    }

    fn refuse<T: Parameter>(&mut self, param: &Param<T>) {
        let path = self.stack.path();
        let key = self.map.file_key(&path).key;
        self.parameters += 1;
        self.mismatches.push(Mismatch {
            path,
            key,
            shape: param.lazy_shape().as_slice().to_vec(),
            problem: Problem::NotFloat,
        });
    }
}

/// The shape of a row range of a tensor (of all of it if `None`); `None` if it has no such rows.
fn shape_of_rows(shape: &[usize], rows: Option<&Range<usize>>) -> Option<Vec<usize>> {
    let Some(rows) = rows else {
        return Some(shape.to_vec());
    };
    let (&count, rest) = shape.split_first()?;
    (rows.start <= rows.end && rows.end <= count).then(|| {
        std::iter::once(rows.len())
            .chain(rest.iter().copied())
            .collect()
    })
}

impl ModuleVisitor for Planner<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.stack.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.stack.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let packs = D == 2 && packed::can_be_packed(param.id);
        self.add_float(param.lazy_shape().as_slice().to_vec(), packs);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.refuse(param);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.refuse(param);
    }
}

/// The shape of a matrix; planning packs nothing else.
fn matrix(shape: &[usize]) -> [usize; 2] {
    match shape {
        [n, k] => [*n, *k],
        _ => [0, 0],
    }
}

/// What has been loaded so far.
#[derive(Default)]
struct Done {
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

/// Second pass: reads the data. After the first error it reads nothing more.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    options: &'a LoadOptions,
    stack: PathStack,
    plan: Plan,
    done: Done,
    failed: Option<WeightsError>,
}

impl<'a> Loader<'a> {
    fn new(checkpoint: &'a Checkpoint, options: &'a LoadOptions, plan: Plan) -> Self {
        Self {
            checkpoint,
            options,
            stack: PathStack::default(),
            plan,
            done: Done::default(),
            failed: None,
        }
    }

    fn finish(self) -> Result<Done, WeightsError> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.done),
        }
    }

    /// The tensor for the parameter at the current path, on `device`; none if it was packed instead.
    fn read<const D: usize>(
        &mut self,
        id: ParamId,
        shape: Vec<usize>,
        device: &Device,
    ) -> Result<Option<Tensor<D>>, WeightsError> {
        let Some(source) = self.plan.sources.remove(&self.stack.path()) else {
            return Ok(None);
        };
        let (data, target) = match source.target {
            Target::Float(target) => {
                let FileKey { key, rows } = source.at;
                let data = self.checkpoint.rows(&key, rows, Some(target))?;
                (self.reshaped(&key, data, shape)?, target)
            }
            // Not worth packing where no kernel takes it.
            Target::Packed(Format::Bf16) if !opabinia_nn::cpu::is_plain_cpu(device) => {
                let FileKey { key, rows } = source.at;
                let data = self.checkpoint.rows(&key, rows, Some(FloatDtype::Bf16))?;
                (self.reshaped(&key, data, shape)?, FloatDtype::Bf16)
            }
            Target::Packed(format) => {
                let packed = self.checkpoint.pack(&source.at, matrix(&shape), format)?;
                match self.place(id, packed, device) {
                    Some(unpacked) => (unpacked, FloatDtype::Bf16),
                    None => return Ok(None),
                }
            }
            Target::Stored(key, format) => {
                let packed = self.checkpoint.read_packed(&key, matrix(&shape), format)?;
                match self.place(id, packed, device) {
                    Some(unpacked) => (unpacked, FloatDtype::Bf16),
                    None => return Ok(None),
                }
            }
        };
        self.count(data.num_elements(), data.as_bytes().len());
        // The way Burn allocates what stays: on a GPU it keeps weights out of the pool that
        // activations use.
        let tensor = device.memory_persistent_allocations(data, |data| {
            Tensor::from_data(data, (device, DType::from(target)))
        });
        Ok(Some(tensor))
    }

    /// Gives the layer its packed weight; on devices that have no kernels for it, the values come
    /// back, to be a tensor.
    fn place(&mut self, id: ParamId, packed: Packed, device: &Device) -> Option<TensorData> {
        let ([n, k], bytes) = (packed.shape(), packed.as_bytes().len());
        if opabinia_nn::cpu::is_plain_cpu(device) && packed::fill(id, packed.clone()) {
            self.count(n * k, bytes);
            return None;
        }
        Some(TensorData::new(packed.to_rows(), [n, k]))
    }

    fn count(&mut self, parameters: usize, bytes: usize) {
        self.done.tensors += 1;
        self.done.parameters += parameters as u64;
        self.done.bytes += bytes as u64;
        if let Some(progress) = &self.options.progress {
            progress(self.done.bytes, self.plan.bytes);
        }
    }

    /// Gives `data` the shape of the parameter; the first pass compared the number of elements.
    fn reshaped(
        &self,
        key: &str,
        data: TensorData,
        shape: Vec<usize>,
    ) -> Result<TensorData, WeightsError> {
        let (bytes, found, dtype) = data.into_parts();
        TensorData::try_from_bytes(bytes, shape, dtype).map_err(|_| WeightsError::Rows {
            key: key.to_owned(),
            file: self.checkpoint.location().to_path_buf(),
            shape: found.as_slice().to_vec(),
        })
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.stack.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.stack.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        let shape = param.lazy_shape().as_slice().to_vec();
        match self.read(param.id, shape, &param.lazy_device()) {
            Ok(Some(tensor)) => {
                let id = param.id;
                packed::clear(id);
                param.transform_for_load(tensor, id)
            }
            Ok(None) => param,
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}
