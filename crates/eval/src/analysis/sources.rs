//! Where scores are from: runs, put together by benchmark and by the rules that judged them.

use super::Analysis;
use super::table::RunNote;

/// Digits of a digest that tell it from others.
const SHORT: usize = 12;

/// What stands where nothing is known.
const UNKNOWN: &str = "not stated";

/// Runs whose scores on one benchmark were made in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The benchmark.
    pub benchmark: String,
    /// Whose rules judged the answers.
    pub protocol: String,
    /// Questions that count.
    pub questions: usize,
    /// What judged: names, and the beginning of a digest.
    pub scorer: String,
    /// The beginning of the digest of the files that were read.
    pub data: String,
    /// The runs.
    pub runs: Vec<String>,
}

impl Source {
    fn of(note: &RunNote) -> Self {
        let unknown = || UNKNOWN.to_owned();
        Self {
            benchmark: note.benchmark.clone(),
            protocol: note.protocol.map_or_else(unknown, |p| p.name().to_owned()),
            questions: note.questions,
            scorer: note.scorer.clone().unwrap_or_else(unknown),
            data: match &note.data {
                Some(digest) => digest.chars().take(SHORT).collect(),
                None => unknown(),
            },
            runs: vec![note.run.clone()],
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        let key = |source: &Self| {
            let Self {
                benchmark,
                protocol,
                questions,
                scorer,
                data,
                runs: _,
            } = source.clone();
            (benchmark, protocol, questions, scorer, data)
        };
        key(self) == key(other)
    }
}

impl Analysis {
    /// Where the scores are from, in the order of the runs; nothing for scores of tables.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        for note in &self.table.runs {
            let source = Source::of(note);
            match sources.iter_mut().find(|known| known.is_like(&source)) {
                Some(known) => known.runs.extend(source.runs),
                None => sources.push(source),
            }
        }
        sources
    }

    /// By whose rules the scores were judged, in a few words.
    #[must_use]
    pub fn protocols(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for note in &self.table.runs {
            let name = note.protocol.map_or(UNKNOWN, |protocol| protocol.name());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        // Scores of tables have no answers.
        let mut models = self.table.models.iter();
        if models.any(|model| model.answers.is_empty()) && !names.contains(&UNKNOWN) {
            names.push(UNKNOWN);
        }
        match names.as_slice() {
            [] | [UNKNOWN] => "protocol not stated".to_owned(),
            [one] => format!("{one} protocol"),
            several => format!("protocols: {}", several.join(", ")),
        }
    }
}
