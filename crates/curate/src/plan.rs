//! The curation as plans of a query engine (Apache DataFusion).
//!
//! Two plans: one calls [`IndexPart`] for every row of a table of parts, the other selects over the
//! indexes that came of it. Both are made of tables in files and functions with a name, so that they run
//! in this process or on a cluster alike. The text of samples is in neither.
//!
//! The order in which samples of a source are kept is that of [`OrderKey`], a number made of the seed
//! and the content alone: it does not depend on threads, on machines or on the order of files, and a
//! larger cap keeps what a smaller one kept. A source has one order, whatever categories it is in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use datafusion::common::cast::{as_string_array, as_uint32_array, as_uint64_array};
use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result as DfResult};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::functions_window::nth_value::first_value;
use datafusion::logical_expr::{
    ColumnarValue, ExprFunctionExt, JoinType, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits,
};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext, col, lit};
use datafusion::scalar::ScalarValue;
use url::Url;

use crate::classify::Class;
use crate::error::CurateError;
use crate::hash::{STEP, mix};
use crate::job::Running;
use crate::recipe::Recipe;
use crate::table::write_table;

/// `index_part(job, part)`: indexes a part of the job at a path, and gives the number of its lines.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct IndexPart {
    signature: Signature,
}

impl Default for IndexPart {
    fn default() -> Self {
        // It writes a file, so it must not be computed beforehand or left out.
        let types = vec![DataType::Utf8, DataType::UInt32];
        Self {
            signature: Signature::exact(types, Volatility::Volatile),
        }
    }
}

impl ScalarUDFImpl for IndexPart {
    fn name(&self) -> &str {
        "index_part"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [jobs, parts] = arrays.as_slice() else {
            return datafusion::common::exec_err!("index_part takes a job and a part");
        };
        let (jobs, parts) = (as_string_array(jobs)?, as_uint32_array(parts)?);
        let index = |(job, part): (Option<&str>, Option<u32>)| {
            let (job, part) = (job.unwrap_or_default(), part.unwrap_or_default());
            let running = Running::at(Path::new(job));
            let lines = running.and_then(|running| running.index_part(part));
            lines.map_err(|error| DataFusionError::External(Box::new(error)))
        };
        let lines = jobs.iter().zip(parts).map(index);
        let lines = UInt64Array::from(lines.collect::<DfResult<Vec<u64>>>()?);
        Ok(ColumnarValue::Array(Arc::new(lines)))
    }
}

/// `order_key(hash_hi, hash_lo, seed)`: the place of a content in the order of a seed.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct OrderKey {
    signature: Signature,
}

impl Default for OrderKey {
    fn default() -> Self {
        Self {
            signature: Signature::exact(vec![DataType::UInt64; 3], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for OrderKey {
    fn name(&self) -> &str {
        "order_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [high, low, seed] = arrays.as_slice() else {
            return datafusion::common::exec_err!(
                "order_key takes two halves of a hash and a seed"
            );
        };
        let (high, low) = (as_uint64_array(high)?, as_uint64_array(low)?);
        let seed = as_uint64_array(seed)?;
        let keys = (0..high.len()).map(|i| order_key(high.value(i), low.value(i), seed.value(i)));
        let keys = UInt64Array::from_iter_values(keys);
        Ok(ColumnarValue::Array(Arc::new(keys)))
    }
}

/// A number that depends on every bit of a content's hash and of the seed. The hash is already that
/// of a good function; the seed needs mixing.
pub fn order_key(high: u64, low: u64, seed: u64) -> u64 {
    let step = |z: u64| mix(z.wrapping_add(STEP));
    step(step(high ^ step(seed)) ^ low)
}

/// The functions that the plans call, for whoever runs them.
pub fn functions() -> Vec<ScalarUDF> {
    vec![
        ScalarUDF::from(IndexPart::default()),
        ScalarUDF::from(OrderKey::default()),
    ]
}

/// Runs that are merged at once. Merging takes what memory there is, file by file, and a sort that waits
/// for another one's rows would find nothing left.
const MERGED_RUNS: usize = 16;

/// Rows that are handled at once, if memory allows.
const BATCH_ROWS: usize = 8192;

/// Rows that are handled at once by so many threads with so much memory: all sorts of the selection
/// together, three for each thread, hold less than half of it while they merge.
fn batch_rows(threads: usize, memory_bytes: usize) -> usize {
    (memory_bytes / (threads << 15)).clamp(128, BATCH_ROWS)
}

/// What a sort holds while it merges batches of so many rows, and what nobody else may take before it does. A row
/// takes some 60 bytes, four times over: two batches of each run, each with room for its copy. A quarter
/// is added for what a batch has beside its rows.
const fn merge_bytes(batch_rows: usize) -> usize {
    batch_rows * 60 * 4 * MERGED_RUNS * 5 / 4
}

/// A session in this process.
///
/// # Errors
/// If the folder for spilling cannot be used.
pub fn session(
    threads: usize,
    memory_bytes: usize,
    spill: &Path,
) -> Result<SessionContext, CurateError> {
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill.to_owned()]))
        .with_max_spill_merge_fan_in(MERGED_RUNS)
        .with_max_temp_directory_size(u64::MAX);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(CurateError::query("start the query engine"))?;
    let threads = threads.max(1);
    let rows = batch_rows(threads, memory_bytes);
    let mut config = SessionConfig::new()
        .with_target_partitions(threads)
        .with_batch_size(rows);
    config.options_mut().execution.sort_spill_reservation_bytes = merge_bytes(rows);
    let context = SessionContext::new_with_config_rt(config, runtime);
    for function in functions() {
        context.register_udf(function);
    }
    Ok(context)
}

