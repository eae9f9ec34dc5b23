//! What is known beforehand about the benchmarks of Cambrian-1 (arXiv 2406.16860).
//!
//! A table of scores that names a benchmark as the paper does need not say which group it belongs
//! to, how many questions it has, or what its full marks are. Everything that a table does say wins.
//!
//! Questions are counted as they are scored: MMVP in pairs, MMBench in circular groups, MME without
//! its cognition half, SEED without its videos. Chance is that of uniform guessing; where choices
//! differ from question to question it is what the benchmark's authors state, and where nothing is
//! stated it is left open.

/// The four groups that Cambrian-1 made of its benchmarks by hand (section 3.1, figure 3).
pub const PUBLISHED_GROUPS: [&str; 4] = ["General", "Knowledge", "OCR & Chart", "Vision-Centric"];

/// One benchmark of the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnownBenchmark {
    /// How reports call it.
    pub name: &'static str,
    /// How tables call it, without case and punctuation.
    pub spellings: &'static [&'static str],
    /// One of [`PUBLISHED_GROUPS`].
    pub group: &'static str,
    /// Scored questions.
    pub questions: u64,
    /// The score that counts as 100 %.
    pub full_marks: f64,
    /// Per cent that uniform guessing gets.
    pub chance: Option<f64>,
}

/// The paper's benchmarks in its order; CV-Bench stands as a whole and as its two halves.
pub const KNOWN_BENCHMARKS: [KnownBenchmark; 17] = [
    // 10 categories of 100 · accuracy + 100 · pairs: 2000 points; by chance 50 + 25 in each.
    known(
        "MME",
        &["mme", "mmep", "mmeperception"],
        0,
        2_114,
        2000.0,
        Some(37.5),
    ),
    known(
        "MMBench",
        &["mmbench", "mmb", "mmben", "mmbenchen", "mmbenchendev"],
        0,
        1_164,
        100.0,
        None,
    ),
    known(
        "SEED",
        &["seed", "seedi", "seedimage", "seedbench"],
        0,
        14_233,
        100.0,
        Some(25.0),
    ),
    known("GQA", &["gqa"], 0, 12_578, 100.0, Some(0.0)),
    known(
        "ScienceQA",
        &["scienceqa", "sqai", "sqa", "scienceqai"],
        1,
        2_017,
        100.0,
        Some(40.1),
    ),
    known(
        "MMMU",
        &["mmmu", "mmmuv", "mmmuval"],
        1,
        900,
        100.0,
        Some(22.1),
    ),
    known(
        "MathVista",
        &["mathvista", "mathvistam", "mathvistatestmini"],
        1,
        1_000,
        100.0,
        Some(17.9),
    ),
    known("AI2D", &["ai2d"], 1, 3_088, 100.0, Some(25.0)),
    known("ChartQA", &["chartqa"], 2, 2_500, 100.0, Some(0.0)),
    known("OCRBench", &["ocrbench"], 2, 1_000, 100.0, Some(0.0)),
    known(
        "TextVQA",
        &["textvqa", "textvqaval"],
        2,
        5_000,
        100.0,
        Some(0.0),
    ),
    known("DocVQA", &["docvqa"], 2, 5_188, 100.0, Some(0.0)),
    // A pair counts when both of its questions of two choices are right.
    known("MMVP", &["mmvp"], 3, 150, 100.0, Some(25.0)),
    known("RealWorldQA", &["realworldqa", "rwqa"], 3, 765, 100.0, None),
    known(CV_BENCH_2D, &["cvbench2d"], 3, 1_438, 100.0, None),
    known(CV_BENCH_3D, &["cvbench3d"], 3, 1_200, 100.0, Some(50.0)),
    known(CV_BENCH, &["cvbench"], 3, 2_638, 100.0, None),
];

/// CV-Bench as a whole: the mean of its halves.
pub(super) const CV_BENCH: &str = "CV-Bench";
/// Its 2D half.
pub(super) const CV_BENCH_2D: &str = "CV-Bench 2D";
/// Its 3D half.
pub(super) const CV_BENCH_3D: &str = "CV-Bench 3D";

const fn known(
    name: &'static str,
    spellings: &'static [&'static str],
    group: usize,
    questions: u64,
    full_marks: f64,
    chance: Option<f64>,
) -> KnownBenchmark {
    KnownBenchmark {
        name,
        spellings,
        group: PUBLISHED_GROUPS[group],
        questions,
        full_marks,
        chance,
    }
}

/// The benchmark of this name, however it is written.
#[must_use]
pub fn known_benchmark(name: &str) -> Option<&'static KnownBenchmark> {
    let letters = letters(name);
    KNOWN_BENCHMARKS
        .iter()
        .find(|known| known.spellings.contains(&letters.as_str()))
}

/// A name without case, spaces and punctuation.
pub(super) fn letters(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_finds_its_benchmark_alone() {
        for known in &KNOWN_BENCHMARKS {
            for spelling in known.spellings {
                assert_eq!(letters(spelling), *spelling);
                assert_eq!(known_benchmark(spelling), Some(known));
            }
            assert_eq!(known_benchmark(known.name), Some(known));
        }
        assert_eq!(known_benchmark("MME_P").unwrap().name, "MME");
        assert_eq!(known_benchmark("SQA-I").unwrap().name, "ScienceQA");
        assert_eq!(known_benchmark("bench00"), None);
    }

    /// Each group has four columns in the paper's tables.
    #[test]
    fn four_columns_for_each_group() {
        for group in PUBLISHED_GROUPS {
            let columns = KNOWN_BENCHMARKS.iter().filter(|b| b.name != CV_BENCH);
            assert_eq!(columns.filter(|b| b.group == group).count(), 4, "{group}");
        }
    }
}
