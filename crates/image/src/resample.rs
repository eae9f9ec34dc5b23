//! Resizing that equals Pillow's to the last bit.
//!
//! Vision encoders were trained on pictures resized by Pillow, whose 8-bit resampling works in
//! fixed point: first every row, rounded to bytes, then every column. Libraries that are
//! faster by using shorter coefficients differ by one count in many pixels; a model does not mind,
//! but then nobody can tell a rounding from a mistake. So this module computes exactly what
//! Pillow's `Resample.c` computes (and, for [`Filter::Nearest`], its `Geometry.c`), as it was when
//! the encoders were trained and until version 12: version 13 does columns first where that is
//! cheaper, which rounds some pixels differently when a picture changes its proportions.
//!
//! Both passes are one kernel, [`weigh`]: bytes times integer weights, summed over rows that lie a
//! stride apart. For the horizontal pass sixteen rows are first laid side by side, column by
//! column, so that it too adds up long runs of neighbouring bytes, which compilers turn into
//! vector instructions.

use std::borrow::Cow;
use std::f64::consts::PI;
use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::canvas::{Canvas, Region, overlap};
use crate::rgb::{CHANNELS, RgbImage};

/// How the pixels of a resized picture are computed from those of the original.
///
/// All but `Nearest` widen with the factor by which a picture shrinks ("antialias").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The one nearest pixel.
    Nearest,
    /// The mean of the pixels beneath, support 0.5.
    Box,
    /// Linear interpolation, support 1.
    Bilinear,
    /// A Hamming window, as sharp as bicubic and as cheap as bilinear, support 1.
    Hamming,
    /// Cubic convolution with a = −0.5 (Keys 1981), support 2: what the reference uses.
    Bicubic,
    /// A sinc windowed by a wider sinc, support 3.
    Lanczos,
}

impl Filter {
    /// How far the filter reaches, in source pixels when the size does not shrink.
    fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The weight at distance `x` from the centre.
    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => hamming(x.abs()),
            Self::Bicubic => bicubic(x.abs()),
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn hamming(x: f64) -> f64 {
    // Single-precision constants in double-precision arithmetic, as Pillow has them.
    let (offset, swing) = (f64::from(0.54_f32), f64::from(0.46_f32));
    if x == 0.0 {
        1.0
    } else if x >= 1.0 {
        0.0
    } else {
        let x = x * PI;
        x.sin() / x * (offset + swing * x.cos())
    }
}

/// Keys' cubic with a = −0.5, in the order of operations that gives Pillow's rounding.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}

/// Resizes a picture to `width × height` pixels, bit for bit as Pillow's `Image.resize` does.
///
/// # Panics
/// If `width` or `height` is zero: a size is checked where it enters the program.
pub fn resize(picture: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    assert!(
        width > 0 && height > 0,
        "cannot resize to {width} × {height} pixels"
    );
    let canvas = Canvas::bare(Cow::Borrowed(picture));
    resize_region(
        &canvas,
        (width, height),
        Region::whole(width, height),
        filter,
    )
}

/// The part `region` of the canvas resized to `(width, height)`; the rest is not computed.
pub(crate) fn resize_region(
    canvas: &Canvas<'_>,
    (width, height): (u32, u32),
    region: Region,
    filter: Filter,
) -> RgbImage {
    if (width, height) == canvas.size() {
        return canvas.copy_region(region);
    }
    if filter == Filter::Nearest {
        return nearest_region(canvas, (width, height), region);
    }
    let vertical = (height != canvas.height())
        .then(|| Axis::new(canvas.height(), height, region.rows(), filter));
    let rows = vertical.as_ref().map_or(region.rows(), Axis::source);
    let narrowed = if width == canvas.width() {
        canvas.copy_region(Region {
            y: rows.start,
            height: rows.end - rows.start,
            ..region
        })
    } else {
        let axis = Axis::new(canvas.width(), width, region.columns(), filter);
        horizontal_pass(canvas, &axis, rows.clone())
    };
    match vertical {
        Some(axis) => vertical_pass(&narrowed, &axis, rows.start),
        None => narrowed,
    }
}

/// Pillow steps through the source by repeated addition, and so must we to meet its rounding.
fn nearest_region(canvas: &Canvas<'_>, (width, height): (u32, u32), region: Region) -> RgbImage {
    let positions = |source: u32, target: u32, range: Range<u32>| -> Vec<u32> {
        let scale = f64::from(source) / f64::from(target);
        std::iter::successors(Some(scale * 0.5), |at| Some(at + scale))
            .map(|at| (at as u32).min(source - 1))
            .skip(range.start as usize)
            .take(range.len())
            .collect()
    };
    let columns = positions(canvas.width(), width, region.columns());
    let rows = positions(canvas.height(), height, region.rows());
    let data = rows
        .par_iter()
        .flat_map_iter(|&y| columns.iter().flat_map(move |&x| canvas.pixel(x, y)))
        .collect();
    RgbImage::from_computed(region.width, region.height, data)
}

/// Fractional bits of a weight: 32, less 8 for the byte, less 2 for sums beyond 0..=255.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// One half, so that cutting the fraction off rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Which source pixels make one target pixel, and how much of each.
struct Window {
    /// The first source pixel.
    first: u32,
    /// Where its weights lie in [`Axis::weights`], one for each source pixel from `first` on.
    weights: Range<usize>,
}

impl Window {
    /// The source pixels.
    fn source(&self) -> Range<u32> {
        self.first..self.first + self.weights.len() as u32
    }
}

/// The windows along one direction for a range of target pixels; neither their beginnings nor
/// their ends ever go back.
struct Axis {
    windows: Vec<Window>,
    /// Fixed point with [`PRECISION_BITS`].
    weights: Vec<i32>,
}

impl Axis {
    /// The windows for the pixels `range` of a line resized from `source` to `target` pixels.
    fn new(source: u32, target: u32, range: Range<u32>, filter: Filter) -> Self {
        let scale = f64::from(source) / f64::from(target);
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let mut axis = Self {
            windows: Vec::with_capacity(range.len()),
            weights: Vec::new(),
        };
        let mut exact = Vec::new();
        for pixel in range {
            let centre = (f64::from(pixel) + 0.5) * scale;
            // Conversion to integers cuts towards zero and stops at the type's bounds.
            let first = (centre - support + 0.5) as u32;
            let end = ((centre + support + 0.5) as u32).min(source);
            exact.clear();
            exact.extend(
                (first..end)
                    .map(|x| filter.weight((f64::from(x) - centre + 0.5) * (1.0 / filter_scale))),
            );
            axis.push(first, &exact);
        }
        axis
    }

