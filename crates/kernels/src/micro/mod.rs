//! The innermost loops: a few rows of activations times one or two panels of weights.
//!
//! Every kernel overwrites `out[row · panels + panel]` with the products over the part of `k` that it
//! is given. Sums run over `k` in order, one per output, so a row's result is the same whatever the
//! number of rows beside it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::activations::{Kind, Part};
use crate::format::{BLOCK, Format, GROUP, PANEL, ROW};
use crate::path::Path;

/// Columns of one row.
pub(crate) type Lanes = [f32; PANEL];

/// Panels that a kernel takes at most.
pub(crate) const MAX_PANELS: usize = 2;
/// Rows that a kernel takes at most.
pub(crate) const MAX_ROWS: usize = 12;

/// A kernel: one path's way to multiply one kind of activations with one format of weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    path: Path,
    format: Format,
    kind: Kind,
}

impl Kernel {
    /// The kernel; `rounded` activations may be shorter than f32.
    ///
    /// # Panics
    /// If this processor does not have the path: nothing else makes its instructions sound.
    pub(crate) fn new(path: Path, format: Format, rounded: bool) -> Self {
        assert!(path.is_available(), "this processor has no {}", path.name());
        let kind = match format {
            Format::F32 => Kind::Float,
            Format::Bf16 if rounded && path.has_bf16() => Kind::Pairs,
            Format::Bf16 => Kind::Float,
            Format::Int8 => Kind::Bytes,
            Format::Int4 => Kind::Groups,
        };
        Self { path, format, kind }
    }

    /// The path that was chosen.
    pub(crate) fn path(self) -> Path {
        self.path
    }

    /// The format of the weights.
    pub(crate) fn format(self) -> Format {
        self.format
    }

    /// What activations are prepared as.
    pub(crate) fn kind(self) -> Kind {
        self.kind
    }

    /// The numbers of rows that it takes, the largest first.
    pub(crate) fn rows(self) -> &'static [usize] {
        match (self.path, self.kind) {
            (Path::Avx512, Kind::Bytes | Kind::Groups) => &[4, 2, 1],
            (Path::Avx512 | Path::Avx512Vnni | Path::Avx512Bf16, _) => &[12, 8, 4, 2, 1],
            (Path::Avx2 | Path::Neon | Path::NeonDot, Kind::Float | Kind::Pairs) => &[6, 4, 2, 1],
            _ => &[4, 2, 1],
        }
    }

    /// Panels that it takes at a time.
    pub(crate) fn panels(self) -> usize {
        match self.path {
            Path::Avx512 | Path::Avx512Vnni | Path::Avx512Bf16 => MAX_PANELS,
            _ => 1,
        }
    }

    /// Values of `k` that it should be given at a time. Where rows are many a tile of activations then
    /// stays in the first cache, two panels in the second; where they are `few`, integers are read in
    /// one go.
    pub(crate) fn depth(self, few: bool) -> usize {
        match self.kind {
            Kind::Bytes | Kind::Groups if few => usize::MAX,
            Kind::Float => 2 * BLOCK,
            Kind::Pairs | Kind::Bytes | Kind::Groups => 4 * BLOCK,
        }
    }

    /// Multiplies.
    ///
    /// # Panics
    /// If the parts do not belong together: every kernel counts before it reads.
    pub(crate) fn run(self, a: Part<'_>, panels: &[&[u8]], out: &mut [Lanes]) {
        let words = a.words.len() / a.rows;
        assert_eq!(a.words.len(), words * a.rows);
        assert_eq!(out.len(), a.rows * panels.len());
        for panel in panels {
            assert_eq!(panel.len(), panel_part(self.format, self.kind, words));
        }
        if let Kind::Bytes | Kind::Groups = self.kind {
            let k = words * 4;
            assert_eq!(a.scales.len(), a.rows * k.div_ceil(BLOCK));
            assert_eq!(a.sums.len(), a.rows * k.div_ceil(self.kind.per_sum()));
        }
        match self.path {
            // SAFETY (all arms): `new` found the features on this processor; the lengths were
            // checked above.
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 if matches!(self.kind, Kind::Bytes | Kind::Groups) => unsafe {
                avx2::run(self.format, a, panels, out);
            },
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => unsafe { avx2::run(self.format, a, panels, out) },
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => unsafe { avx512::floats(self.format, a, panels, out) },
            #[cfg(target_arch = "x86_64")]
            Path::Avx512Vnni | Path::Avx512Bf16 => match self.kind {
                Kind::Float => unsafe { avx512::floats(self.format, a, panels, out) },
                Kind::Pairs => unsafe { avx512::pairs(a, panels, out) },
                Kind::Bytes | Kind::Groups => unsafe {
                    avx512::integers(self.format, a, panels, out);
                },
            },
            #[cfg(target_arch = "aarch64")]
            Path::Neon => unsafe { neon::run::<false>(self.format, a, panels, out) },
            #[cfg(target_arch = "aarch64")]
            Path::NeonDot => unsafe { neon::run::<true>(self.format, a, panels, out) },
            _ => portable::run(self.format, a, panels, out),
        }
    }
}

/// Bytes of the part of a panel that goes with that many words per row of activations.
fn panel_part(format: Format, kind: Kind, words: usize) -> usize {
    match kind {
        Kind::Float if format == Format::Bf16 => words / 2 * ROW,
        Kind::Float | Kind::Pairs => words * ROW,
        Kind::Bytes | Kind::Groups => format.offset(words * 4),
    }
}

/// The blocks of 256 of integers, one after the other.
fn blocks<'a>(
    format: Format,
    a: Part<'a>,
    panel: &'a [u8],
) -> impl Iterator<Item = (Part<'a>, &'a [u8])> {
    let words = a.words.len() / a.rows;
    let per_sum = if format == Format::Int8 { BLOCK } else { GROUP };
    (0..words.div_ceil(BLOCK / 4)).map(move |block| {
        let (from, to) = (block * BLOCK / 4, ((block + 1) * BLOCK / 4).min(words));
        let sums = from * 4 / per_sum * a.rows..(to * 4).div_ceil(per_sum) * a.rows;
        let part = Part {
            rows: a.rows,
            words: &a.words[from * a.rows..to * a.rows],
            scales: &a.scales[block * a.rows..][..a.rows],
            sums: &a.sums[sums],
        };
        (part, &panel[format.offset(from * 4)..format.offset(to * 4)])
    })
}
