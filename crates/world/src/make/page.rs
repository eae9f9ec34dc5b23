//! One picture of a world with everything that is said about it.

use std::collections::HashSet;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::MakeOptions;
use super::text::described;
use crate::caption;
use crate::conversation::{Form, Sample, exchange, exchanges};
use crate::knowledge;
use crate::listing::{comparisons, listings};
use crate::picture::{Subject, draw};
use crate::question::{Group, Question, Task, more_of, one_of_each, several};
use crate::stream::{child_seed, stream};
use crate::truth::{Document, Picture, Truth};

/// The two halves of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// To learn from.
    Train,
    /// To be examined with.
    Test,
}

impl Split {
    /// Its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// A line of `questions.jsonl`: a question as it is put to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkQuestion {
    /// Unique within the file.
    pub id: String,
    /// Path of the picture, relative to the folder of the file.
    pub image: String,
    /// Group of benchmarks.
    pub group: Group,
    /// Kind of question.
    pub task: Task,
    /// With its format prompt.
    pub question: String,
    /// Options, where options make sense; not part of `question`.
    pub choices: Option<Vec<String>>,
    /// The right answer.
    pub answer: String,
    /// See [`Question::chance`].
    pub chance: f64,
}

/// What identifies the content of a picture.
pub(super) type Identity = [u8; 32];

/// One picture and its samples.
pub(super) struct Page {
    /// Path relative to the split's folder.
    pub file: String,
    pub subject: Subject,
    pub picture: Picture,
    pub identity: Identity,
    /// How many pictures were drawn and thrown away because the other split has them.
    pub redrawn: usize,
    /// A caption.
    pub align: Sample,
    /// A conversation; there is nothing to ask about some pictures.
    pub instruct: Option<Sample>,
    /// Questions that are made to be read apart from each other; training pictures only.
    pub apart: Option<Sample>,
    /// The same kinds of questions in all forms, each saying which it wants, to be read apart, too;
    /// training pictures only.
    pub single: Option<Sample>,
    /// All parts of the picture in random orders, to be read apart, too; training pictures only.
    pub listed: Option<Sample>,
    /// The same as `instruct`, with words in place of the picture.
    pub described: Option<Sample>,
    /// The questions of `instruct`.
    pub asked: Vec<Question>,
    /// Only of test pictures.
    pub benchmark: Vec<BenchmarkQuestion>,
}

/// Pictures per folder.
pub(super) const SHARD: usize = 1000;

/// Folder of a picture's files: folders with a million entries are slow.
pub(super) fn shard_folder(index: usize) -> String {
    format!("{:02}", index / SHARD)
}

/// Attempts to find a picture that the other split does not have.
const MOST_REDRAWN: usize = 20;
/// Every how many training pictures there is a sample that describes it in words.
const DESCRIBED: usize = 1;
/// Every how many test pictures there is a question about a fact.
const FACTS: usize = 2;
/// Share of conversations that ask for a fact, too.
const FACT_SHARE: f64 = 0.15;
/// Most questions about a picture that are read apart.
const APART: usize = 12;
/// Share of conversations that ask for a caption, too.
const CAPTION_SHARE: f64 = 0.3;
/// Share of pictures whose questions have a caption beside them, so that learning to answer in a
/// word does not unlearn to describe.
const APART_CAPTION_SHARE: f64 = 0.1;
/// Share of pictures with [listings] among their questions, and how many: they teach to find a thing by its
/// name, and long answers outweigh short ones.
const APART_LISTED_SHARE: f64 = 0.5;
const APART_LISTED: usize = 2;
/// Questions of a scene beside the others, and how many: the tasks that are learned last, because several
/// things must be found for them.
const APART_MORE: [(Task, usize); 3] = [(Task::Count, 2), (Task::Depth, 2), (Task::Distance, 2)];
/// Share of the questions apart that offer options and want a letter, if there are options.
const APART_LETTER_SHARE: f64 = 0.1;
/// Share of these questions that say that they want a short answer. All others get one, and the prompt is
/// as long as a question.
const APART_PROMPTED_SHARE: f64 = 0.25;

