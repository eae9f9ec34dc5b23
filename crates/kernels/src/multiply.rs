//! The product: what is computed when, and by which thread.
//!
//! Activations are prepared once. Then jobs, each some rows times some columns, go to the threads of
//! the current rayon pool; a job walks `k` in parts that fit its caches, and adds up in the output.

use rayon::prelude::*;

use crate::activations::{Prepared, Tile};
use crate::bytes::AlignedBytes;
use crate::format::{Format, PANEL};
use crate::micro::{Kernel, MAX_PANELS, MAX_ROWS};
use crate::pack::{Packed, Rows, pack_panels};
use crate::path::Path;

/// Rows up to which a product is bound by reading the weight. Among so few, a row's result does not
/// depend on the number of rows.
pub const FEW_ROWS: usize = 16;

/// Columns of a job with many rows.
const JOB_COLUMNS: usize = 256;
/// Rows of a job.
const JOB_ROWS: usize = 192;
/// Multiply-adds below which a product is not worth more than one thread, if its weight is small, too.
const SMALL_PRODUCT: usize = 1 << 19;
/// Values of a weight below which reading it is not worth more than one thread.
const SMALL_WEIGHT: usize = 1 << 16;
/// Bytes per thread of rows that are packed at a time: they stay in the caches.
const PACKED_AT_A_TIME: usize = 1 << 21;

/// What is done to finished values of a row: an activation function.
type Finish<'a> = dyn Fn(&mut [f32]) + Sync + 'a;

/// The weight of a product, `[n, k]`.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// Packed before.
    Packed(&'a Packed),
    /// As a checkpoint has it; packed a piece at a time.
    Rows(Rows<'a>, [usize; 2]),
}

impl Weights<'_> {
    /// `[n, k]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Packed(packed) => packed.shape(),
            Self::Rows(_, shape) => *shape,
        }
    }
}

/// What may happen to activations before they are multiplied with bf16 weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// Nothing: they are f32, and weights are widened to them.
    #[default]
    Exact,
    /// Where the processor multiplies bf16 by bf16 faster and rows are many, they are rounded to
    /// bf16, which moves an ordinary sum by about 0.2 % of its size.
    Rounded,
}

/// What a product has besides its factors.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// `[n]`, added to every row.
    pub bias: Option<&'a [f32]>,
    /// Applied to every value, after the bias.
    pub finish: Option<&'a Finish<'a>>,
    /// Whether activations may be rounded to the format of bf16 weights.
    pub activations: Activations,
    /// The path to take; the best if `None`.
    pub path: Option<Path>,
}

/// `x · weightᵀ`, with what [`Options`] name.
///
/// # Shapes
/// - `x`: `[m, k]`, `weights`: `[n, k]`
/// - output: `[m, n]`
///
/// # Panics
/// If the lengths do not fit each other, or the processor does not have the path: wiring mistakes.
#[must_use]
pub fn multiply(x: &[f32], m: usize, weights: Weights<'_>, options: Options<'_>) -> Vec<f32> {
    let [n, k] = weights.shape();
    assert_eq!(x.len(), m * k, "activations of another width");
    assert!(
        options.bias.is_none_or(|bias| bias.len() == n),
        "a bias of another width"
    );
    let path = options.path.unwrap_or_else(Path::best);
    if m * n == 0 {
        return Vec::new();
    }
    if k == 0 {
        return empty_sums(m, n, options);
    }
    let mut y = Box::<[f32]>::new_uninit_slice(m * n);
    let target = Target {
        first: y.as_mut_ptr().cast(),
        step: n,
    };
    match weights {
        Weights::Packed(packed) => {
            // The owner of the bytes is asked for them each time.
            let bytes = packed.as_bytes();
            let wanted = packed.format().bytes([n, k]);
            assert_eq!(Some(bytes.len()), wanted, "a packed weight of another size");
            let product = Product::new(x, [m, n, k], packed.format(), path, options);
            product.run(bytes, 0, target);
        }
        Weights::Rows(rows, _) => {
            assert_eq!(rows.len(), n * k, "a weight of another shape");
            let product = Product::new(x, [m, n, k], rows.exact(), path, options);
            product.run_rows(rows, target);
        }
    }
    // SAFETY: the jobs are all of the rows and columns, and each sets its own with its first part of `k`.
    unsafe { y.assume_init() }.into_vec()
}

