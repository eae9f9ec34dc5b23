//! Every pass of every process as a line of JSON, and measurements that go on from such a file.
//!
//! A whole table takes hours in which the machine should do nothing else, so it can be measured in parts.
//! Both sides of a row are always of the same minutes; rows may be of different ones, and the table says
//! which commits they are of.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::child::Ready;
use super::report::{Row, Side};
use super::workloads::{Beside, Workload};
use crate::failure::Failure;

/// One process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// What it ran; beside a feature this is what the feature is compared with.
    workload: String,
    dtype: String,
    /// Of the program that measured.
    commit: Option<String>,
    about: String,
    parameters: u64,
    amount: f64,
    losses: Vec<f64>,
    #[serde(default)]
    compiled: bool,
    seconds: Vec<f64>,
    /// After warming up and at the end.
    resident_bytes: [Option<u64>; 2],
    peak_bytes: Option<u64>,
}

impl Record {
    fn of(workload: &str, row: &Row, side: &Side) -> Self {
        Self {
            workload: workload.to_owned(),
            dtype: row.dtype.to_owned(),
            commit: row.commit.clone(),
            about: side.ready.about.clone(),
            parameters: side.ready.parameters,
            amount: side.ready.amount,
            losses: side.ready.losses.clone(),
            compiled: side.ready.compiled,
            seconds: side.seconds.clone(),
            resident_bytes: [side.ready.resident, side.resident_bytes],
            peak_bytes: side.peak_bytes,
        }
    }

    fn side(&self) -> Side {
        Side {
            ready: Ready {
                about: self.about.clone(),
                parameters: self.parameters,
                amount: self.amount,
                losses: self.losses.clone(),
                compiled: self.compiled,
                resident: self.resident_bytes[0],
            },
            seconds: self.seconds.clone(),
            resident_bytes: self.resident_bytes[1],
            peak_bytes: self.peak_bytes,
        }
    }
}

/// What a workload runs beside: the same, or what is without a feature.
fn other_name(workload: &Workload) -> &'static str {
    match workload.beside {
        Beside::Without(other) => other,
        Beside::PyTorch | Beside::LlamaCpp | Beside::Itself => workload.name,
    }
}

/// One record per process, this program's first and the limit's last.
pub(super) fn of_row(row: &Row) -> Vec<Record> {
    let limit = row.workload.limit.unwrap_or_default();
    let sides = [
        (row.workload.name, &row.ours),
        (other_name(row.workload), &row.beside),
        (limit, &row.limit),
    ];
    sides
        .into_iter()
        .filter_map(|(name, side)| Some(Record::of(name, row, side.as_ref()?)))
        .collect()
}

/// What has been measured before.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    records: Vec<Record>,
}

impl Earlier {
    /// Reads a file of records.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|source| Failure::File {
            path: path.to_path_buf(),
            source,
        })?;
        let records = text
            .lines()
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|fault| format!("line {}: {fault}", index + 1))
            })
            .collect::<Result<_, String>>();
        records
            .map(|records| Self { records })
            .map_err(|fault| Failure::Rules {
                what: "these are no records of a measurement",
                complaints: vec![format!("{}, {fault}", path.display())],
            })
    }

    /// A row with at least as many passes, and with the other side if one is wanted.
    pub(super) fn row(
        &self,
        workload: &'static Workload,
        dtype: &'static str,
        passes: u32,
        with_peer: bool,
    ) -> Option<Row> {
        let both = match workload.beside {
            Beside::PyTorch | Beside::LlamaCpp => with_peer,
            Beside::Without(_) => true,
            Beside::Itself => false,
        };
        let passes = match workload.beside {
            Beside::Itself => 1,
            Beside::PyTorch | Beside::LlamaCpp | Beside::Without(_) => passes as usize,
        };
        let fits = |record: &Record, name: &str| {
            record.workload == name && record.dtype == dtype && record.seconds.len() >= passes
        };
        // Names, and whether this program ran; in the order of `of_row`.
        let mut wanted = vec![(workload.name, true)];
        if both {
            wanted.push((other_name(workload), workload.beside.peer().is_none()));
        }
        wanted.extend(workload.limit.map(|limit| (limit, true)));
        let found = self.records.windows(wanted.len()).rev().find(|records| {
            let mut pairs = records.iter().zip(&wanted);
            pairs.all(|(record, &(name, own))| {
                fits(record, name) && record.about.starts_with("opabinia") == own
            })
        })?;
        let side = |index: usize| found.get(index).map(Record::side);
        Some(Row {
            workload,
            dtype,
            ours: side(0),
            beside: both.then(|| side(1)).flatten(),
            limit: workload.limit.and_then(|_| side(wanted.len() - 1)),
            commit: found[0].commit.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::workloads::WORKLOADS;
    use super::*;

    fn workload(name: &str) -> &'static Workload {
        WORKLOADS.iter().find(|w| w.name == name).unwrap()
    }

    fn side(about: &str, seconds: &[f64]) -> Side {
        Side {
            ready: Ready {
                about: about.to_owned(),
                parameters: 7,
                amount: 2.0,
                losses: Vec::new(),
                compiled: false,
                resident: Some(1),
            },
            seconds: seconds.to_vec(),
            resident_bytes: Some(3),
            peak_bytes: Some(4),
        }
    }

    fn row(name: &str, beside: &str) -> Row {
        Row {
            workload: workload(name),
            dtype: "bf16",
            ours: Some(side("opabinia 1", &[1.0, 2.0])),
            beside: Some(side(beside, &[3.0, 4.0])),
            limit: None,
            commit: Some("abc".to_owned()),
        }
    }

    /// Written and read again; another row of the same workload stands between, as what a feature is
    /// compared with.
    #[test]
    fn rows_are_found_again() {
        let mut product = row("product/token", "PyTorch 2");
        product.limit = Some(side("opabinia 1", &[0.5, 0.5]));
        let rows = [
            row("llm/decode", "PyTorch 2"),
            row("llm/batch", "opabinia 1"),
            product,
        ];
        let text: Vec<String> = rows
            .iter()
            .flat_map(of_row)
            .map(|record| serde_json::to_string(&record).unwrap())
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        fs::write(&path, text.join("\n")).unwrap();
        let earlier = Earlier::read(&path).unwrap();
        for wanted in &rows {
            let found = earlier.row(wanted.workload, "bf16", 2, true).unwrap();
            assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
        }
        assert!(
            earlier
                .row(workload("llm/decode"), "bf16", 3, true)
                .is_none()
        );
        assert!(
            earlier
                .row(workload("llm/decode"), "int8", 2, true)
                .is_none()
        );
        assert!(
            earlier
                .row(workload("llm/decode"), "bf16", 2, false)
                .is_some()
        );
        assert!(
            earlier
                .row(workload("question/whole"), "bf16", 2, true)
                .is_none()
        );
    }

    #[test]
    fn a_process_is_a_record_under_what_it_ran() {
        let with = row("training/checkpointing", "opabinia 1");
        let names: Vec<String> = of_row(&with).into_iter().map(|r| r.workload).collect();
        assert_eq!(names, ["training/checkpointing", "training/decoder"]);
        let alone = Row {
            beside: None,
            ..row("encoder/clip", "")
        };
        assert_eq!(of_row(&alone).len(), 1);
    }

    #[test]
    fn another_file_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.jsonl");
        fs::write(&path, "{}\n").unwrap();
        let said = Earlier::read(&path).unwrap_err().to_string();
        assert!(said.contains("no records"), "{said}");
        assert!(Earlier::read(&folder.path().join("none")).is_err());
    }
}