    fn push(&mut self, first: u32, exact: &[f64]) {
        let sum: f64 = exact.iter().sum();
        let start = self.weights.len();
        self.weights.extend(
            exact
                .iter()
                .map(|weight| to_fixed_point(if sum == 0.0 { *weight } else { weight / sum })),
        );
        self.windows.push(Window {
            first,
            weights: start..self.weights.len(),
        });
    }

    /// The source pixels that any window needs.
    fn source(&self) -> Range<u32> {
        source_of(&self.windows)
    }

    /// The windows that reach into the source pixels `covered`, as a range of indices.
    fn touching(&self, covered: &Range<u32>) -> Range<usize> {
        let start = self
            .windows
            .partition_point(|window| window.source().end <= covered.start);
        let end = self
            .windows
            .partition_point(|window| window.first < covered.end);
        start..end.max(start)
    }

    /// What a line of nothing but `colour` becomes, `[windows, 3]`.
    fn flat_line(&self, colour: [u8; 3]) -> Vec<u8> {
        self.windows
            .iter()
            .flat_map(|window| {
                let sum: i32 = self.weights[window.weights.clone()].iter().sum();
                colour.map(|value| to_byte(HALF + i32::from(value) * sum))
            })
            .collect()
    }
}

fn source_of(windows: &[Window]) -> Range<u32> {
    match (windows.first(), windows.last()) {
        (Some(first), Some(last)) => first.first..last.source().end,
        _ => 0..0,
    }
}

/// Rounds half away from zero.
fn to_fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1_u32 << PRECISION_BITS);
    (scaled + if weight < 0.0 { -0.5 } else { 0.5 }) as i32
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Rows that the horizontal pass lays side by side.
const STRIP_ROWS: usize = 16;

/// Bytes that the kernel adds up at once: one column of a strip.
const LANES: usize = STRIP_ROWS * CHANNELS;