/// Whether waking other threads costs more than they do.
fn is_small(m: usize, n: usize, k: usize) -> bool {
    n * k < SMALL_WEIGHT && m * n * k < SMALL_PRODUCT
}

/// Sums of nothing, with the bias.
fn empty_sums(m: usize, n: usize, options: Options<'_>) -> Vec<f32> {
    let mut y = vec![0f32; m * n];
    for row in y.chunks_exact_mut(n) {
        if let Some(bias) = options.bias {
            row.copy_from_slice(bias);
        }
        if let Some(finish) = options.finish {
            finish(row);
        }
    }
    y
}

/// The output, which jobs share; each writes its own rows and columns. Nothing is in it beforehand.
#[derive(Clone, Copy)]
struct Target {
    first: *mut f32,
    step: usize,
}
// SAFETY: jobs write disjoint parts of one allocation that outlives them.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Puts values into a part of a row.
    ///
    /// # Safety
    /// The part lies in the output, and nobody else uses it.
    unsafe fn set(&self, row: usize, column: usize, values: &[f32]) {
        // SAFETY: the caller's; values of a job's own lie elsewhere.
        unsafe {
            let to = self.first.add(row * self.step + column);
            to.copy_from_nonoverlapping(values.as_ptr(), values.len());
        }
    }

    /// A part of a row that has been set.
    ///
    /// # Safety
    /// The part lies in the output and has been [`set`](Self::set), and nobody else uses it.
    #[allow(clippy::mut_from_ref, reason = "the callers' jobs are disjoint")]
    unsafe fn row(&self, row: usize, column: usize, columns: usize) -> &mut [f32] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.step + column), columns) }
    }
}

/// One job: tiles and panels.
struct Job<'a> {
    tiles: &'a [Tile],
    first_panel: usize,
    panels: usize,
}

struct Product<'a> {
    prepared: Prepared,
    kernel: Kernel,
    format: Format,
    m: usize,
    n: usize,
    k: usize,
    options: Options<'a>,
}

impl<'a> Product<'a> {
    fn new(
        x: &[f32],
        [m, n, k]: [usize; 3],
        format: Format,
        path: Path,
        options: Options<'a>,
    ) -> Self {
        let rounded = options.activations == Activations::Rounded && m > FEW_ROWS;
        let kernel = Kernel::new(path, format, rounded);
        Self {
            prepared: Prepared::new(x, m, kernel),
            kernel,
            format,
            m,
            n,
            k,
            options,
        }
    }

    /// Packs some panels, multiplies, packs the next.
    fn run_rows(&self, rows: Rows<'_>, target: Target) {
        let panel_bytes = self.format.panel_bytes(self.k);
        let budget = PACKED_AT_A_TIME * rayon::current_num_threads();
        let at_a_time = (budget / panel_bytes)
            .next_multiple_of(2)
            .max(2)
            .min(self.n.div_ceil(PANEL));
        let mut packed = AlignedBytes::zeros(at_a_time * panel_bytes);
        for first in (0..self.n).step_by(at_a_time * PANEL) {
            let panels = (self.n - first).div_ceil(PANEL).min(at_a_time);
            let bytes = &mut packed.as_mut()[..panels * panel_bytes];
            let (shape, path) = ([self.n, self.k], self.kernel.path());
            let done = pack_panels(rows, shape, self.format, first, bytes, path);
            assert!(done.is_ok(), "floats can always be packed");
            self.run(bytes, first, target);
        }
    }

    /// Multiplies with panels whose first column is `first`.
    fn run(&self, bytes: &[u8], first: usize, target: Target) {
        let panel_bytes = self.format.panel_bytes(self.k);
        let columns = (bytes.len() / panel_bytes * PANEL).min(self.n - first);
        let jobs = self.jobs(columns.div_ceil(PANEL));
        let run = |job: &Job<'_>| self.run_job(job, bytes, first, target);
        if is_small(self.m, columns, self.k) || rayon::current_num_threads() == 1 {
            jobs.iter().for_each(run);
        } else {
            jobs.par_iter().with_max_len(1).for_each(run);
        }
    }

