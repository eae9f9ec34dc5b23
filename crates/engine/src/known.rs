//! What is there already: samples of other pools, read once per run.
//!
//! Of these pools a replay needs no more than what was found in them, so that is kept with the run, and they
//! may change or go.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use opabinia_data::start::Start;
use opabinia_data::{PictureFolder, SampleFile};
use opabinia_image::{ImageSource, dhash, load};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::EngineError;
use crate::filter::words;
use crate::picture::limits;
use crate::plan::{Plan, hex};
use crate::run::Progress;

/// Samples and pictures between two signs of progress, and two looks at whether it is still wanted.
const STEP: usize = 1024;

/// Identifies a question with its answer, whatever its marks and capitals.
pub(crate) fn text_key(question: &str, answer: &str) -> u128 {
    let question = question.replace("<image>", " ");
    let text = format!(
        "{}\n{}",
        words(&question).join(" "),
        words(answer).join(" ")
    );
    let digest = Sha256::digest(text);
    digest
        .iter()
        .take(16)
        .fold(0, |key, byte| key << 8 | u128::from(*byte))
}

/// A file of samples that was compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPool {
    /// Its path, as the plan has it.
    pub path: String,
    /// Hash of its bytes.
    pub sha256: String,
    /// Its samples.
    pub samples: u64,
}

/// What is in other pools.
#[derive(Debug)]
pub(crate) struct Known {
    source: Source,
    pub pools: Vec<KnownPool>,
    /// Samples or pictures that could not be read.
    pub unread: u64,
    met: Mutex<Met>,
}

/// Where it is known from.
#[derive(Debug)]
enum Source {
    /// The pools themselves.
    Pools { texts: HashSet<u128>, looks: Looks },
    /// What a run found in them.
    Run(Met),
}

/// What was looked for and is there, by its hash.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Met {
    texts: BTreeSet<String>,
    looks: BTreeSet<String>,
}

/// What a run keeps of other pools.
#[derive(Serialize, Deserialize)]
struct Kept {
    pools: Vec<KnownPool>,
    unread: u64,
    met: Met,
}

impl Known {
    /// Whether there is this question with its answer.
    pub(crate) fn has_text(&self, key: u128) -> bool {
        let name = format!("{key:032x}");
        let has = match &self.source {
            Source::Pools { texts, .. } => texts.contains(&key),
            Source::Run(met) => met.texts.contains(&name),
        };
        if has {
            self.met().texts.insert(name);
        }
        has
    }

    /// Whether there is a picture that looks like this.
    pub(crate) fn has_look(&self, hash: u64) -> bool {
        let name = format!("{hash:016x}");
        let has = match &self.source {
            Source::Pools { looks, .. } => looks.has_near(hash),
            Source::Run(met) => met.looks.contains(&name),
        };
        if has {
            self.met().looks.insert(name);
        }
        has
    }

    fn met(&self) -> std::sync::MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a replay has to know, as JSON.
    pub(crate) fn kept(&self) -> Result<String, EngineError> {
        let kept = Kept {
            pools: self.pools.clone(),
            unread: self.unread,
            met: self.met().clone(),
        };
        serde_json::to_string(&kept).map_err(|error| EngineError::Damaged(error.to_string()))
    }

    /// What a run kept.
    pub(crate) fn of_run(kept: &str) -> Result<Self, EngineError> {
        let kept: Kept =
            serde_json::from_str(kept).map_err(|error| EngineError::Damaged(error.to_string()))?;
        Ok(Self {
            source: Source::Run(kept.met),
            pools: kept.pools,
            unread: kept.unread,
            met: Mutex::default(),
        })
    }

