//! `parity`: cases of the reference through this program.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use opabinia_model::fit::Size;
use opabinia_model::parity::{CaseReport, Check, find_cases, run_case_as};
use serde_json::json;

use crate::args::DtypeArg;
use crate::{Outcome, device, output};

/// Prove that this program computes what the reference computed.
#[derive(Args)]
pub struct Parity {
    /// Case folders, or folders of them.
    #[arg(required = true)]
    cases: Vec<PathBuf>,
    /// Type of the large weights: the cases then hold at the tolerance of that type.
    #[arg(long, value_enum, default_value_t = DtypeArg::F32)]
    dtype: DtypeArg,
    /// Device to run on: auto, cpu, cuda, cuda:1, vulkan, metal, rocm.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// One JSON object per case on standard output.
    #[arg(long)]
    json: bool,
    /// Only a line per case, and what does not hold.
    #[arg(short, long)]
    quiet: bool,
}

impl Parity {
    /// Runs every case; 0 only if all hold.
    pub fn run(self) -> Outcome {
        // Cases are small: all types fit.
        let small = Size {
            parameters: 0,
            stored: 0,
            packed: false,
        };
        let found = device::find(&self.device)?;
        let dtype = self.dtype.resolve(&found.device, || Ok(small))?;
        let (mut held, mut failed) = (0, 0);
        for path in &self.cases {
            for folder in find_cases(path)? {
                let holds = match run_case_as(&folder, dtype, &found.device) {
                    Ok(report) => {
                        self.show(&report)?;
                        report.holds()
                    }
                    Err(error) => {
                        let case = folder.display().to_string();
                        if self.json {
                            let line = json!({"case": case, "error": error.to_string()});
                            output::data(&line.to_string());
                        } else {
                            output::data(&format!("✗ {case}: {error}"));
                        }
                        false
                    }
                };
                if holds { held += 1 } else { failed += 1 }
            }
        }
        let cases = |n: usize, one: &str, many: &str| match n {
            1 => format!("1 case {one}"),
            n => format!("{n} cases {many}"),
        };
        let held_cases = cases(held, "holds", "hold");
        let failed_cases = cases(failed, "does not", "do not");
        output::note(&format!("{held_cases}, {failed_cases}"));
        Ok(if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(3)
        })
    }

    fn show(&self, report: &CaseReport) -> Result<(), serde_json::Error> {
        if self.json {
            let mut line = serde_json::to_value(report)?;
            line["holds"] = report.holds().into();
            output::data(&line.to_string());
            return Ok(());
        }
        let mark = if report.holds() { "✓" } else { "✗" };
        let worst = report
            .checks
            .iter()
            .filter_map(|check| check.of_allowed)
            .fold(0.0, f64::max);
        output::data(&format!(
            "{mark} {} ({}): {} compared, largest deviation {:.1} % of what is allowed",
            report.case,
            report.kind,
            report.checks.len(),
            100.0 * worst
        ));
        let shown: Vec<&Check> = report
            .checks
            .iter()
            .filter(|check| !self.quiet || !check.holds)
            .collect();
        if !shown.is_empty() {
            let rows: Vec<Vec<String>> = shown.iter().map(|check| row(check)).collect();
            output::data(&output::table(
                &["", "tensor", "max abs", "max rel", "of allowed"],
                &rows,
            ));
        }
        if !report.not_compared.is_empty() && !self.quiet {
            output::data(&format!(
                "  not computed here: {}",
                report.not_compared.join(", ")
            ));
        }
        Ok(())
    }
}

fn row(check: &Check) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(|| "equal".into(), |v| format!("{v:.2e}"));
    let mut row = vec![
        if check.holds { "✓" } else { "✗" }.into(),
        check.name.clone(),
        number(check.max_abs),
        number(check.max_rel),
        check
            .of_allowed
            .map_or_else(String::new, |v| format!("{:.1} %", 100.0 * v)),
    ];
    if let Some(difference) = &check.difference {
        row[2] = difference.clone();
    }
    row
}