/// Draws picture `index` of a split and asks about it.
///
/// A page depends on the options, the split and the index alone; only if `taken` has its picture,
/// another one is drawn instead.
pub(super) fn page(
    options: &MakeOptions,
    split: Split,
    index: usize,
    taken: &HashSet<Identity>,
) -> Page {
    let mut redrawn = 0;
    let (subject, picture, identity) = loop {
        let (subject, picture) = draw_attempt(options, split, index, redrawn);
        let identity = identity(&picture);
        // A subject with few pictures could be used up; then the same picture must do.
        if redrawn == MOST_REDRAWN || !taken.contains(&identity) {
            break (subject, picture, identity);
        }
        redrawn += 1;
    };
    let about = About {
        id: format!("{}-{}-{index:06}", split.name(), subject.name()),
        file: format!("images/{}/{index:06}.png", shard_folder(index)),
        source: format!("world/{}", subject.name()),
        picture: &picture,
        options,
    };
    let (asked, instruct) = about.instruct();
    let training = split == Split::Train;
    let benchmark = match split {
        Split::Train => Vec::new(),
        Split::Test => about.benchmark(index),
    };
    Page {
        align: about.align(),
        file: about.file.clone(),
        subject,
        identity,
        redrawn,
        instruct,
        apart: training.then(|| about.apart()).flatten(),
        single: training.then(|| about.single()).flatten(),
        listed: training.then(|| about.listed()),
        described: training.then(|| about.described(index)).flatten(),
        asked,
        benchmark,
        picture,
    }
}

/// The picture of a place in a split, or another one in its stead.
pub(super) fn draw_attempt(
    options: &MakeOptions,
    split: Split,
    index: usize,
    attempt: usize,
) -> (Subject, Picture) {
    let index = index as u64;
    let split = split.name();
    let subject = options.mix.draw(&mut stream(
        options.seed,
        &format!("{split} subject"),
        index,
    ));
    let name = match attempt {
        0 => split.to_owned(),
        n => format!("{split} again {n}"),
    };
    let seed = child_seed(options.seed, &name, index);
    (subject, draw(seed, subject, &options.picture()))
}

/// Two pictures are the same if the same is true about them. There are only so many words, so
/// pictures of one word are compared by their pixels.
fn identity(picture: &Picture) -> Identity {
    let mut hasher = Sha256::new();
    match &picture.truth {
        Truth::Document(Document::Word { .. }) => hasher.update(picture.pixels.data()),
        // Plain data always has a JSON form.
        truth => hasher.update(serde_json::to_vec(truth).unwrap_or_default()),
    }
    hasher.finalize().into()
}

/// A picture, its names, and what is said about it.
struct About<'a> {
    id: String,
    file: String,
    source: String,
    picture: &'a Picture,
    options: &'a MakeOptions,
}

