//! The words of a lexicon: what classes are called, when a token is to say which, and where their embeddings point.

use std::collections::BTreeMap;

use burn::module::Module as _;
use burn::prelude::*;
use opabinia_llm::{SpecialTokens, Tokenizer};
use opabinia_model::Model;
use opabinia_nn::{Grid, Region};

use super::SCALE;
use crate::TrainError;
use crate::pretrain::labels::{IGNORE, LabelDescription};
use crate::pretrain::loss::unit_rows;
use crate::recipe::LexicalTable;

/// Words that a token of the right length is the sum of: a token of four words, each at right angles
/// to the others, is twice as long as one.
const WORDS_LONG: f64 = 2.0;
/// How often a token says the word at the end of a scale.
const LOUD: f32 = 2.0;
/// A token shows a class if one of so many of its cells does.
const SHOWN: usize = 8;

/// The words that classes are called, and which planes they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Lexicon {
    pub(super) description: LabelDescription,
    pub(super) entries: Vec<Entry>,
    /// Planes that mark one cell of each thing, and the value where they mark none.
    marks: Vec<(usize, u16)>,
}

/// A word and when a token is to say it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) word: String,
    /// Planes and rules; one is enough.
    when: Vec<(usize, Rule)>,
}

impl Entry {
    /// Whether it is wanted more or less, and not just yes or no.
    pub(super) fn is_graded(&self) -> bool {
        let graded = |(_, rule): &(usize, Rule)| matches!(rule, Rule::First | Rule::Last);
        self.when.iter().any(graded)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Where this class is.
    Class(u16),
    /// The more, the nearer to the first class of a scale.
    First,
    /// The more, the nearer to the last.
    Last,
}

impl Lexicon {
    /// The words of the planes that a recipe names.
    ///
    /// # Errors
    /// If label maps have no such plane.
    pub fn new(description: LabelDescription, table: &LexicalTable) -> Result<Self, TrainError> {
        let plane = |name: &str| description.plane(name);
        let mut marks = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        let mut say = |word: &str, plane: usize, rule: Rule| match entries
            .iter_mut()
            .find(|entry| entry.word == word)
        {
            Some(entry) => entry.when.push((plane, rule)),
            None => entries.push(Entry {
                word: word.to_owned(),
                when: vec![(plane, rule)],
            }),
        };
        for name in &table.words {
            let index = plane(name)?;
            let Some(found) = description.planes.get(index) else {
                continue;
            };
            let classes = found.classes.iter().zip(0_u16..);
            for (word, class) in classes.filter(|(_, class)| Some(*class) != found.background) {
                say(word, index, Rule::Class(class));
            }
        }
        for (name, [first, last]) in &table.scales {
            let plane = plane(name)?;
            say(first, plane, Rule::First);
            say(last, plane, Rule::Last);
        }
        for (name, word) in &table.marks {
            let index = plane(name)?;
            let Some(found) = description.planes.get(index) else {
                continue;
            };
            let Some(unmarked) = found.background else {
                return Err(TrainError::Refused(format!(
                    "`lexical.marks` names the plane `{name}`, which has no class for cells without a \
                     mark (`background` in labels.json)"
                )));
            };
            marks.push((index, unmarked));
            let classes = (0..).take(found.classes.len());
            for class in classes.filter(|class| *class != unmarked) {
                say(word, index, Rule::Class(class));
            }
        }
        Ok(Self {
            description,
            entries,
            marks,
        })
    }

    /// The same with words that have the same tokens in another order, such as 12 and 21, as one, whose embeddings have
    /// the same mean; and how each word is spelled.
    fn spelled(mut self, tokenizer: &Tokenizer) -> Result<(Self, Vec<Spellings>), TrainError> {
        let (mut places, mut spelled) = (BTreeMap::new(), Vec::new());
        let mut entries: Vec<Entry> = Vec::with_capacity(self.entries.len());
        for entry in self.entries {
            let spellings = spellings(tokenizer, &entry.word)?;
            let key: Vec<_> = spellings.iter().map(|ids| shares(ids)).collect();
            let place = *places
                .entry((entry.is_graded(), key))
                .or_insert(entries.len());
            if let Some(alike) = entries.get_mut(place) {
                alike.when.extend(entry.when);
            } else {
                entries.push(entry);
                spelled.push(spellings);
            }
        }
        self.entries = entries;
        Ok((self, spelled))
    }

    /// The words as a model's tokenizer has them, and their embeddings, `[words, hidden]`, scaled so that a product
    /// with a token and [`BIAS`] make a score. A word of several tokens is their mean, and one that is written in two
    /// ways points between them.
    ///
    /// # Errors
    /// If a word has no tokens, or the embeddings are all zero.
    pub(super) fn directions(self, model: &Model) -> Result<(Self, Tensor<2>), TrainError> {
        let (lexicon, spelled) = self.spelled(&model.tokenizer)?;
        let device = model.device.clone().inner();
        let decoder = model.network.decoder.valid();
        let mut rows = Vec::with_capacity(spelled.len());
        for spellings in spelled {
            let means = spellings
                .iter()
                .map(|ids| decoder.embed(ids, &device).mean_dim(0));
            let means = Tensor::cat(means.collect(), 0);
            let length = means.clone().square().sum_dim(1).sqrt().mean_dim(0);
            rows.push(unit_rows(unit_rows(means).mean_dim(0)) * length);
        }
        let rows = Tensor::cat(rows, 0);
        let lengths = rows.clone().square().sum_dim(1).sqrt();
        let length = f64::from(lengths.mean().into_scalar::<f32>());
        if !length.is_normal() {
            return Err(TrainError::Refused(
                "the decoder's embeddings of the words are all zero, or not finite; train the decoder first"
                    .into(),
            ));
        }
        let directions = unit_rows(rows) * (SCALE / (WORDS_LONG * length));
        Ok((lexicon, directions))
    }