    /// Divides the work so that every thread gets some, and no part is smaller than worth its while.
    fn jobs(&self, panels: usize) -> Vec<Job<'_>> {
        let threads = rayon::current_num_threads();
        let tiles = &self.prepared.tiles;
        let row_parts = self.m.div_ceil(JOB_ROWS);
        let per_row_part = tiles.len().div_ceil(row_parts);
        // Four jobs per thread let the last ones even out.
        let wanted = (4 * threads).div_ceil(row_parts);
        let few = self.m <= FEW_ROWS;
        let most = if few { usize::MAX } else { JOB_COLUMNS / PANEL };
        let width = panels
            .div_ceil(wanted)
            .next_multiple_of(self.kernel.panels())
            .min(most);
        let mut jobs = Vec::new();
        for tiles in tiles.chunks(per_row_part) {
            for first_panel in (0..panels).step_by(width) {
                jobs.push(Job {
                    tiles,
                    first_panel,
                    panels: width.min(panels - first_panel),
                });
            }
        }
        jobs
    }

    fn run_job(&self, job: &Job<'_>, bytes: &[u8], first: usize, target: Target) {
        let few = self.m <= FEW_ROWS;
        let depth = self.kernel.depth(few);
        let padded = self.format.padded(self.k);
        let step = self.kernel.panels();
        let pieces = (0..padded).step_by(depth);
        let pairs = (job.first_panel..job.first_panel + job.panels).step_by(step);
        if few {
            // Bound by memory: panels are read from their beginning to their end.
            for pair in pairs {
                for from in pieces.clone() {
                    self.piece(job, pair, from, bytes, first, target);
                }
            }
        } else {
            for from in pieces {
                for pair in pairs.clone() {
                    self.piece(job, pair, from, bytes, first, target);
                }
            }
        }
        let column = first + job.first_panel * PANEL;
        let columns = (job.panels * PANEL).min(self.n - column);
        self.finish(job, column, columns, target);
    }

    /// All tiles of the job times one or two panels over a part of `k`.
    fn piece(
        &self,
        job: &Job<'_>,
        pair: usize,
        from: usize,
        bytes: &[u8],
        first: usize,
        target: Target,
    ) {
        let padded = self.format.padded(self.k);
        let to = padded.min(from.saturating_add(self.kernel.depth(self.m <= FEW_ROWS)));
        let panel_bytes = self.format.panel_bytes(self.k);
        let count = self
            .kernel
            .panels()
            .min(job.first_panel + job.panels - pair);
        let part = self.format.offset(from)..self.format.offset(to);
        let panel =
            |i: usize| &bytes[(pair + i).min(pair + count - 1) * panel_bytes..][part.clone()];
        let panels: [&[u8]; MAX_PANELS] = std::array::from_fn(panel);
        let mut lanes = [[0f32; PANEL]; MAX_ROWS * MAX_PANELS];
        let column = first + pair * PANEL;
        let columns = (count * PANEL).min(self.n - column);
        for tile in job.tiles {
            let lanes = &mut lanes[..tile.rows * count];
            let a = self.prepared.part(tile, from, to);
            self.kernel.run(a, &panels[..count], lanes);
            for (row, lanes) in lanes.chunks_exact(count).enumerate() {
                let (row, values) = (tile.first + row, &lanes.as_flattened()[..columns]);
                if from == 0 {
                    // SAFETY: rows and columns of this job alone.
                    unsafe { target.set(row, column, values) };
                    continue;
                }
                // SAFETY: rows and columns of this job alone, set from the first part of `k` on.
                let y = unsafe { target.row(row, column, columns) };
                for (y, value) in y.iter_mut().zip(values) {
                    *y += value;
                }
            }
        }
    }

    fn finish(&self, job: &Job<'_>, column: usize, columns: usize, target: Target) {
        if self.options.bias.is_none() && self.options.finish.is_none() {
            return;
        }
        for tile in job.tiles {
            for row in tile.first..tile.first + tile.rows {
                // SAFETY: rows and columns of this job alone, all of them set.
                let y = unsafe { target.row(row, column, columns) };
                if let Some(bias) = self.options.bias {
                    for (y, bias) in y.iter_mut().zip(&bias[column..]) {
                        *y += bias;
                    }
                }
                if let Some(finish) = self.options.finish {
                    finish(y);
                }
            }
        }
    }
}
