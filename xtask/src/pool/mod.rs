//! `cargo xtask pool`: a pool like Cambrian-10M, made of random words.
//!
//! Sources, their sizes, the values of `source`, the folders of pictures and the kinds of texts are
//! those of the published pool (arXiv 2406.16860, section 4): 9.6 million samples of 0.9 kB. What
//! matters to a curation is there: many sources of very different sizes in mixed order, samples that
//! repeat earlier ones, and two lines that are broken. Everything is a function of the seed.

mod text;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::{Failure, Outcome};
use text::{Kind, Random, Words};

/// Name, samples of the published pool, value of `source`, folder of pictures, kind of text, category.
const SOURCES: &str = include_str!("sources.tsv");

/// Of so many samples, one repeats an earlier one of its source.
const REPEATS: u64 = 100;

/// Makes a pool like Cambrian-10M, of random words.
#[derive(Args, Clone, Debug)]
pub(crate) struct Pool {
    /// Samples; the published pool has some ten million.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=100_000_000))]
    pub(crate) samples: u64,
    /// Length of the texts, in percent of the published pool's.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) length: u64,
    /// Decides everything.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// File to write.
    #[arg(short, long, default_value = "pool.jsonl")]
    pub(crate) out: PathBuf,
}

/// A source of the published pool.
#[derive(Debug)]
struct Source {
    published: u64,
    field: &'static str,
    image: Option<&'static str>,
    kind: Kind,
    category: &'static str,
}

/// Categories of the published pool, in their order.
pub(crate) const CATEGORIES: [&str; 7] = [
    "Language", "General", "OCR", "Counting", "Math", "Code", "Science",
];

/// Category of each value of `source`: that of most of its samples.
pub(crate) fn categories() -> BTreeMap<&'static str, &'static str> {
    let mut sums: BTreeMap<&'static str, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for source in sources() {
        let own = sums.entry(source.field).or_default();
        *own.entry(source.category).or_default() += source.published;
    }
    let most = |own: BTreeMap<&'static str, u64>| own.into_iter().max_by_key(|(_, sum)| *sum);
    let named = sums.into_iter();
    named
        .filter_map(|(field, own)| Some((field, most(own)?.0)))
        .collect()
}

fn sources() -> Vec<Source> {
    let source = |line: &'static str| {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_default();
        // The first is its name, for who reads the table.
        let (_, published, field, image, kind) = (next(), next(), next(), next(), next());
        let category = next();
        Some(Source {
            published: published.parse().ok()?,
            field,
            image: (!image.is_empty()).then_some(image),
            kind: Kind::named(kind)?,
            category,
        })
    };
    SOURCES.lines().filter_map(source).collect()
}

/// Divides samples among sources as the published pool does; every source has at least one.
fn shares(samples: u64, sources: &[Source]) -> Vec<u64> {
    let all: u64 = sources.iter().map(|source| source.published).sum();
    let share = |source: &Source| {
        let exact = u128::from(samples) * u128::from(source.published) / u128::from(all.max(1));
        (exact as u64).max(1)
    };
    let mut shares: Vec<u64> = sources.iter().map(share).collect();
    // What rounding took too much or left over comes from or goes to the largest.
    let mut sum: u64 = shares.iter().sum();
    while sum > samples {
        if let Some(largest) = shares.iter_mut().max() {
            *largest -= 1;
        }
        sum -= 1;
    }
    if let Some(largest) = shares.iter_mut().max() {
        *largest += samples - sum;
    }
    shares
}

impl Pool {
    /// Writes it, under another name until it is whole.
    pub(crate) fn run(self) -> Outcome {
        let bytes = self.write()?;
        println!(
            "{}: {} samples, {bytes} bytes, {} a sample",
            self.out.display(),
            self.samples,
            bytes / self.samples.max(1)
        );
        Ok(())
    }

    /// Writes it and gives its size in bytes.
    pub(crate) fn write(&self) -> Result<u64, Failure> {
        let temporary = self.out.with_extension("partial");
        let file = |path: &Path, source| Failure::File {
            path: path.to_path_buf(),
            source,
        };
        if let Some(folder) = self.out.parent().filter(|f| !f.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|source| file(folder, source))?;
        }
        let made = File::create(&temporary).map_err(|source| file(&temporary, source))?;
        let mut out = BufWriter::with_capacity(1 << 20, made);
        let bytes = self
            .lines(|line| out.write_all(line))
            .and_then(|bytes| out.flush().map(|()| bytes))
            .map_err(|source| file(&temporary, source))?;
        fs::rename(&temporary, &self.out).map_err(|source| file(&self.out, source))?;
        Ok(bytes)
    }

    /// Hands on one line after the other, line breaks included; gives their bytes.
    fn lines(&self, mut put: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<u64> {
        let sources = sources();
        let mut left = shares(self.samples, &sources);
        let mut made = vec![0_u64; sources.len()];
        let words = Words::new(self.length);
        let mut order = Random::new(self.seed, u64::MAX, 0);
        let mut line = Vec::with_capacity(1 << 16);
        let mut bytes = 0;
        // Where the published pool has its two malformed samples, as shares of it.
        let broken = [0.0665, 0.8558].map(|share| (share * self.samples as f64) as u64);
        for number in 0..self.samples {
            let mut chosen = order.below(self.samples - number);
            let source = left.iter().position(|&own| match chosen < own {
                true => true,
                false => {
                    chosen -= own;
                    false
                }
            });
            let Some(source) = source else { break };
            left[source] -= 1;
            // The first of a source cannot repeat.
            let own = made[source];
            made[source] += 1;
            let repeats = own > 0 && order.below(REPEATS) == 0;
            let content = if repeats { order.below(own) } else { own };
            line.clear();
            let random = Random::new(self.seed, source as u64, content);
            sample(&mut line, &sources[source], number, random, &words)?;
            if broken.contains(&number) {
                line.truncate(line.len() / 2);
            }
            line.push(b'\n');
            put(&line)?;
            bytes += line.len() as u64;
        }
        Ok(bytes)
    }
}

