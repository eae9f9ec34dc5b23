//! From ranks to decisions: the answer of the selection plan, counted and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow_array::RecordBatch;
use datafusion::common::cast::as_uint64_array;
use datafusion::dataframe::DataFrame;
use datafusion::error::Result as DfResult;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::classify::Class;
use crate::counts::Limits;
use crate::error::CurateError;
use crate::places::Places;
use crate::plan;
use crate::sources::Origin;

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// It is in the mixture.
    Kept,
    /// It never was a sample: see the class.
    Class(Class),
    /// An earlier sample says the same.
    Duplicate,
    /// An earlier sample says almost the same.
    NearDuplicate,
    /// Its source is over its own cap.
    Cap,
    /// Its source is over the cap of all.
    CapAll,
    /// Its category is over its quota.
    Quota,
}

impl Outcome {
    /// Its name in ledgers and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Class(class) => class.name(),
            Self::Duplicate => "duplicate",
            Self::NearDuplicate => "near_duplicate",
            Self::Cap => "cap",
            Self::CapAll => "cap_all",
            Self::Quota => "quota",
        }
    }

    /// The steps that drop samples, in their order.
    pub const STEPS: [Self; 5] = [
        Self::Duplicate,
        Self::NearDuplicate,
        Self::Cap,
        Self::CapAll,
        Self::Quota,
    ];
}

