//! Records and tables.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::child::Ready;
use super::workloads::{Beside, Group, Workload};
use crate::failure::{Failure, Outcome};

impl Group {
    /// The lines before and after its tables in the document.
    fn markers(self) -> [&'static str; 2] {
        match self {
            Self::Answering => ["<!-- bench:begin -->", "<!-- bench:end -->"],
            Self::LanguageModel => [
                "<!-- bench:language-model:begin -->",
                "<!-- bench:language-model:end -->",
            ],
            Self::Training => [
                "<!-- bench:training:begin -->",
                "<!-- bench:training:end -->",
            ],
            Self::Products => [
                "<!-- bench:products:begin -->",
                "<!-- bench:products:end -->",
            ],
        }
    }
}

/// What one process measured.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) ready: Ready,
    /// One per pass.
    pub(super) seconds: Vec<f64>,
    /// Resident memory after the last pass, where the system tells.
    pub(super) resident_bytes: Option<u64>,
    /// Peak resident memory of the process, where the system tells.
    pub(super) peak_bytes: Option<u64>,
}

impl Side {
    fn median(&self) -> f64 {
        median(&self.seconds)
    }

    /// Seconds for one picture, token or byte.
    fn per_amount(&self) -> f64 {
        self.median() / self.ready.amount
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
    /// This program.
    pub(super) ours: Option<Side>,
    /// What ran beside it: a peer, or this program without what the workload is about.
    pub(super) beside: Option<Side>,
    /// The most that this machine can do.
    pub(super) limit: Option<Side>,
    /// What this program was built from, where Git tells.
    pub(super) commit: Option<String>,
}

impl Row {
    /// How many times as fast as the other side this program is.
    fn ratio(&self) -> Option<f64> {
        Some(self.beside.as_ref()?.per_amount() / self.ours.as_ref()?.per_amount())
    }

    /// How much of what the machine can do at most this program does.
    fn of_limit(&self) -> Option<f64> {
        Some(self.limit.as_ref()?.per_amount() / self.ours.as_ref()?.per_amount())
    }

    /// How many times the memory of the other side it takes at its peak.
    fn peak_ratio(&self) -> Option<f64> {
        let peak = |side: &Option<Side>| Some(side.as_ref()?.peak_bytes? as f64);
        Some(peak(&self.ours)? / peak(&self.beside)?)
    }

    /// The row of a table that compares two sides.
    fn line(&self) -> String {
        let speed = |side: &Option<Side>| match side {
            Some(side) => {
                let speed = self.workload.unit.show(side.ready.amount, side.median());
                let how = if side.ready.compiled {
                    ", compiled"
                } else {
                    ""
                };
                speed + how
            }
            None => "–".into(),
        };
        let peak = |side: &Option<Side>| side.as_ref().map_or_else(|| "–".into(), Side::peak);
        let mut line = format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.workload.title,
            self.dtype,
            speed(&self.ours),
            speed(&self.beside),
            show_ratio(self.ratio()),
            peak(&self.ours),
            peak(&self.beside),
        );
        if matches!(self.workload.beside, Beside::Without(_)) {
            let _ = write!(line, " {} |", show_ratio(self.peak_ratio()));
        }
        if self.workload.limit.is_some() {
            let share = |share| format!("{:.0} %", 100.0 * share);
            let share = self.of_limit().map_or_else(|| "–".into(), share);
            let _ = write!(line, " {} | {share} |", speed(&self.limit));
        }
        line
    }

    /// A sentence on how memory grows; `None` where the system does not tell.
    fn growth(&self) -> Option<String> {
        let ours = self.ours.as_ref()?;
        let (early, late) = (ours.ready.resident? as f64, ours.resident_bytes? as f64);
        Some(format!(
            "Memory over {}: {:.1} MB resident after the first ones, {:.1} MB after the last, \
             ratio {:.3}.",
            self.workload.title,
            early / 1e6,
            late / 1e6,
            late / early
        ))
    }
}

fn show_ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"))
}

/// Where it was measured.
#[derive(Debug)]
pub(super) struct Machine {
    processor: String,
    threads: usize,
}

impl Machine {
    /// The machine that this runs on.
    pub(super) fn of_this(threads: usize) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            processor: processor(&cpuinfo),
            threads,
        }
    }
}

