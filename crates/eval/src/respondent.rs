//! Who looks at pictures and answers: a model that was loaded here, or a served one.

use std::sync::Arc;

use opabinia_endpoint::{ChatAnswer, ChatRequest, Endpoint, EndpointError};
use opabinia_image::{ImageError, ImageLimits, ImageSource, RgbImage};
use opabinia_llm::{Conversation, SamplingOptions, StopReason};
use opabinia_model::{Generation, Model, ModelError, Prompt, Seen};
use opabinia_nn::Trace;

use crate::batches::batches;
use crate::benchmark::{PictureData, PicturePlace};
use crate::candidate::Who;
use crate::digest;
use crate::error::{EvalError, in_full};
use crate::feature_cache::FeatureCache;
use crate::plan::Appearance;
use crate::run::EvalOptions;

/// Of a blank picture.
const GREY: [u8; 3] = [128; 3];

/// Statuses that are the fault of one question: it is too long, or its picture is not liked.
const QUESTIONS_FAULT: [u16; 4] = [400, 413, 415, 422];

/// A picture that is ready to be asked about, and its content hash.
pub struct Look {
    /// Hash of the pixels that were shown.
    pub hash: String,
    ready: Ready,
}

/// A picture as who is asked takes it.
enum Ready {
    /// Seen by the encoders.
    Seen(Arc<Seen>),
    /// A file to be sent.
    File(Arc<[u8]>),
}

/// An answer as it comes.
pub struct Reply {
    /// Its words.
    pub text: String,
    /// Digest of the prompt's text, template included where it is known.
    pub prompt_sha256: String,
    /// Whether it was cut at the limit of its length.
    pub cut_off: bool,
    /// Seconds it took.
    pub seconds: f64,
    /// Tokens of the prompt, visual ones included; 0 if the server does not say.
    pub prompt_tokens: usize,
    /// Visual tokens among them.
    pub visual_tokens: usize,
    /// Tokens of the answer.
    pub answer_tokens: usize,
}

/// Why there is no answer.
pub enum Refusal {
    /// This question cannot be asked; others can.
    Question(String),
    /// No question can be asked.
    All(EvalError),
}

/// A question as who answers sees it.
#[derive(Clone, Copy)]
pub struct Asked<'q> {
    /// What is asked.
    pub prompt: &'q str,
    /// What is shown beside it.
    pub look: Option<&'q Look>,
    /// How long the answer may be, in tokens.
    pub max_new_tokens: usize,
}

/// A reply, or why there is none.
type Replied = Result<Reply, Refusal>;

/// Who answers.
pub struct Respondent<'a> {
    who: Who<'a>,
    options: &'a EvalOptions,
    features: Option<FeatureCache<'a>>,
}

impl<'a> Respondent<'a> {
    pub fn new(who: Who<'a>, options: &'a EvalOptions) -> Self {
        let features = match (who, &options.feature_cache) {
            (Who::Local(model), Some(store)) => Some(FeatureCache::new(model, store)),
            _ => None,
        };
        Self {
            who,
            options,
            features,
        }
    }