/// Runs the plan of near duplicates.
///
/// # Errors
/// If the plan fails, or `cancelled` says so.
pub async fn collect_pairs(
    plan: DataFrame,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<(u64, u64)>, CurateError> {
    let failed = |error| plan::unwrap("find near duplicates", error);
    let mut stream = plan.execute_stream().await.map_err(failed)?;
    let mut pairs = Vec::new();
    while let Some(batch) = next(&mut stream, cancelled).await {
        let batch = batch?.map_err(failed)?;
        let column = |i: usize| as_uint64_array(batch.column(i)).map_err(failed);
        let (later, earlier) = (column(0)?, column(1)?);
        pairs.extend(
            later
                .values()
                .iter()
                .copied()
                .zip(earlier.values().iter().copied()),
        );
    }
    Ok(pairs)
}

/// How often a plan that has nothing to say yet is asked whether it is still wanted.
const LISTEN: Duration = Duration::from_millis(50);

/// The next rows of a plan, unless `cancelled` says that nobody wants them.
async fn next(
    stream: &mut SendableRecordBatchStream,
    cancelled: &(dyn Fn() -> bool + Sync),
) -> Option<Result<DfResult<RecordBatch>, CurateError>> {
    loop {
        if cancelled() {
            return Some(Err(CurateError::Interrupted));
        }
        if let Ok(batch) = tokio::time::timeout(LISTEN, stream.next()).await {
            return batch.map(Ok);
        }
    }
}

/// Rank of lines that are no sample.
const NONE: u32 = 0;

/// Rank of duplicates.
const DUPLICATE: u32 = u32::MAX;

/// Rank of near duplicates.
const NEAR: u32 = u32::MAX - 1;

/// What the selection plan says of every line, by part and row. Eight bytes a line.
#[derive(Debug, Default)]
pub struct Ranks {
    rank: Vec<Vec<u32>>,
    source: Vec<Vec<u32>>,
    /// Keys of sources, by the numbers used in `source`.
    keys: Vec<u64>,
    numbers: BTreeMap<u64, u32>,
    /// Positions of duplicates, ascending, with the position of the first.
    duplicates: Vec<(u64, u64)>,
    available: Vec<u64>,
}

impl Ranks {
    /// Runs the plan. `lines` are the rows of each part.
    ///
    /// # Errors
    /// If the plan fails, or `cancelled` says so.
    pub async fn collect(
        plan: DataFrame,
        lines: &[u64],
        cancelled: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, CurateError> {
        let mut ranks = Self {
            rank: lines.iter().map(|&n| vec![NONE; n as usize]).collect(),
            source: lines.iter().map(|&n| vec![0; n as usize]).collect(),
            ..Self::default()
        };
        let failed = |error| plan::unwrap("select the samples", error);
        let mut stream = plan.execute_stream().await.map_err(failed)?;
        let mut seen = 0;
        while let Some(batch) = next(&mut stream, cancelled).await {
            let batch = batch?.map_err(failed)?;
            ranks.take(&batch).map_err(failed)?;
            seen += batch.num_rows() as u64;
            progress(seen);
        }
        Ok(ranks)
    }

    fn take(&mut self, batch: &RecordBatch) -> DfResult<()> {
        let column = |i: usize| as_uint64_array(batch.column(i));
        let (pos, source, first, rank) = (column(0)?, column(1)?, column(2)?, column(3)?);
        for i in 0..batch.num_rows() {
            let number = self.number(source.value(i));
            let (pos, first) = (pos.value(i), first.value(i));
            let duplicate = pos != first;
            let (part, row) = ((pos >> 32) as usize, (pos & 0xFFFF_FFFF) as usize);
            let rank = u32::try_from(rank.value(i)).unwrap_or(NEAR).min(NEAR - 1);
            let place = self.rank.get_mut(part).and_then(|part| part.get_mut(row));
            let (Some(place), Some(own)) = (place, self.source.get_mut(part)) else {
                return datafusion::common::exec_err!("position {pos} is of no line");
            };
            own[row] = number;
            if duplicate {
                *place = DUPLICATE;
                self.duplicates.push((pos, first));
            } else {
                *place = rank;
                self.available[number as usize] += 1;
            }
        }
        Ok(())
    }

    /// Takes in near duplicates, which the plan left out: positions with that of the sample that they
    /// are almost equal to.
    pub fn add_near(&mut self, near: &[(u64, u64)]) {
        for &(position, first) in near {
            let (part, row) = ((position >> 32) as usize, (position & 0xFFFF_FFFF) as usize);
            let place = self.rank.get_mut(part).and_then(|part| part.get_mut(row));
            if let Some(place) = place.filter(|place| **place == NONE) {
                *place = NEAR;
                self.duplicates.push((position, first));
            }
        }
        self.duplicates.sort_unstable();
    }

    fn number(&mut self, key: u64) -> u32 {
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        let number = self.keys.len() as u32;
        self.keys.push(key);
        self.available.push(0);
        self.numbers.insert(key, number);
        number
    }

    /// Samples of each source and category that are no duplicates, by their places in the source.
    pub fn places(&self, origins: &BTreeMap<u64, Origin>) -> BTreeMap<Origin, Places> {
        let named: Vec<Option<&Origin>> = self.keys.iter().map(|key| origins.get(key)).collect();
        let (mut once, mut several) = (BTreeSet::new(), BTreeSet::new());
        for origin in named.iter().flatten() {
            if !once.insert(origin.source.as_str()) {
                several.insert(origin.source.as_str());
            }
        }
        // Most sources have one category, and then a number says it all.
        let begun = |(origin, &has): (&Option<&Origin>, &u64)| match origin {
            Some(origin) if several.contains(origin.source.as_str()) => {
                Places::Among(Vec::with_capacity(has as usize))
            }
            _ => Places::Whole(has),
        };
        let mut places: Vec<Places> = named.iter().zip(&self.available).map(begun).collect();
        if !several.is_empty() {
            self.gather(&mut places);
        }
        let named = named.into_iter().zip(places);
        named
            .filter_map(|(origin, places)| Some((origin?.clone(), places)))
            .collect()
    }

    /// Lists the places of those whose source has several categories.
    fn gather(&self, places: &mut [Places]) {
        let lines = self.rank.iter().flatten();
        for (&rank, &source) in lines.zip(self.source.iter().flatten()) {
            if !matches!(rank, NONE | DUPLICATE | NEAR)
                && let Some(Places::Among(places)) = places.get_mut(source as usize)
            {
                places.push(rank);
            }
        }
        for places in places {
            if let Places::Among(places) = places {
                places.sort_unstable();
            }
        }
    }

    /// Judges every line by the limits of its source and category, and by its place in the source.
    pub fn decide(
        self,
        origins: &BTreeMap<u64, Origin>,
        places: &BTreeMap<Origin, Places>,
        limits: &BTreeMap<Origin, Limits>,
    ) -> Decisions {
        // The places of the last samples that each step keeps.
        let last = |key| {
            let origin = origins.get(key)?;
            let (places, limits) = (places.get(origin)?, limits.get(origin)?);
            Some([limits.own, limits.all, limits.quota].map(|count| places.last_of(count)))
        };
        let last: Vec<[u64; 3]> = self
            .keys
            .iter()
            .map(|key| last(key).unwrap_or_default())
            .collect();
        let judge = |(&rank, &source): (&u32, &u32)| {
            if rank == NONE {
                return Judged::NotASample;
            }
            if rank == DUPLICATE {
                return Judged::Duplicate;
            }
            if rank == NEAR {
                return Judged::Near;
            }
            let [own, all, quota] = last.get(source as usize).copied().unwrap_or_default();
            match u64::from(rank) {
                rank if rank > own => Judged::Cap,
                rank if rank > all => Judged::CapAll,
                rank if rank > quota => Judged::Quota,
                _ => Judged::Kept,
            }
        };
        let parts = self.rank.iter().zip(&self.source);
        let judged = parts.map(|(rank, source)| rank.iter().zip(source).map(judge).collect());
        Decisions {
            judged: judged.collect(),
            duplicates: self.duplicates,
        }
    }
}

/// What the index alone decides about a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Judged {
    NotASample,
    Kept,
    Duplicate,
    Near,
    Cap,
    CapAll,
    Quota,
}

/// What becomes of every line, by part and row. One byte a line.
#[derive(Debug)]
pub struct Decisions {
    judged: Vec<Vec<Judged>>,
    duplicates: Vec<(u64, u64)>,
}

impl Decisions {
    /// What becomes of a line of this class.
    pub fn outcome(&self, part: usize, row: usize, class: Class) -> Outcome {
        let judged = self.judged.get(part).and_then(|part| part.get(row));
        match judged {
            Some(Judged::Kept) => Outcome::Kept,
            Some(Judged::Duplicate) => Outcome::Duplicate,
            Some(Judged::Near) => Outcome::NearDuplicate,
            Some(Judged::Cap) => Outcome::Cap,
            Some(Judged::CapAll) => Outcome::CapAll,
            Some(Judged::Quota) => Outcome::Quota,
            Some(Judged::NotASample) | None => Outcome::Class(class),
        }
    }

    /// Whether a line is kept.
    pub fn keeps(&self, part: usize, row: usize) -> bool {
        let judged = self.judged.get(part).and_then(|part| part.get(row));
        judged == Some(&Judged::Kept)
    }

    /// Number of lines that are kept, by part.
    pub fn kept(&self) -> Vec<u64> {
        let kept = |part: &Vec<Judged>| part.iter().filter(|j| **j == Judged::Kept).count() as u64;
        self.judged.iter().map(kept).collect()
    }

    /// Position of the sample that a duplicate repeats.
    pub fn first_of(&self, position: u64) -> Option<u64> {
        let at = self
            .duplicates
            .binary_search_by_key(&position, |pair| pair.0);
        at.ok()
            .and_then(|at| self.duplicates.get(at))
            .map(|pair| pair.1)
    }
}