impl Machine {
    /// Where it was measured, in words.
    pub(super) fn about(&self) -> String {
        format!("{}, {} threads", self.processor, self.threads)
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

/// All that is said about the rows of a group: where they were measured, and their tables.
pub(super) fn section(rows: &[&Row], machine: &Machine, passes: u32) -> String {
    let beside = |wanted: fn(&Beside) -> bool| {
        let rows = rows.iter().filter(move |row| wanted(&row.workload.beside));
        rows.copied().collect::<Vec<&Row>>()
    };
    let peers = beside(|beside| beside.peer().is_some());
    let without = beside(|beside| matches!(beside, Beside::Without(_)));
    let growth = beside(|beside| *beside == Beside::Itself);
    let mut parts = vec![introduction(rows, &peers, machine, passes)];
    if !peers.is_empty() {
        let limited = peers.iter().any(|row| row.workload.limit.is_some());
        let (names, lines) = match limited {
            true => (" limit | of it |", " ---: | ---: |"),
            false => ("", ""),
        };
        let peer = peer_name(&peers);
        let head = format!(
            "| what | weights | opabinia | {peer} | ratio | peak, opabinia | peak, {peer} |{names}\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: |{lines}\n"
        );
        parts.push(table(&head, &peers));
    }
    if !without.is_empty() {
        parts.push(table(
            "| what it brings | weights | with it | without | ratio | peak, with it | peak, without | ratio |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            &without,
        ));
    }
    parts.extend(growth.iter().filter_map(|row| row.growth()));
    parts.join("\n\n")
}

/// What runs beside this program; rows of a group have the same peer.
fn peer_name(rows: &[&Row]) -> &'static str {
    let peer = rows.iter().find_map(|row| row.workload.beside.peer());
    peer.map_or("nothing", |(name, _)| name)
}

/// Which program on which machine, and beside what.
fn introduction(rows: &[&Row], peers: &[&Row], machine: &Machine, passes: u32) -> String {
    let ours = rows.iter().find_map(|row| row.ours.as_ref());
    let mut commits: Vec<&str> = Vec::new();
    for commit in rows.iter().filter_map(|row| row.commit.as_deref()) {
        if !commits.contains(&commit) {
            commits.push(commit);
        }
    }
    let commits = match commits.as_slice() {
        [] => String::new(),
        some => format!(" ({})", some.join(", ")),
    };
    let mut text = format!(
        "{}{commits} on {}, {} threads; medians of {passes} passes.",
        ours.map_or("opabinia", |side| &side.ready.about),
        machine.processor,
        machine.threads,
    );
    match peers.iter().find_map(|row| row.beside.as_ref()) {
        Some(peer) => {
            let _ = write!(
                text,
                " Beside {} in the same minutes; a ratio above 1 means that opabinia is faster.",
                peer.ready.about
            );
        }
        None if peers.is_empty() => {}
        None => {
            let peer = peer_name(peers);
            let _ = write!(
                text,
                " Measured without {peer} beside it: there are no ratios."
            );
        }
    }
    text
}

fn table(head: &str, rows: &[&Row]) -> String {
    let lines: Vec<String> = rows.iter().map(|row| row.line()).collect();
    format!("{head}{}", lines.join("\n"))
}

/// Puts the section of a group between its markers in a document.
pub(super) fn write(path: &Path, group: Group, section: &str) -> Outcome {
    write_between(path, group.markers(), section)
}

/// Puts a text between two lines of a document.
pub(super) fn write_between(path: &Path, markers: [&'static str; 2], text: &str) -> Outcome {
    let file = |source| Failure::File {
        path: path.to_path_buf(),
        source,
    };
    let document = fs::read_to_string(path).map_err(file)?;
    let [begin, end] = markers;
    let replaced = replaced(&document, markers, text).ok_or_else(|| Failure::NoMarkers {
        path: path.to_path_buf(),
        begin,
        end,
    })?;
    fs::write(path, replaced).map_err(file)
}

/// A document with another text between two markers; `None` if it has none.
fn replaced(document: &str, [begin, end]: [&str; 2], text: &str) -> Option<String> {
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!(
        "{before}{begin}\n\n{}\n\n{end}{after}",
        text.trim()
    ))
}

/// The middle one, or the mean of the middle two; not a number if there is none.
pub(super) fn median(values: &[f64]) -> f64 {
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
    use crate::workspace::root;

    fn side(seconds: &[f64], about: &str) -> Side {
        Side {
            ready: Ready {
                about: about.into(),
                parameters: 1,
                amount: 1.0,
                losses: Vec::new(),
                compiled: false,
                resident: Some(200_000_000),
            },
            seconds: seconds.to_vec(),
            resident_bytes: Some(210_000_000),
            peak_bytes: Some(2_500_000_000),
        }
    }

    fn row(name: &str, ours: Side, beside: Option<Side>) -> Row {
        let workload = WORKLOADS.iter().find(|w| w.name == name).unwrap();
        Row {
            workload,
            dtype: "f32",
            ours: Some(ours),
            beside,
            limit: None,
            commit: Some("abc".into()),
        }
    }

    fn said(row: &Row) -> String {
        let machine = Machine {
            processor: "P".into(),
            threads: 2,
        };
        section(&[row], &machine, 3)
    }

    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(median(&[3.0, 100.0, 1.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 100.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_row_compares_medians() {
        let mut peer = side(&[3.0, 3.0, 1.0], "PyTorch 2");
        peer.ready.compiled = true;
        let text = said(&row(
            "encoder/clip",
            side(&[2.0, 2.0, 9.0], "opabinia 1"),
            Some(peer),
        ));
        assert!(
            text.contains("| f32 | 2.000 s | 3.000 s, compiled | 1.50 | 2.5 GB | 2.5 GB |"),
            "{text}"
        );
        assert!(text.starts_with(
            "opabinia 1 (abc) on P, 2 threads; medians of 3 passes. Beside PyTorch 2"
        ));
    }

    #[test]
    fn without_a_peer_the_table_says_so() {
        let row = row("encoder/clip", side(&[2.0], "opabinia 1"), None);
        let text = said(&row);
        assert!(text.contains("| 2.000 s | – | – | 2.5 GB | – |"), "{text}");
        assert!(text.contains("Measured without PyTorch"));
    }

    #[test]
    fn a_feature_is_compared_with_its_absence() {
        let mut without = side(&[1.0], "opabinia 1");
        without.peak_bytes = Some(5_000_000_000);
        let row = row(
            "training/checkpointing",
            side(&[2.0], "opabinia 1"),
            Some(without),
        );
        let text = said(&row);
        let figures = "| 0.50 tokens/s | 1.00 tokens/s | 0.50 | 2.5 GB | 5.0 GB | 0.50 |";
        assert!(text.contains(figures), "{text}");
        assert!(!text.contains("PyTorch"), "{text}");
    }

    #[test]
    fn a_product_is_a_share_of_the_limit() {
        let (ours, peer) = (side(&[2.0], "opabinia 1"), side(&[3.0], "PyTorch 2"));
        let mut row = row("product/vit", ours, Some(peer));
        let text = said(&row);
        assert!(text.ends_with("| – | – |"), "{text}");
        row.limit = Some(side(&[1.5], "opabinia 1"));
        let text = said(&row);
        assert!(text.contains(" limit | of it |\n"), "{text}");
        assert!(
            text.ends_with("| 1.50 | 2.5 GB | 2.5 GB | 0 GFLOP/s | 75 % |"),
            "{text}"
        );
    }

    #[test]
    fn a_table_of_several_sittings_names_all_commits() {
        let mut later = row("encoder/siglip", side(&[2.0], "opabinia 1"), None);
        later.commit = Some("def".into());
        let first = row("encoder/clip", side(&[2.0], "opabinia 1"), None);
        let machine = Machine {
            processor: "P".into(),
            threads: 2,
        };
        let text = section(&[&first, &first, &later], &machine, 3);
        assert!(text.starts_with("opabinia 1 (abc, def) on P"), "{text}");
    }

    #[test]
    fn growth_is_a_sentence() {
        let text = said(&row("training/long", side(&[9.0], "opabinia 1"), None));
        let end = "200.0 MB resident after the first ones, 210.0 MB after the last, ratio 1.050.";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        for group in Group::ALL {
            let [begin, end] = group.markers();
            let document = format!("a\n{begin}\nold\n{end}\nb\n");
            let markers = [begin, end];
            let once = replaced(&document, markers, "new\n").unwrap();
            assert_eq!(once, format!("a\n{begin}\n\nnew\n\n{end}\nb\n"));
            assert_eq!(replaced(&once, markers, "new\n").unwrap(), once);
            assert_eq!(replaced("no markers", markers, "new"), None);
        }
    }

    #[test]
    fn vector_units_are_named() {
        let text = "model name\t: X 1\nflags\t\t: fpu avx2 avx512f amx_bf16x\n";
        assert_eq!(processor(text), "X 1 (AVX2, AVX-512)");
    }

    #[test]
    fn the_document_has_a_place_for_every_group() {
        let document = fs::read_to_string(root().join("docs/benchmarks.md")).unwrap();
        for group in Group::ALL {
            assert!(
                replaced(&document, group.markers(), "").is_some(),
                "{group:?}"
            );
        }
        let curation = super::super::curate::MARKERS;
        assert!(replaced(&document, curation, "").is_some());
    }
}