    /// Reads `filters.pools` and their pictures.
    ///
    /// # Errors
    /// If one cannot be read, or `stop` says so.
    pub(crate) fn read(
        plan: &Plan,
        stop: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Self, EngineError> {
        // All of them are looked at first: to read them may take long.
        for path in &plan.filters.pools {
            refuse_packed(path)?;
        }
        let check = || match stop() {
            true => Err(EngineError::Interrupted),
            false => Ok(()),
        };
        let (mut texts, mut looks) = (HashSet::new(), Looks::new(plan.pictures.near_bits));
        let (mut pools, mut unread) = (Vec::new(), 0);
        let folder = plan.filters.pool_pictures.as_ref();
        let folder = folder
            .map(|root| PictureFolder::open(root, limits(&plan.pictures)))
            .transpose()?;
        // By path, so that a picture of many samples is read once.
        let mut paths = BTreeSet::new();
        for path in &plan.filters.pools {
            check()?;
            let file = SampleFile::open(path)?;
            for i in 0..file.len() {
                if i % STEP == 0 {
                    check()?;
                }
                if (i + 1) % STEP == 0 || i + 1 == file.len() {
                    progress(Progress {
                        stage: "other pools",
                        done: i + 1,
                        total: file.len(),
                    });
                }
                let Ok(sample) = file.sample(i) else {
                    unread += 1;
                    continue;
                };
                for pair in sample.turns.chunks_exact(2) {
                    texts.insert(text_key(&pair[0].text, &pair[1].text));
                }
                match folder.as_ref().map(|folder| folder.find(&sample)) {
                    Some(Ok(path)) => paths.extend(path),
                    Some(Err(_)) => unread += 1,
                    None => {}
                }
            }
            pools.push(KnownPool {
                path: path.display().to_string(),
                sha256: hex(file.sha256()),
                samples: file.len() as u64,
            });
        }
        let paths: Vec<_> = paths.into_iter().collect();
        for (i, some) in paths.chunks(STEP).enumerate() {
            check()?;
            let look = |path: &std::path::PathBuf| {
                let picture = load(&ImageSource::File(path.clone()), &limits(&plan.pictures));
                picture.ok().map(|picture| dhash(&picture))
            };
            let hashes: Vec<Option<u64>> = some.par_iter().map(look).collect();
            unread += hashes.iter().filter(|hash| hash.is_none()).count() as u64;
            for hash in hashes.into_iter().flatten() {
                looks.add(hash);
            }
            progress(Progress {
                stage: "their pictures",
                done: (i * STEP + some.len()).min(paths.len()),
                total: paths.len(),
            });
        }
        Ok(Self {
            source: Source::Pools { texts, looks },
            pools,
            unread,
            met: Mutex::default(),
        })
    }
}

/// Refuses a file that is certainly no text. Read as lines, it would be one sample that cannot be read, and
/// nothing would be compared with it.
fn refuse_packed(path: &Path) -> Result<(), EngineError> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(EngineError::io("open", path))?;
    file.take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(EngineError::io("read", path))?;
    match Start::of(&head).packed() {
        None => Ok(()),
        Some(what) => Err(EngineError::PackedPool {
            path: path.to_owned(),
            what,
        }),
    }
}

/// How much of a file says what it is.
const HEAD_BYTES: u64 = 512;

/// Difference hashes, found again if a few bits differ.
///
/// Of `bits + 1` pieces of a hash, at least one is the same where at most `bits` bits differ; so only hashes
/// that share a piece are compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looks {
    bits: u32,
    /// For each piece, hashes by its value.
    pieces: Vec<HashMap<u64, Vec<u64>>>,
}

impl Looks {
    pub(crate) fn new(bits: u32) -> Self {
        let bits = bits.min(63);
        Self {
            bits,
            pieces: vec![HashMap::new(); bits as usize + 1],
        }
    }

    pub(crate) fn add(&mut self, hash: u64) {
        let count = self.pieces.len();
        for (i, piece) in self.pieces.iter_mut().enumerate() {
            piece.entry(cut(hash, i, count)).or_default().push(hash);
        }
    }

    /// Whether there is a hash that differs in so few bits.
    pub(crate) fn has_near(&self, hash: u64) -> bool {
        let count = self.pieces.len();
        let pieces = self.pieces.iter().enumerate();
        let mut fitting = pieces.filter_map(|(i, piece)| piece.get(&cut(hash, i, count)));
        fitting.any(|some| {
            some.iter()
                .any(|known| (known ^ hash).count_ones() <= self.bits)
        })
    }
}