/// Resizes the rows `rows` of a canvas to the windows of `axis`.
///
/// Where a window sees only the ground, nothing is weighed.
fn horizontal_pass(canvas: &Canvas<'_>, axis: &Axis, rows: Range<u32>) -> RgbImage {
    let row_bytes = axis.windows.len() * CHANNELS;
    let mut data = axis.flat_line(canvas.ground()).repeat(rows.len());
    let touched = axis.touching(&canvas.picture_columns());
    let windows = &axis.windows[touched.clone()];
    let columns = source_of(windows);

    data.par_chunks_mut(STRIP_ROWS * row_bytes)
        .enumerate()
        .for_each_init(
            || Strip::new(columns.clone()),
            |strip, (index, out)| {
                let first = rows.start + (index * STRIP_ROWS) as u32;
                let strip_rows = first..first + (out.len() / row_bytes) as u32;
                let covered = overlap(&strip_rows, &canvas.picture_rows());
                strip.gather(canvas, first, covered.clone());
                let mut column = [0; LANES];
                for (window, x) in windows.iter().zip(touched.clone()) {
                    let weights = &axis.weights[window.weights.clone()];
                    weigh(strip.lanes_from(window.first), LANES, weights, &mut column);
                    for row in covered.clone() {
                        let row = (row - first) as usize;
                        out[row * row_bytes + x * CHANNELS..][..CHANNELS]
                            .copy_from_slice(&column[row * CHANNELS..][..CHANNELS]);
                    }
                }
            },
        );
    RgbImage::from_computed(axis.windows.len() as u32, rows.len() as u32, data)
}

/// Sixteen rows laid side by side, `[columns, rows, 3]`.
struct Strip {
    columns: Range<u32>,
    lanes: Vec<u8>,
    line: Vec<u8>,
}

impl Strip {
    fn new(columns: Range<u32>) -> Self {
        let lanes = vec![0; columns.len() * LANES];
        let line = vec![0; columns.len() * CHANNELS];
        Self {
            columns,
            lanes,
            line,
        }
    }

    /// Fills the lanes of `rows`, of which lane 0 is row `first`; other lanes keep what they had.
    fn gather(&mut self, canvas: &Canvas<'_>, first: u32, rows: Range<u32>) {
        for row in rows {
            canvas.copy_row(row, self.columns.clone(), &mut self.line);
            let lane = (row - first) as usize * CHANNELS;
            let columns = self.lanes.chunks_exact_mut(LANES);
            for (column, pixel) in columns.zip(self.line.chunks_exact(CHANNELS)) {
                column[lane..lane + CHANNELS].copy_from_slice(pixel);
            }
        }
    }

    fn lanes_from(&self, column: u32) -> &[u8] {
        &self.lanes[(column - self.columns.start) as usize * LANES..]
    }
}

/// Resizes the columns of `picture`, of which row 0 is source row `first_row` of the axis.
fn vertical_pass(picture: &RgbImage, axis: &Axis, first_row: u32) -> RgbImage {
    let row_bytes = picture.width() as usize * CHANNELS;
    let mut data = vec![0; axis.windows.len() * row_bytes];
    data.par_chunks_exact_mut(row_bytes)
        .zip(&axis.windows)
        .for_each(|(out, window)| {
            let source = &picture.data()[(window.first - first_row) as usize * row_bytes..];
            weigh(
                source,
                row_bytes,
                &axis.weights[window.weights.clone()],
                out,
            );
        });
    RgbImage::from_computed(picture.width(), axis.windows.len() as u32, data)
}

/// `out[i] = Σ_t source[t · stride + i] · weights[t]`, rounded and cut to a byte.
fn weigh(source: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(
            unsafe_code,
            reason = "the x86-64 baseline has no 32-bit vector multiplication"
        )]
        // SAFETY: the processor has just said that it knows AVX2.
        unsafe {
            weigh_avx2(source, stride, weights, out);
        }
        return;
    }
    weigh_any(source, stride, weights, out);
}

/// [`weigh_any`], compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn weigh_avx2(source: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
    weigh_any(source, stride, weights, out);
}

#[inline(always)]
fn weigh_any(source: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
    let mut offset = 0;
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    for block in blocks {
        weigh_block(&source[offset..], stride, weights, block);
        offset += LANES;
    }
    weigh_block(&source[offset..], stride, weights, rest);
}

