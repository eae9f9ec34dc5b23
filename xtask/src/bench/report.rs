//! Records and table.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::child::Ready;
use super::workloads::Workload;
use crate::failure::{Failure, Outcome};
use crate::workspace::{output_of, root};

/// The line before the table in the document.
const BEGIN: &str = "<!-- bench:begin -->";
/// The line after it.
const END: &str = "<!-- bench:end -->";

/// What one process measured.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) ready: Ready,
    /// One per pass.
    pub(super) seconds: Vec<f64>,
    /// Peak resident memory of the process, where the system tells.
    pub(super) peak_bytes: Option<u64>,
}

impl Side {
    fn median(&self) -> f64 {
        median(&self.seconds)
    }

    fn peak(&self) -> String {
        let gigabytes = |bytes| format!("{:.1} GB", bytes as f64 / 1e9);
        self.peak_bytes.map_or_else(|| "–".into(), gigabytes)
    }
}

/// A workload with one weight format.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) workload: &'static Workload,
    pub(super) dtype: &'static str,
    pub(super) ours: Option<Side>,
    pub(super) theirs: Option<Side>,
}

impl Row {
    /// All that is known, one JSON object per process.
    pub(super) fn records(&self) -> Vec<Value> {
        let record = |side: &Side| {
            json!({
                "workload": self.workload.name,
                "dtype": self.dtype,
                "about": side.ready.about,
                "parameters": side.ready.parameters,
                "amount": side.ready.amount,
                "seconds": side.seconds,
                "peak_bytes": side.peak_bytes,
            })
        };
        [&self.ours, &self.theirs]
            .into_iter()
            .flatten()
            .map(record)
            .collect()
    }

    /// How many times as fast as PyTorch this program is.
    fn ratio(&self) -> Option<f64> {
        Some(self.theirs.as_ref()?.median() / self.ours.as_ref()?.median())
    }

    fn line(&self) -> String {
        let speed = |side: &Option<Side>| match side {
            Some(side) => self.workload.unit.show(side.ready.amount, side.median()),
            None => "–".into(),
        };
        let peak = |side: &Option<Side>| side.as_ref().map_or_else(|| "–".into(), Side::peak);
        let ratio = self
            .ratio()
            .map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"));
        format!(
            "| {} | {} | {} | {} | {ratio} | {} | {} |",
            self.workload.title,
            self.dtype,
            speed(&self.ours),
            speed(&self.theirs),
            peak(&self.ours),
            peak(&self.theirs),
        )
    }
}

/// Where it was measured.
#[derive(Debug)]
pub(super) struct Machine {
    processor: String,
    threads: usize,
    commit: Option<String>,
}

impl Machine {
    /// The machine that this runs on.
    pub(super) fn of_this(threads: usize) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mut git = std::process::Command::new("git");
        git.args(["rev-parse", "--short", "HEAD"])
            .current_dir(root());
        Self {
            processor: processor(&cpuinfo),
            threads,
            // Sources without a repository have no commit.
            commit: output_of(&mut git).ok().map(|text| text.trim().to_owned()),
        }
    }
}

/// The processor's name, and what of its vector units matters to matrix products.
fn processor(cpuinfo: &str) -> String {
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim())
    };
    let Some(model) = field("model name") else {
        return std::env::consts::ARCH.into();
    };
    let flags: Vec<&str> = field("flags").unwrap_or_default().split(' ').collect();
    let known = [
        ("avx2", "AVX2"),
        ("avx512f", "AVX-512"),
        ("avx512_bf16", "AVX-512 BF16"),
        ("amx_bf16", "AMX BF16"),
    ];
    let units = known.iter().filter(|(flag, _)| flags.contains(flag));
    let units: Vec<&str> = units.map(|(_, name)| *name).collect();
    format!("{model} ({})", units.join(", "))
}

