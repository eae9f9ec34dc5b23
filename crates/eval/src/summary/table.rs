//! A summary as a table for people.

use super::{Row, Summary, VISUAL_GAIN};
use crate::benchmark::Counts;
use crate::interval::Interval;
use crate::scorer::{Protocol, Unit};
use crate::vision::Vision;

/// A table for people, every row as long as the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// The cells.
    pub rows: Vec<Vec<String>>,
}

impl Summary {
    /// Numbers with one digit in the unit of each row. Every score has its interval beside it.
    #[must_use]
    pub fn table(&self) -> Table {
        let has = |vision: &Vision| {
            let mut rows = self.rows.iter();
            rows.any(|row| row.figure.scores.contains_key(vision))
        };
        let visions: Vec<Vision> = Vision::ALL.into_iter().filter(has).collect();
        let mut header = vec!["questions".to_owned(), "n".to_owned()];
        for vision in &visions {
            header.extend([vision.heading().to_owned(), "95 %".to_owned()]);
        }
        header.extend(["chance", "visual gain", "95 %"].map(str::to_owned));
        let rows = self.rows.iter().map(|row| row.cells(&visions));
        Table {
            header,
            rows: rows.collect(),
        }
    }

    /// The table in Markdown, groups and benchmarks in bold, with what its words mean below.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Table { header, rows } = self.table();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&header);
        text.push_str("| --- |");
        text.push_str(&" ---: |".repeat(header.len() - 1));
        text.push('\n');
        for (row, mut cells) in self.rows.iter().zip(rows) {
            if row.task.is_none() {
                for cell in &mut cells {
                    *cell = format!("**{cell}**");
                }
            }
            text.push_str(&line(&cells));
        }
        text.push_str(
            "\nScores are percentages of right answers where nothing else is said, with 95 % \
             intervals; a wrong picture is that of another question. ",
        );
        text.push_str(&capital(VISUAL_GAIN));
        text.push_str(".\n");
        for set in &self.sets {
            let Counts { rows, faulty, .. } = set.counts;
            text.push_str(&format!(
                "\n- {}: {} protocol, {rows} rows, {faulty} of them faulty",
                set.title, set.protocol
            ));
        }
        if !self.sets.is_empty() {
            text.push('\n');
        }
        text
    }

    /// By whose rules the answers were judged, in a line; empty if nothing was asked.
    #[must_use]
    pub fn protocols(&self) -> String {
        let mut named: Vec<(Protocol, Vec<&str>)> = Vec::new();
        for set in &self.sets {
            match named.iter_mut().find(|(known, _)| *known == set.protocol) {
                Some((_, titles)) => titles.push(&set.title),
                None => named.push((set.protocol, vec![&set.title])),
            }
        }
        match named.as_slice() {
            [] => String::new(),
            [(protocol, _)] => format!("judged by the {protocol} protocol"),
            several => {
                let parts = several.iter().map(|(protocol, titles)| {
                    format!("by the {protocol} protocol: {}", titles.join(", "))
                });
                format!("judged {}", parts.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

impl Row {
    fn cells(&self, visions: &[Vision]) -> Vec<String> {
        let name = match (&self.task, &self.benchmark, &self.group) {
            (Some(task), _, _) => task.clone(),
            (None, Some(benchmark), _) => benchmark.clone(),
            (None, None, Some(group)) => group.clone(),
            (None, None, None) => "all".into(),
        };
        let figure = &self.figure;
        let written = |share: f64| self.written(share);
        let range = |interval: Interval| {
            let Interval { low, high } = interval;
            format!("{}–{}", written(low), written(high))
        };
        let mut cells = vec![name, figure.n.to_string()];
        for vision in visions {
            let score = figure.scores.get(vision);
            cells.push(score.map_or_else(dash, |score| written(score.mean)));
            cells.push(score.map_or_else(dash, |score| range(score.interval)));
        }
        let signed = |share: f64| format!("{:+.1}", figure.scale.full_marks * share);
        cells.push(if figure.scores.is_empty() {
            dash()
        } else {
            written(figure.chance)
        });
        cells.push(figure.visual_gain.map_or_else(dash, signed));
        let gain = figure.visual_gain_interval;
        cells.push(gain.map_or_else(dash, |Interval { low, high }| {
            format!("{} to {}", signed(low), signed(high))
        }));
        cells
    }

    fn written(&self, share: f64) -> String {
        let scale = self.figure.scale;
        match scale.unit {
            Unit::Fraction => format!("{share:.3}"),
            _ => format!("{:.1}", scale.full_marks * share),
        }
    }
}

fn dash() -> String {
    "–".to_owned()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use crate::summary::tests::{records, summary};

    #[test]
    fn markdown_by_hand() {
        let text = summary(&records()).markdown();
        let mut lines = text.lines();
        assert_eq!(
            lines.next().unwrap(),
            "| questions | n | score | 95 % | without picture | 95 % | chance | visual gain | 95 % |"
        );
        assert_eq!(
            lines.next().unwrap(),
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
        );
        assert_eq!(
            lines.next().unwrap(),
            "| **all** | **4** | **75.0** | **30.1–95.4** | **25.0** | **4.6–69.9** | **25.0** | \
             **+50.0** | **-6.6 to +100.0** |"
        );
        assert!(
            text.contains(
                "\n| count | 1 | 100.0 | 20.7–100.0 | 0.0 | 0.0–79.3 | 25.0 | +75.0 | – |\n"
            ),
            "{text}"
        );
        assert!(text.contains("Visual gain = score − max"), "{text}");
    }
}
