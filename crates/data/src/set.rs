//! Several files of samples, read as one: what the `files` of a recipe name.

use std::path::PathBuf;

use rayon::prelude::*;

use crate::error::{DataError, Place, SampleError};
use crate::jsonl::SampleFile;
use crate::order::{Modality, SampleLength};
use crate::sample::Sample;

/// Several files, read as one.
#[derive(Debug)]
pub struct SampleSet {
    files: Vec<SampleFile>,
    /// Number of the first sample of each file, and the number of all.
    firsts: Vec<usize>,
}

impl SampleSet {
    /// Indexes all files, several at a time.
    ///
    /// # Errors
    /// As [`SampleFile::open`]; if there are no files or more samples than `u32` counts.
    pub fn open(paths: &[PathBuf]) -> Result<Self, DataError> {
        let files = paths
            .par_iter()
            .map(SampleFile::open)
            .collect::<Result<Vec<_>, _>>()?;
        let mut firsts = vec![0];
        let mut samples = 0;
        for file in &files {
            samples += file.len();
            firsts.push(samples);
        }
        if u32::try_from(samples).is_err() {
            let samples = samples as u64;
            return Err(DataError::TooManySamples { samples });
        }
        Ok(Self { files, firsts })
    }

    /// Number of samples of all files.
    pub fn len(&self) -> usize {
        self.firsts.last().copied().unwrap_or_default()
    }

    /// Whether there is no sample: no file was named.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The files, in the order given.
    pub fn files(&self) -> &[SampleFile] {
        &self.files
    }

    /// Reads sample `i` of all, in the order of the files.
    ///
    /// # Errors
    /// As [`SampleFile::sample`].
    ///
    /// # Panics
    /// If there are not that many samples.
    pub fn sample(&self, i: usize) -> Result<Sample, SampleError> {
        let (file, i) = self.find(i);
        file.sample(i)
    }

    /// Where sample `i` of all is written.
    ///
    /// # Panics
    /// If there are not that many samples.
    pub fn place(&self, i: usize) -> Place {
        let (file, i) = self.find(i);
        file.place(i)
    }

    /// The number of the file that sample `i` of all is in.
    ///
    /// # Panics
    /// If there are not that many samples.
    pub fn file_of(&self, i: usize) -> usize {
        assert!(i < self.len(), "there is no sample {i} of {}", self.len());
        self.firsts.partition_point(|&first| first <= i) - 1
    }

    fn find(&self, i: usize) -> (&SampleFile, usize) {
        let file = self.file_of(i);
        (&self.files[file], i - self.firsts[file])
    }

    /// The length of every sample in words, for grouping; reads all of them. A sample that cannot
    /// be read counts as a text without words, and shows as a fault when its turn comes.
    pub fn lengths(&self) -> Vec<SampleLength> {
        let length = |i| match self.sample(i) {
            Ok(sample) => SampleLength {
                tokens: u32::try_from(sample.words()).unwrap_or(u32::MAX),
                modality: match sample.image {
                    Some(_) => Modality::Image,
                    None => Modality::Text,
                },
            },
            Err(_) => SampleLength {
                tokens: 0,
                modality: Modality::Text,
            },
        };
        (0..self.len()).into_par_iter().map(length).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = r#"{"conversations": [{"from": "human", "value": "How many balls?"}]}"#;
    const B: &str =
        r#"{"image": "b.png", "conversations": [{"from": "human", "value": "<image>"}]}"#;

    #[test]
    fn several_files_are_read_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let paths =
            [("one", format!("{A}\n{B}\nbad")), ("two", format!("[{A}]"))].map(|(name, text)| {
                let path = folder.path().join(name);
                std::fs::write(&path, text).unwrap();
                path
            });
        let set = SampleSet::open(&paths).unwrap();
        assert_eq!(set.len(), 4);
        assert_eq!(set.place(3), Place::new(paths[1].as_path(), 1));
        assert!(set.sample(2).is_err());
        let length = |tokens, modality| SampleLength { tokens, modality };
        let expected = [
            length(3, Modality::Text),
            length(1, Modality::Image),
            length(0, Modality::Text),
            length(3, Modality::Text),
        ];
        assert_eq!(set.lengths(), expected);
    }
}