/// Writes the table of parts into `folder`: a file for each of `workers`, parts dealt out in turn.
///
/// # Errors
/// If it cannot be written.
pub fn write_parts(
    folder: &Path,
    job: &Path,
    parts: &[u32],
    workers: usize,
) -> Result<(), CurateError> {
    let fields = vec![
        Field::new("job", DataType::Utf8, false),
        Field::new("part", DataType::UInt32, false),
    ];
    let schema = Arc::new(Schema::new(fields));
    let job = job.to_string_lossy();
    for worker in 0..workers.clamp(1, parts.len().max(1)) {
        let own: Vec<u32> = parts
            .iter()
            .skip(worker)
            .step_by(workers.max(1))
            .copied()
            .collect();
        let path = folder.join(format!("parts-{worker:04}.parquet"));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(own.iter().map(|_| &job))),
            Arc::new(UInt32Array::from(own)),
        ];
        let schema = Arc::clone(&schema);
        write_table("write the table of parts", &path, schema, columns, None)?;
    }
    Ok(())
}

/// A folder as tables are named: as a URL, in which `[`, `*` and `?` are no patterns.
fn folder_url(folder: &Path) -> DfResult<String> {
    url_of(Url::from_directory_path(folder), folder)
}

/// A file as tables are named.
fn file_url(file: &Path) -> DfResult<String> {
    url_of(Url::from_file_path(file), file)
}

fn url_of(url: Result<Url, ()>, path: &Path) -> DfResult<String> {
    match url {
        Ok(url) => Ok(url.to_string()),
        Err(()) => datafusion::common::exec_err!("`{}` is no absolute path", path.display()),
    }
}

/// The plan that indexes all parts of a table; its rows are numbers of lines.
///
/// # Errors
/// If the table cannot be read.
pub async fn index_plan(context: &SessionContext, parts: &Path) -> DfResult<DataFrame> {
    let table = context
        .read_parquet(folder_url(parts)?, ParquetReadOptions::default())
        .await?;
    let index = ScalarUDF::from(IndexPart::default());
    table.select(vec![
        index.call(vec![col("job"), col("part")]).alias("lines"),
    ])
}