/// Weighs at most [`LANES`] bytes, so that the sums stay in registers.
#[inline(always)]
fn weigh_block(source: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
    let mut sums = [HALF; LANES];
    let sums = &mut sums[..out.len()];
    for (row, &weight) in source.chunks(stride).zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(&row[..out.len()]) {
            *sum += i32::from(value) * weight;
        }
    }
    for (byte, &sum) in out.iter_mut().zip(sums.iter()) {
        *byte = to_byte(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32, values: &[u8]) -> RgbImage {
        RgbImage::from_raw(width, height, values.iter().flat_map(|&v| [v; 3]).collect()).unwrap()
    }

    fn greys(picture: &RgbImage) -> Vec<u8> {
        picture.data().iter().step_by(CHANNELS).copied().collect()
    }

    /// A picture without pattern, from a linear congruential generator.
    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = 12_345_u32;
        let bytes = (0..width * height * 3).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        });
        RgbImage::from_raw(width, height, bytes.collect()).unwrap()
    }

    const ALL: [Filter; 6] = [
        Filter::Nearest,
        Filter::Box,
        Filter::Bilinear,
        Filter::Hamming,
        Filter::Bicubic,
        Filter::Lanczos,
    ];

    #[test]
    fn halving_with_a_box_takes_means() {
        let picture = grey(4, 1, &[10, 20, 30, 41]);
        // 35.5 is rounded up.
        assert_eq!(greys(&resize(&picture, 2, 1, Filter::Box)), [15, 36]);
    }

    /// The nearest pixel to the middle of two is the right one.
    #[test]
    fn nearest_picks_the_pixel_at_the_centre() {
        let picture = grey(4, 1, &[1, 2, 3, 4]);
        assert_eq!(greys(&resize(&picture, 2, 1, Filter::Nearest)), [2, 4]);
        assert_eq!(
            greys(&resize(&picture, 8, 1, Filter::Nearest)),
            [1, 1, 2, 2, 3, 3, 4, 4]
        );
    }

    /// Doubling with bilinear weights 3/4 and 1/4; at the border only one pixel is left.
    #[test]
    fn doubling_interpolates() {
        let picture = grey(1, 2, &[0, 100]);
        assert_eq!(
            greys(&resize(&picture, 1, 4, Filter::Bilinear)),
            [0, 25, 75, 100]
        );
    }

    /// Bicubic overshoots at an edge; bytes are cut at 0 and 255.
    #[test]
    fn overshoot_is_cut() {
        let picture = grey(4, 1, &[0, 0, 255, 255]);
        let wide = greys(&resize(&picture, 8, 1, Filter::Bicubic));
        assert_eq!((wide[2], wide[5]), (0, 255));
        assert!(wide.is_sorted(), "{wide:?}");
    }

    #[test]
    fn the_same_size_is_a_copy() {
        let picture = noise(5, 4);
        for filter in ALL {
            assert_eq!(resize(&picture, 5, 4, filter), picture);
        }
    }

    #[test]
    fn one_colour_stays_one_colour() {
        let picture = RgbImage::filled(7, 1000, [3, 130, 251]).unwrap();
        for filter in ALL {
            let resized = resize(&picture, 33, 9, filter);
            assert_eq!(
                resized,
                RgbImage::filled(33, 9, [3, 130, 251]).unwrap(),
                "{filter:?}"
            );
        }
    }

    /// A border that exists on paper only gives the same pixels as one of paint.
    #[test]
    fn the_border_is_resized_as_if_it_were_there() {
        for (size, at) in [((9, 70), (23, 0)), ((70, 9), (0, 17)), ((20, 20), (40, 45))] {
            let picture = noise(size.0, size.1);
            let canvas = || Canvas::around(Cow::Borrowed(&picture), (70, 70), at, [122, 116, 104]);
            let painted = canvas().into_picture().into_owned();
            for filter in ALL {
                for side in [1, 13, 70, 93] {
                    let region = Region::whole(side, 41);
                    let on_paper = resize_region(&canvas(), (side, 41), region, filter);
                    assert_eq!(
                        on_paper,
                        resize(&painted, side, 41, filter),
                        "{filter:?} {side}"
                    );
                }
            }
        }
    }

    /// Computing a part gives that part of the whole.
    #[test]
    fn a_region_is_a_part_of_the_whole() {
        let picture = noise(31, 47);
        let region = Region {
            x: 3,
            y: 20,
            width: 11,
            height: 17,
        };
        for filter in ALL {
            for (width, height) in [(19, 40), (31, 40), (19, 47), (90, 60)] {
                let canvas = || Canvas::bare(Cow::Borrowed(&picture));
                let part = resize_region(&canvas(), (width, height), region, filter);
                let whole = resize(&picture, width, height, filter);
                let expected = Canvas::bare(Cow::Owned(whole)).copy_region(region);
                assert_eq!(part, expected, "{filter:?} {width} × {height}");
            }
        }
    }

    #[test]
    fn the_vector_kernel_equals_the_plain_one() {
        let source = noise(40, 5);
        let weights = [1 << 22, -(1 << 20), 12_345, -7, 3 << 20];
        let mut plain = vec![0; 120];
        let mut dispatched = vec![0; 120];
        weigh_any(source.data(), 120, &weights, &mut plain);
        weigh(source.data(), 120, &weights, &mut dispatched);
        assert_eq!(plain, dispatched);
    }

    #[test]
    #[should_panic(expected = "cannot resize to 0 × 3 pixels")]
    fn no_pixels_is_a_mistake_of_the_caller() {
        resize(&noise(2, 2), 0, 3, Filter::Box);
    }
}