/// Piece `i` of `count` of a hash.
fn cut(hash: u64, i: usize, count: usize) -> u64 {
    let (from, to) = (64 * i / count, 64 * (i + 1) / count);
    (hash >> from) & (u64::MAX >> (64 - (to - from)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// A plan that compares with a pool of `count` samples with one picture.
    fn with_pool(folder: &Path, count: usize) -> Plan {
        let line = r#"{"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]}"#;
        std::fs::write(folder.join("pool.jsonl"), format!("{line}\n").repeat(count)).unwrap();
        let picture = opabinia_image::RgbImage::from_raw(9, 8, vec![7; 9 * 8 * 3]).unwrap();
        picture.save_png(folder.join("a.png")).unwrap();
        let text = format!(
            "name = \"a\"\n[llm]\nurl = \"http://h\"\nmodel = \"m\"\n[web]\ncontact = \"me@example.org\"\n\
             [[fields]]\nname = \"Biology\"\n[filters]\npools = [{:?}]\npool_pictures = {folder:?}\n",
            folder.join("pool.jsonl")
        );
        Plan::parse(Path::new("plan.toml"), &text).unwrap()
    }

    /// 2049 samples are three steps, and their picture is a fourth; a look before the file makes five.
    #[test]
    fn reading_other_pools_ends_at_the_next_step() {
        let folder = tempfile::tempdir().unwrap();
        let plan = with_pool(folder.path(), 2 * STEP + 1);
        let asked = AtomicUsize::new(0);
        let read = |allowed: usize| {
            asked.store(0, Ordering::SeqCst);
            let stop = || asked.fetch_add(1, Ordering::SeqCst) >= allowed;
            Known::read(&plan, &stop, &|_| ())
        };
        let known = read(usize::MAX).unwrap();
        assert_eq!((known.pools[0].samples, known.unread), (2049, 0));
        assert_eq!(asked.load(Ordering::SeqCst), 5);
        for allowed in 0..5 {
            let stopped = read(allowed);
            assert!(
                matches!(stopped, Err(EngineError::Interrupted)),
                "{allowed}"
            );
            assert_eq!(asked.load(Ordering::SeqCst), allowed + 1);
        }
    }

    #[test]
    fn pools_that_are_no_text_are_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let plan = with_pool(folder.path(), 1);
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, what) in [
            (b"\x1F\x8B\x08\0".to_vec(), "compressed with gzip"),
            (b"\x28\xB5\x2F\xFD".to_vec(), "compressed with Zstandard"),
            (b"PAR1\x15".to_vec(), "Parquet"),
            (tar, "a tar file"),
        ] {
            std::fs::write(folder.path().join("pool.jsonl"), bytes).unwrap();
            let refused = Known::read(&plan, &|| false, &|_| ())
                .unwrap_err()
                .to_string();
            assert!(refused.contains(&format!("it is {what}, and")), "{refused}");
            assert!(refused.contains("pool.jsonl --out FOLDER`"), "{refused}");
        }
        std::fs::remove_file(folder.path().join("pool.jsonl")).unwrap();
        let gone = Known::read(&plan, &|| false, &|_| ())
            .unwrap_err()
            .to_string();
        assert!(gone.starts_with("cannot open `"), "{gone}");
    }

    #[test]
    fn questions_are_the_same_whatever_their_marks() {
        assert_eq!(
            text_key("<image>\nWhat is IT?", "a cell."),
            text_key("what is it", "A cell")
        );
        assert_ne!(text_key("what is it", "a"), text_key("what is", "it a"));
    }

    #[test]
    fn what_was_met_is_known_without_the_pools() {
        let mut looks = Looks::new(2);
        looks.add(0b1000);
        let known = Known {
            source: Source::Pools {
                texts: [7, 8].into(),
                looks,
            },
            pools: Vec::new(),
            unread: 3,
            met: Mutex::default(),
        };
        assert!(known.has_text(7) && !known.has_text(9));
        assert!(known.has_look(0b1011) && !known.has_look(0b0111));
        let again = Known::of_run(&known.kept().unwrap()).unwrap();
        assert!(again.has_text(7) && !again.has_text(9));
        // The very hashes: one that is near to them may be near to nothing in the pools.
        assert!(again.has_look(0b1011) && !again.has_look(0b0011));
        assert_eq!(
            (again.unread, again.kept().unwrap()),
            (3, known.kept().unwrap())
        );
        assert!(Known::of_run("{}").is_err());
    }

    #[test]
    fn hashes_that_differ_in_few_bits_are_near() {
        let mut looks = Looks::new(2);
        assert!(!looks.has_near(0));
        looks.add(0b1000);
        assert!(looks.has_near(0b1011) && !looks.has_near(0b0111));
    }

    proptest! {
        #[test]
        fn pieces_find_what_a_search_of_all_finds(known in any::<u64>(), flips in proptest::collection::vec(0u32..64, 0..9), bits in 0u32..9) {
            let mut looks = Looks::new(bits);
            looks.add(known);
            let other = flips.iter().fold(known, |hash, bit| hash ^ (1 << bit));
            prop_assert_eq!(looks.has_near(other), (known ^ other).count_ones() <= bits);
        }
    }
}