impl About<'_> {
    fn stream(&self, name: &str) -> ChaCha8Rng {
        stream(self.picture.seed, name, 0)
    }

    fn category(&self) -> &'static str {
        match self.picture.truth {
            Truth::Scene(_) => Group::General.name(),
            _ => Group::ChartOcr.name(),
        }
    }

    fn sample(&self, id: String, exchanges: Vec<(String, String)>) -> Sample {
        let image = Some(self.file.clone());
        Sample::new(id, image, &self.source, self.category(), exchanges)
    }

    /// Asks for a caption.
    fn caption(&self, random: &mut ChaCha8Rng) -> (String, String) {
        caption::exchange(&self.picture.truth, random)
    }

    fn align(&self) -> Sample {
        let caption = self.caption(&mut self.stream("caption"));
        self.sample(format!("{}-caption", self.id), vec![caption])
    }

    /// A conversation about the picture; some ask for a fact or for a caption in between.
    fn instruct(&self) -> (Vec<Question>, Option<Sample>) {
        let random = &mut self.stream("conversation");
        let turns = self.options.turns;
        let fact = random.random_bool(FACT_SHARE);
        let caption = turns > 1 && random.random_bool(CAPTION_SHARE);
        let room = turns - usize::from(caption);
        let mut asked = several(&self.picture.truth, room - usize::from(fact), random);
        if fact {
            asked.extend(knowledge::ask(random));
        }
        asked.shuffle(random);
        let form = self.options.forms.draw(random);
        let mut said = exchanges(&asked, form);
        if caption {
            let place = if random.random_bool(0.5) {
                0
            } else {
                said.len()
            };
            said.insert(place, self.caption(random));
        }
        let sample = (!said.is_empty()).then(|| self.sample(self.id.clone(), said));
        (asked, sample)
    }

    /// Many questions about the picture, to be read one by one. What was asked before distracts a decoder that
    /// has yet to find out where to look. Places in numbers are left to the listings.
    fn questions(&self, random: &mut ChaCha8Rng) -> Vec<Question> {
        let truth = &self.picture.truth;
        let mut asked = several(truth, APART, random);
        asked.retain(|question| question.task != Task::Place);
        for (task, most) in APART_MORE {
            more_of(task, truth, most, &mut asked, random);
        }
        if random.random_bool(FACT_SHARE) {
            asked.extend(knowledge::ask(random));
        }
        asked
    }

    /// Questions with short answers, and a few with letters.
    fn apart(&self) -> Option<Sample> {
        let form = |question: Question, random: &mut ChaCha8Rng| match random.random::<f64>() {
            share if share < APART_PROMPTED_SHARE => exchange(&question, Form::Short),
            share if share < APART_PROMPTED_SHARE + APART_LETTER_SHARE => {
                exchange(&question, Form::Letter)
            }
            _ => (question.text, question.answer),
        };
        self.one_by_one("apart", &form)
    }

    /// Questions as people and benchmarks ask them: each in a form of its own, and each says which it wants
    /// ([`crate::conversation`]). Listings and comparisons have the one form that they always have.
    fn single(&self) -> Option<Sample> {
        let forms = self.options.forms;
        let form =
            |question: Question, random: &mut ChaCha8Rng| exchange(&question, forms.draw(random));
        self.one_by_one("single", &form)
    }

    /// [Questions](Self::questions), each in a form. Some pictures have a caption and listings beside them; how
    /// things stand to each other is what a decoder learns last, so every scene has comparisons.
    fn one_by_one(
        &self,
        name: &str,
        form: &dyn Fn(Question, &mut ChaCha8Rng) -> (String, String),
    ) -> Option<Sample> {
        let random = &mut self.stream(name);
        let mut said = Vec::new();
        for question in self.questions(random) {
            said.push(form(question, random));
        }
        if random.random_bool(APART_CAPTION_SHARE) {
            said.push(self.caption(random));
        }
        if random.random_bool(APART_LISTED_SHARE) {
            let mut listed = listings(&self.picture.truth, random);
            listed.shuffle(random);
            said.extend(listed.into_iter().take(APART_LISTED));
        }
        said.extend(comparisons(&self.picture.truth, random));
        (!said.is_empty()).then(|| self.sample(format!("{}-{name}", self.id), said))
    }

    /// What there is in random orders, to be read one by one.
    fn listed(&self) -> Sample {
        let random = &mut self.stream("listed");
        let mut said = listings(&self.picture.truth, random);
        said.extend(comparisons(&self.picture.truth, random));
        self.sample(format!("{}-listed", self.id), said)
    }

    /// What a training picture shows in words, and questions, without the picture.
    fn described(&self, index: usize) -> Option<Sample> {
        if !index.is_multiple_of(DESCRIBED) {
            return None;
        }
        let id = format!("{}-described", self.id);
        let random = &mut self.stream("described");
        described(
            id,
            &self.picture.truth,
            self.options.turns,
            &self.options.forms,
            random,
        )
    }

    /// One question of each task that a test picture allows, for a short answer.
    fn benchmark(&self, index: usize) -> Vec<BenchmarkQuestion> {
        let random = &mut self.stream("benchmark");
        let mut questions = one_of_each(&self.picture.truth, random);
        if index.is_multiple_of(FACTS) {
            questions.extend(knowledge::ask(random));
        }
        let put = |question: Question| BenchmarkQuestion {
            id: format!("{}-{}", self.id, question.id),
            image: self.file.clone(),
            group: question.group,
            task: question.task,
            question: exchange(&question, Form::Short).0,
            choices: question.choices,
            answer: question.answer,
            chance: question.chance,
        };
        questions.into_iter().map(put).collect()
    }
}