/// Writes a sample: the name differs even where the content repeats.
fn sample(
    line: &mut Vec<u8>,
    source: &Source,
    number: u64,
    mut random: Random,
    words: &Words,
) -> std::io::Result<()> {
    write!(line, "{{\"id\": \"{number:08}\", ")?;
    if let Some(folder) = source.image {
        // Pictures repeat: some three questions about each.
        let picture = random.below(source.published.div_ceil(3).max(1));
        write!(line, "\"image\": \"{folder}/{picture:012}.jpg\", ")?;
    }
    write!(line, "\"conversations\": [")?;
    for exchange in 0..source.kind.exchanges(&mut random) {
        let shown = source.image.is_some() && exchange == 0;
        let (between, image) = (
            if exchange > 0 { ", " } else { "" },
            if shown { "<image>\\n" } else { "" },
        );
        write!(line, "{between}{{\"from\": \"human\", \"value\": \"{image}")?;
        source.kind.question(line, &mut random, words);
        write!(line, "\"}}, {{\"from\": \"gpt\", \"value\": \"")?;
        source.kind.answer(line, &mut random, words);
        write!(line, "\"}}")?;
    }
    write!(line, "], \"source\": \"{}\"}}", source.field)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn made(samples: u64, seed: u64) -> Vec<u8> {
        let pool = Pool {
            samples,
            length: 100,
            seed,
            out: PathBuf::new(),
        };
        let mut text = Vec::new();
        pool.lines(|line| {
            text.extend_from_slice(line);
            Ok(())
        })
        .unwrap();
        text
    }

    #[test]
    fn sizes_of_sources_are_the_published_ones() {
        let sources = sources();
        assert_eq!((sources.len(), SOURCES.lines().count()), (63, 63));
        assert_eq!(sources[0].field, "dvqa_2325k.json");
        assert!(sources.iter().all(|s| CATEGORIES.contains(&s.category)));
        let categories = categories();
        assert_eq!(categories["dvqa_2325k.json"], "OCR");
        // A mixed file, most of it of OCR.
        assert_eq!(categories["idefics375k.json"], "OCR");
        let all: u64 = sources.iter().map(|source| source.published).sum();
        assert_eq!(all, 9_621_500);
        for samples in [100, 12_345, 9_621_500] {
            let shares = shares(samples, &sources);
            assert_eq!(shares.iter().sum::<u64>(), samples);
            assert!(shares.iter().all(|&own| own > 0));
        }
        assert_eq!(shares(all, &sources)[0], 2_325_000);
    }

    #[test]
    fn a_pool_is_a_function_of_its_seed_and_like_the_published_one() {
        let text = made(20_000, 0);
        assert_eq!(text, made(20_000, 0));
        assert_ne!(text, made(20_000, 1));
        // The published pool has 932 bytes a sample.
        let mean = text.len() / 20_000;
        assert!((780..1080).contains(&mean), "{mean}");
        let (mut broken, mut seen, mut repeated) = (0, HashSet::new(), 0);
        let mut fields: BTreeMap<String, u64> = BTreeMap::new();
        for line in text.split(|&byte| byte == b'\n').filter(|l| !l.is_empty()) {
            let Ok(value) = serde_json::from_slice::<serde_json::Value>(line) else {
                broken += 1;
                continue;
            };
            let field = value["source"].as_str().unwrap().to_owned();
            *fields.entry(field).or_default() += 1;
            let turns = value["conversations"].as_array().unwrap();
            assert!(turns.len() >= 2 && turns.len().is_multiple_of(2));
            let content = format!("{}{}", value["image"], value["conversations"]);
            repeated += u32::from(!seen.insert(content));
        }
        assert_eq!(broken, 2);
        assert!((100..400).contains(&repeated), "{repeated}");
        assert!(fields["dvqa_2325k.json"] > 4500);
    }
}
