//! What the processor has, and which code that means.
//!
//! [`OVERRIDE`] in the environment takes an older path than the best, for comparisons and for finding
//! out whether a wrong result comes from one. It can only ask for what the processor has.

use std::sync::OnceLock;

/// The environment's variable that names a path (see [`Path::key`]).
const OVERRIDE: &str = "OPABINIA_CPU";

/// Code for a kind of processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Any processor.
    Portable,
    /// ARM with NEON: every 64-bit ARM.
    Neon,
    /// NEON with the dot product of bytes.
    NeonDot,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL); bytes are multiplied as with AVX2.
    Avx512,
    /// AVX-512 with VNNI, the dot product of bytes.
    Avx512Vnni,
    /// That, and a dot product of bf16 as fast as that of bytes is for its size. AMD's is; Intel's
    /// has half the speed of the f32 product and is not used.
    Avx512Bf16,
}

impl Path {
    /// All paths, for tests.
    pub const ALL: [Self; 7] = [
        Self::Portable,
        Self::Neon,
        Self::NeonDot,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Avx512Bf16,
    ];

    /// The best path of this processor, or the one that the environment [asks](Self::asked) for;
    /// found once.
    ///
    /// What cannot be taken is passed over here: a program asks [`asked`](Self::asked) at its start
    /// and says so.
    #[must_use]
    pub fn best() -> Self {
        static BEST: OnceLock<Path> = OnceLock::new();
        *BEST.get_or_init(|| Self::asked().ok().flatten().unwrap_or_else(detect))
    }

    /// The path that the environment asks for, if it does.
    ///
    /// # Errors
    /// If there is no path of that name, or this processor cannot take it.
    pub fn asked() -> Result<Option<Self>, PathError> {
        match std::env::var_os(OVERRIDE) {
            None => Ok(None),
            Some(name) => Self::by_key(&name.to_string_lossy()).map(Some),
        }
    }

    /// The path of a [key](Self::key).
    ///
    /// # Errors
    /// If there is none, or this processor cannot take it.
    fn by_key(key: &str) -> Result<Self, PathError> {
        let path = Self::ALL.into_iter().find(|path| path.key() == key);
        let path = path.ok_or_else(|| PathError::Unknown(key.to_owned()))?;
        if path.is_available() {
            Ok(path)
        } else {
            Err(PathError::Unavailable(path))
        }
    }

    /// Whether this processor can take the path.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                Self::Avx512Vnni.is_available() && is_x86_feature_detected!("avx512bf16")
            }
            #[allow(unreachable_patterns, reason = "paths of other processors")]
            _ => false,
        }
    }

    /// Whether it multiplies bf16 by bf16, where it is [allowed](crate::Activations) to.
    pub(crate) fn has_bf16(self) -> bool {
        self == Self::Avx512Bf16
    }

    /// The name in the environment.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
            Self::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// A short name, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "NEON",
            Self::NeonDot => "NEON with dot products",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
            Self::Avx512Vnni => "AVX-512 VNNI",
            Self::Avx512Bf16 => "AVX-512 BF16",
        }
    }
}

/// Why the path that was asked for is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathError {
    /// No path has the name.
    #[error(
        "OPABINIA_CPU is `{0}`, which names no code path; this processor has {here}, others have \
         {elsewhere}",
        here = keys(Path::is_available),
        elsewhere = keys(|path| !path.is_available())
    )]
    Unknown(String),
    /// The processor lacks what it needs.
    #[error(
        "OPABINIA_CPU is `{key}`, which this processor cannot run; it has {available}",
        key = .0.key(),
        available = keys(Path::is_available)
    )]
    Unavailable(Path),
}

fn keys(wanted: impl Fn(Path) -> bool) -> String {
    let keys = Path::ALL.into_iter().filter(|path| wanted(*path));
    keys.map(Path::key).collect::<Vec<_>>().join(", ")
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Path {
    let order = if bf16_is_fast() {
        [Path::Avx512Bf16].as_slice()
    } else {
        &[]
    };
    let rest = [Path::Avx512Vnni, Path::Avx512, Path::Avx2];
    let mut paths = order.iter().chain(&rest);
    let found = paths.find(|path| path.is_available());
    found.copied().unwrap_or(Path::Portable)
}

/// AMD's processors take one `vdpbf16ps` where they take one f32 product; Intel's half as many.
#[cfg(target_arch = "x86_64")]
fn bf16_is_fast() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    name.as_flattened() == b"AuthenticAMD"
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Path {
    if Path::NeonDot.is_available() {
        Path::NeonDot
    } else {
        Path::Neon
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Path {
    Path::Portable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_path_is_there() {
        assert!(Path::best().is_available());
        assert!(Path::Portable.is_available());
    }

    #[test]
    fn a_path_is_asked_for_by_its_key() {
        for path in Path::ALL {
            let found = Path::by_key(path.key());
            match path.is_available() {
                true => assert_eq!(found, Ok(path)),
                false => assert_eq!(found, Err(PathError::Unavailable(path))),
            }
        }
        let unknown = Path::by_key("fast").unwrap_err().to_string();
        assert!(
            unknown.contains("`fast`") && unknown.contains("this processor has portable"),
            "{unknown}"
        );
        let (here, elsewhere) = unknown.split_once("others have").unwrap();
        for path in Path::ALL {
            let key = path.key();
            let named = |text: &str| text.split([' ', ',', ';']).any(|word| word == key);
            assert_eq!(named(here), path.is_available(), "{key}: {unknown}");
            assert_eq!(named(elsewhere), !path.is_available(), "{key}: {unknown}");
        }
    }
}