/// The table, with a line on where it was measured.
pub(super) fn table(rows: &[Row], machine: &Machine, passes: u32) -> String {
    let peer = rows.iter().find_map(|row| row.theirs.as_ref());
    let ours = rows.iter().find_map(|row| row.ours.as_ref());
    let mut text = format!(
        "{}{} on {}, {} threads; medians of {passes} passes.",
        ours.map_or("opabinia", |side| &side.ready.about),
        machine
            .commit
            .as_ref()
            .map_or_else(String::new, |commit| format!(" ({commit})")),
        machine.processor,
        machine.threads,
    );
    match peer {
        Some(peer) => {
            let _ = write!(
                text,
                " Beside {} in the same minutes; a ratio above 1 means that opabinia is faster.",
                peer.ready.about
            );
        }
        None => text.push_str(" Measured without PyTorch beside it: there are no ratios."),
    }
    text.push_str(
        "\n\n| what | weights | opabinia | PyTorch | ratio | peak, opabinia | peak, PyTorch |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        text.push_str(&row.line());
        text.push('\n');
    }
    text
}

/// Puts a table between the markers of a document.
pub(super) fn write(path: &Path, table: &str) -> Outcome {
    let file = |source| Failure::File {
        path: path.to_path_buf(),
        source,
    };
    let document = fs::read_to_string(path).map_err(file)?;
    let replaced = replaced(&document, table).ok_or_else(|| Failure::NoMarkers {
        path: path.to_path_buf(),
        begin: BEGIN,
        end: END,
    })?;
    fs::write(path, replaced).map_err(file)
}

/// A document with another text between its markers; `None` if it has none.
fn replaced(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{after}",
        text.trim()
    ))
}

/// The middle one, or the mean of the middle two; not a number if there is none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.as_slice() {
        [] => f64::NAN,
        values if values.len().is_multiple_of(2) => {
            f64::midpoint(values[values.len() / 2 - 1], values[values.len() / 2])
        }
        values => values[values.len() / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::super::workloads::WORKLOADS;
    use super::*;

    fn side(seconds: &[f64], about: &str) -> Side {
        Side {
            ready: Ready {
                about: about.into(),
                parameters: 1,
                amount: 1.0,
            },
            seconds: seconds.to_vec(),
            peak_bytes: Some(2_500_000_000),
        }
    }

    fn machine() -> Machine {
        Machine {
            processor: "P".into(),
            threads: 2,
            commit: Some("abc".into()),
        }
    }

    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(median(&[3.0, 100.0, 1.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 100.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_row_compares_medians() {
        let row = Row {
            workload: &WORKLOADS[0],
            dtype: "f32",
            ours: Some(side(&[2.0, 2.0, 9.0], "opabinia 1")),
            theirs: Some(side(&[3.0, 3.0, 1.0], "PyTorch 2")),
        };
        let text = table(&[row], &machine(), 3);
        assert!(
            text.contains("| f32 | 2.000 s | 3.000 s | 1.50 | 2.5 GB | 2.5 GB |"),
            "{text}"
        );
        assert!(text.starts_with(
            "opabinia 1 (abc) on P, 2 threads; medians of 3 passes. Beside PyTorch 2"
        ));
    }

    #[test]
    fn without_a_peer_the_table_says_so() {
        let row = Row {
            workload: &WORKLOADS[0],
            dtype: "f32",
            ours: Some(side(&[2.0], "opabinia 1")),
            theirs: None,
        };
        assert_eq!(row.records().len(), 1);
        let text = table(&[row], &machine(), 1);
        assert!(text.contains("| 2.000 s | – | – | 2.5 GB | – |"), "{text}");
        assert!(text.contains("Measured without PyTorch"));
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = replaced(&document, "new\n").unwrap();
        assert_eq!(once, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(replaced(&once, "new\n").unwrap(), once);
        assert_eq!(replaced("no markers", "new"), None);
    }

    #[test]
    fn vector_units_are_named() {
        let text = "model name\t: X 1\nflags\t\t: fpu avx2 avx512f amx_bf16x\n";
        assert_eq!(processor(text), "X 1 (AVX2, AVX-512)");
    }

    #[test]
    fn the_document_has_a_place_for_the_table() {
        let document = fs::read_to_string(root().join("docs/benchmarks.md")).unwrap();
        assert!(replaced(&document, "").is_some());
    }
}