    /// What became of the cache of features, if there is one.
    pub fn features(&self) -> Option<&FeatureCache<'a>> {
        self.features.as_ref()
    }

    /// Looks at a picture.
    ///
    /// # Errors
    /// Why it cannot be shown.
    pub fn look(&self, data: &PictureData, as_what: Appearance) -> Result<Look, String> {
        let picture = load(data, &self.options.image_limits)?;
        let picture = match as_what {
            Appearance::Blank => RgbImage::filled(picture.width(), picture.height(), GREY)
                .map_err(|error| in_full(&error))?,
            _ => picture,
        };
        let ready = match self.who {
            Who::Local(model) => {
                let seen = match &self.features {
                    Some(features) => features.see(&picture),
                    None => model.see(&picture, &mut Trace::off()),
                };
                Ready::Seen(seen.map_err(|error| named(data, &in_full(&error)))?)
            }
            Who::Served(_) => Ready::File(self.file(data, as_what, &picture)?),
        };
        Ok(Look {
            hash: picture.content_hash(),
            ready,
        })
    }

    /// The picture's own file where endpoints take its format, else a PNG of it.
    fn file(
        &self,
        data: &PictureData,
        as_what: Appearance,
        picture: &RgbImage,
    ) -> Result<Arc<[u8]>, String> {
        if as_what == Appearance::Itself {
            let bytes = data.read().map_err(|error| in_full(&error))?;
            if opabinia_endpoint::data_url(&bytes).is_ok() {
                return Ok(bytes);
            }
        }
        let png = picture.encode_png();
        png.map(Into::into)
            .map_err(|error| named(data, &in_full(&error)))
    }

    /// Asks some questions, as many at a time as [`EvalOptions::batch`] allows; the replies come in the
    /// order of the questions.
    pub fn answer(&self, questions: &[Asked<'_>]) -> Vec<Replied> {
        match self.who {
            Who::Local(model) => self.answer_here(model, questions),
            Who::Served(endpoint) => {
                let each = questions.iter().map(|asked| answer_there(endpoint, asked));
                each.collect()
            }
        }
    }

    fn answer_here(&self, model: &Model, questions: &[Asked<'_>]) -> Vec<Replied> {
        let mut prompts = Vec::with_capacity(questions.len());
        let mut replies: Vec<Option<Replied>> = Vec::with_capacity(questions.len());
        for (place, asked) in questions.iter().enumerate() {
            let pictures: Vec<Arc<Seen>> = match asked.look.map(|look| &look.ready) {
                Some(Ready::Seen(seen)) => vec![Arc::clone(seen)],
                _ => Vec::new(),
            };
            let conversation = Conversation::question(asked.prompt).with_images(pictures.len());
            replies.push(match model.prompt(&conversation) {
                Ok(prompt) => {
                    prompts.push(Prepared {
                        place,
                        limit: asked.max_new_tokens,
                        prompt,
                        pictures,
                    });
                    None
                }
                Err(error) => Some(Err(Refusal::Question(in_full(&error)))),
            });
        }
        let lengths: Vec<(usize, usize)> = prompts.iter().map(Prepared::length).collect();
        for batch in batches(&lengths, self.options.batch) {
            let rows: Vec<&Prepared> = batch.iter().filter_map(|row| prompts.get(*row)).collect();
            for (row, reply) in rows.iter().zip(self.replies(model, &rows)) {
                if let Some(place) = replies.get_mut(row.place) {
                    *place = Some(reply.map_err(|error| Refusal::Question(in_full(&error))));
                }
            }
        }
        let unasked = || Err(Refusal::Question("it was not asked".to_owned()));
        let replies = replies.into_iter();
        replies.map(|reply| reply.unwrap_or_else(unasked)).collect()
    }

    /// Answers of one batch; if it cannot be answered, one question may be at fault, and each is asked
    /// alone.
    fn replies(&self, model: &Model, rows: &[&Prepared]) -> Vec<Result<Reply, ModelError>> {
        match self.generate(model, rows) {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(error) if rows.len() == 1 => vec![Err(error)],
            Err(_) => rows
                .iter()
                .map(|row| {
                    let mut alone = self.generate(model, &[*row])?;
                    alone.pop().ok_or(ModelError::EmptyPrompt)
                })
                .collect(),
        }
    }

    /// Answers of one batch; the seconds of each are its share.
    fn generate(&self, model: &Model, rows: &[&Prepared]) -> Result<Vec<Reply>, ModelError> {
        let limit = rows.first().map_or(0, |row| row.limit);
        let generation = Generation {
            sampling: SamplingOptions {
                temperature: 0.0,
                max_new_tokens: limit,
                ..SamplingOptions::default()
            },
            image_position: self.options.image_position,
            ..Generation::default()
        };
        let packing: Vec<(&Prompt, &[Arc<Seen>])> = rows
            .iter()
            .map(|row| (&row.prompt, row.pictures.as_slice()))
            .collect();
        let packed = model.pack(&packing)?;
        let answers = model.generate(&packed, &generation, &mut |_, _| true)?;
        let count = rows.len().max(1) as f64;
        let replies = answers.into_iter().zip(rows).map(|(answer, row)| Reply {
            prompt_sha256: digest::of(&row.prompt.text),
            cut_off: matches!(answer.stop, StopReason::MaxTokens | StopReason::ContextFull),
            seconds: (answer.prefill_seconds + answer.decode_seconds) / count,
            prompt_tokens: answer.prompt_tokens,
            visual_tokens: answer.visual_tokens,
            answer_tokens: answer.ids.len(),
            text: answer.text,
        });
        Ok(replies.collect())
    }
}

/// A question that is ready to be asked.
struct Prepared {
    /// Among the questions.
    place: usize,
    limit: usize,
    prompt: Prompt,
    pictures: Vec<Arc<Seen>>,
}

impl Prepared {
    /// Limit of the answer and length of the prompt, in tokens.
    fn length(&self) -> (usize, usize) {
        let visual: usize = self.pictures.iter().map(|seen| seen.view.tokens).sum();
        (self.limit, self.prompt.tokens.len() + visual)
    }
}

fn answer_there(endpoint: &Endpoint, asked: &Asked<'_>) -> Replied {
    let Asked {
        prompt,
        look,
        max_new_tokens,
    } = *asked;
    let picture = match look.map(|look| &look.ready) {
        Some(Ready::File(bytes)) => Some(&**bytes),
        _ => None,
    };
    let start = std::time::Instant::now();
    let request = ChatRequest {
        system: None,
        picture,
        text: prompt,
        max_tokens: max_new_tokens,
    };
    let answer: ChatAnswer = endpoint.ask(&request).map_err(|error| match &error {
        EndpointError::Status { status, .. } if QUESTIONS_FAULT.contains(status) => {
            Refusal::Question(in_full(&error))
        }
        EndpointError::Protocol { .. } | EndpointError::Picture => {
            Refusal::Question(in_full(&error))
        }
        _ => Refusal::All(EvalError::Endpoint(error)),
    })?;
    let count = |tokens: Option<u64>| tokens.map_or(0, |tokens| tokens as usize);
    Ok(Reply {
        prompt_sha256: digest::of(prompt),
        cut_off: answer.finish_reason.as_deref() == Some("length"),
        seconds: start.elapsed().as_secs_f64(),
        prompt_tokens: count(answer.prompt_tokens),
        visual_tokens: 0,
        answer_tokens: count(answer.completion_tokens),
        text: answer.text,
    })
}

/// Reads and decodes a picture.
fn load(data: &PictureData, limits: &ImageLimits) -> Result<RgbImage, String> {
    let source = match &data.place {
        PicturePlace::File(path) => ImageSource::File(path.clone()),
        PicturePlace::Memory(_) | PicturePlace::Part { .. } => ImageSource::Bytes {
            bytes: data.read().map_err(|error| in_full(&error))?.to_vec(),
            name: name_of(data),
        },
    };
    opabinia_image::load(&source, limits).map_err(|error: ImageError| in_full(&error))
}

fn named(data: &PictureData, problem: &str) -> String {
    format!("{}: {problem}", name_of(data))
}

/// A picture as messages call it.
fn name_of(data: &PictureData) -> String {
    let short = data.sha256.get(..12).unwrap_or(&data.sha256);
    match &data.place {
        PicturePlace::File(path) => path.display().to_string(),
        PicturePlace::Part { file, .. } => format!("{short} in {}", file.display()),
        PicturePlace::Memory(_) => format!("picture {short}"),
    }
}