    /// What the tokens of a picture are to say: for each cell of `region` of the square `grid`, row by
    /// row, how often it is to say each word.
    pub(super) fn wanted(&self, map: &[u16], grid: Grid, region: &Region) -> Vec<f32> {
        let LabelDescription { rows, cols, .. } = self.description;
        let plane_size = self.description.cells();
        let value = |plane: usize, cell: usize| map.get(plane * plane_size + cell).copied();
        let marked = |cell: &usize| {
            let marks = &mut self.marks.iter();
            marks.any(|&(plane, unmarked)| {
                let said = |value: u16| value != unmarked && value != IGNORE;
                value(plane, *cell).is_some_and(said)
            })
        };
        let mut wanted = Vec::with_capacity(region.rows.len() * region.cols.len() * self.len());
        for row in region.rows.clone() {
            for col in region.cols.clone() {
                let across = span(col, grid.cols, cols);
                let mut cells: Vec<usize> = span(row, grid.rows, rows)
                    .flat_map(|y| across.clone().map(move |x| y * cols + x))
                    .collect();
                if cells.iter().any(marked) {
                    cells.retain(marked);
                }
                wanted.extend(self.entries.iter().map(|entry| {
                    let shares = entry.when.iter().map(|&(plane, rule)| {
                        let values = cells.iter().filter_map(|cell| value(plane, *cell));
                        self.share(plane, rule, values, cells.len())
                    });
                    shares.fold(0.0, f32::max)
                }));
            }
        }
        wanted
    }

    fn share(
        &self,
        plane: usize,
        rule: Rule,
        values: impl Iterator<Item = u16>,
        area: usize,
    ) -> f32 {
        if let Rule::Class(class) = rule {
            let shown = values.filter(|value| *value == class).count();
            return f32::from(u8::from(shown > 0 && shown * SHOWN >= area));
        }
        let plane = self.description.planes.get(plane);
        let last = plane.map_or(1, |plane| plane.classes.len() - 1) as f32;
        let said = values.filter(|value| *value != IGNORE);
        let (sum, count) = said.fold((0.0, 0.0), |(sum, count), value| {
            (sum + f32::from(value) / last, count + 1.0)
        });
        if count == 0.0 {
            return 0.0;
        }
        let place = 2.0 * sum / count - 1.0;
        LOUD * match rule {
            Rule::First => (-place).max(0.0),
            _ => place.max(0.0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The cells of `fine` that lie in cell `index` of `coarse`; at least one.
fn span(index: usize, coarse: usize, fine: usize) -> std::ops::Range<usize> {
    let first = index * fine / coarse;
    first..((index + 1) * fine / coarse).max(first + 1).min(fine)
}

/// How a word is written: tokens of each way.
type Spellings = Vec<Vec<u32>>;

/// The tokens of a word within a sentence, and those at the beginning of an answer or in quotation marks, if they
/// are others.
fn spellings(tokenizer: &Tokenizer, word: &str) -> Result<Spellings, TrainError> {
    let encode = |text: &str| tokenizer.encode(text, SpecialTokens::Omit);
    let is_space = |id: u32| {
        let text = tokenizer.decode(&[id], SpecialTokens::Omit)?;
        Ok::<_, TrainError>(text.trim().is_empty())
    };
    // What a beginning adds, markers and spaces, is not the word.
    let after = |before: &str, between: &str| {
        let whole = encode(&format!("{before}{between}{word}"))?;
        let Some(mut ids) = whole.strip_prefix(&encode(before)?[..]) else {
            return Ok(Vec::new());
        };
        while let [first, rest @ ..] = ids
            && is_space(*first)?
        {
            ids = rest;
        }
        Ok::<_, TrainError>(ids.to_vec())
    };
    let mut within = after("a", " ")?;
    if within.is_empty() {
        within = encode(&format!(" {word}"))?;
    }
    let mut spellings = vec![within, after("\"", "")?];
    spellings.dedup();
    spellings.retain(|ids| !ids.is_empty());
    if word.trim().is_empty() || spellings.is_empty() {
        return Err(TrainError::Refused(format!(
            "the decoder's tokenizer has no tokens for the word `{word}`"
        )));
    }
    Ok(spellings)
}

/// What the mean of tokens depends on: which there are, and their shares.
fn shares(ids: &[u32]) -> Vec<(u32, usize)> {
    let mut counts = BTreeMap::<u32, usize>::new();
    for id in ids {
        *counts.entry(*id).or_default() += 1;
    }
    let common = counts.values().copied().fold(0, greatest_common_divisor);
    let share = |(id, count)| (id, count / common.max(1));
    counts.into_iter().map(share).collect()
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => greatest_common_divisor(b, a % b),
    }
}

#[cfg(test)]
mod tests;