/// The plan that selects: rows `(pos, source, first, rank)` of all samples, by position. `first` is the
/// position of the first sample with the same content; samples of the table `near` are left out; `rank`, from 1, is the place of a sample
/// among those of its source, in all its categories, that are no duplicates, in the order of the seed.
///
/// # Errors
/// If the indexes cannot be read.
pub async fn select_plan(
    context: &SessionContext,
    index: &Path,
    near: Option<&Path>,
    recipe: &Recipe,
) -> DfResult<DataFrame> {
    let table = context
        .read_parquet(folder_url(index)?, ParquetReadOptions::default())
        .await?;
    let samples = table
        .filter(col("class").eq(lit(Class::Ok as u8)))?
        .select_columns(&["pos", "source", "name", "hash_hi", "hash_lo"])?;
    let exact = recipe.dedup.as_ref().is_some_and(|dedup| dedup.exact);
    let firsts = match exact {
        true => {
            let first = first_value(col("pos"))
                .partition_by(vec![col("hash_hi"), col("hash_lo")])
                .order_by(vec![col("pos").sort(true, false)])
                .window_frame(running_frame())
                .build()?;
            samples.select(vec![
                col("pos"),
                col("source"),
                col("name"),
                col("hash_hi"),
                col("hash_lo"),
                first.alias("first"),
            ])?
        }
        false => samples.with_column("first", col("pos"))?,
    };
    let key = ScalarUDF::from(OrderKey::default()).call(vec![
        col("hash_hi"),
        col("hash_lo"),
        lit(recipe.seed),
    ]);
    let firsts = match near {
        None => firsts,
        Some(near) => {
            let near = context
                .read_parquet(file_url(near)?, ParquetReadOptions::default())
                .await?;
            firsts.join(near, JoinType::LeftAnti, &["pos"], &["near_pos"], None)?
        }
    };
    let keyed = firsts.select(vec![
        col("pos"),
        col("source"),
        col("name"),
        col("first"),
        col("first").eq(col("pos")).alias("unique"),
        key.alias("key"),
    ])?;
    let rank = row_number()
        .partition_by(vec![col("name"), col("unique")])
        .order_by(vec![
            col("key").sort(true, false),
            // The same content in two categories: neither files nor lines decide which comes first.
            col("source").sort(true, false),
            col("pos").sort(true, false),
        ])
        .build()?;
    keyed
        .select(vec![
            col("pos"),
            col("source"),
            col("first"),
            rank.alias("rank"),
        ])?
        .sort(vec![col("pos").sort(true, false)])
}

/// The plan that finds samples that may be alike: pairs `(pos, first)` of samples that meet in a band,
/// where `first` is the earliest of the band; by position.
///
/// # Errors
/// If the bands cannot be read.
pub async fn near_plan(context: &SessionContext, bands: &Path) -> DfResult<DataFrame> {
    let table = context
        .read_parquet(folder_url(bands)?, ParquetReadOptions::default())
        .await?;
    let first = first_value(col("pos"))
        .partition_by(vec![col("band")])
        .order_by(vec![col("pos").sort(true, false)])
        .window_frame(running_frame())
        .build()?;
    table
        .select(vec![col("pos"), first.alias("first")])?
        .filter(col("first").not_eq(col("pos")))?
        .distinct()?
        .sort(vec![
            col("pos").sort(true, false),
            col("first").sort(true, false),
        ])
}

/// From the first row of the group to the current one: the frame that needs no look ahead.
fn running_frame() -> WindowFrame {
    WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::CurrentRow,
    )
}

/// The error of this crate inside one of the query engine, if there is one.
pub fn unwrap(doing: &'static str, error: DataFusionError) -> CurateError {
    fn find(error: DataFusionError) -> Result<CurateError, DataFusionError> {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<CurateError>() {
                Ok(ours) => Ok(*ours),
                Err(inner) => match inner.downcast::<DataFusionError>() {
                    Ok(nested) => find(*nested),
                    Err(inner) => Err(DataFusionError::External(inner)),
                },
            },
            DataFusionError::Context(_, inner) => find(*inner),
            DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
                Ok(inner) => find(inner),
                Err(shared) => Err(DataFusionError::Shared(shared)),
            },
            other => Err(other),
        }
    }
    find(error).unwrap_or_else(CurateError::query(doing))
}

/// Folders below the work folder.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The work folder.
    pub work: PathBuf,
}

impl Folders {
    /// Path of `job.json`.
    pub fn job(&self) -> PathBuf {
        self.work.join("job.json")
    }

    /// Plain copies of inputs.
    pub fn plain(&self) -> PathBuf {
        self.work.join("plain")
    }

    /// Indexes.
    pub fn index(&self) -> PathBuf {
        self.work.join("index")
    }

    /// Bands.
    pub fn bands(&self) -> PathBuf {
        self.work.join("bands")
    }

    /// The table of near duplicates.
    pub fn near(&self) -> PathBuf {
        self.work.join("near.parquet")
    }

    /// The table of parts.
    pub fn parts(&self) -> PathBuf {
        self.work.join("parts")
    }

    /// Where the query engine spills.
    pub fn spill(&self) -> PathBuf {
        self.work.join("spill")
    }

    /// What is known of finished shards.
    pub fn shards(&self) -> PathBuf {
        self.work.join("shards")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_depends_on_seed_and_content() {
        let keys: Vec<u64> = [(1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3)]
            .map(|(high, low, seed)| order_key(high, low, seed))
            .into();
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key));
        }
        // A change of this number would change every mixture.
        assert_eq!(order_key(0, 0, 0), 0x2382_75BC_38FC_BE91);
    }
}
