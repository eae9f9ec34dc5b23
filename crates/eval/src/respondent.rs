//! Who looks at pictures and answers: a model that was loaded here, or a served one.

use std::sync::Arc;

use opabinia_endpoint::{ChatAnswer, ChatRequest, Endpoint, EndpointError};
use opabinia_image::{ImageError, ImageLimits, ImageSource, RgbImage};
use opabinia_llm::{Conversation, SamplingOptions, StopReason};
use opabinia_model::{Generation, Model, ModelError, Seen};
use opabinia_nn::Trace;

use crate::benchmark::{PictureData, PicturePlace};
use crate::candidate::Who;
use crate::digest;
use crate::error::{EvalError, in_full};
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

/// Who answers.
pub struct Respondent<'a> {
    who: Who<'a>,
    options: &'a EvalOptions,
}

impl<'a> Respondent<'a> {
    pub fn new(who: Who<'a>, options: &'a EvalOptions) -> Self {
        Self { who, options }
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
                let seen = model.see(&picture, &mut Trace::off());
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

    /// Asks.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn answer(
        &self,
        prompt: &str,
        look: Option<&Look>,
        max_new_tokens: usize,
    ) -> Result<Reply, Refusal> {
        match self.who {
            Who::Local(model) => self
                .answer_here(model, prompt, look, max_new_tokens)
                .map_err(|error| Refusal::Question(in_full(&error))),
            Who::Served(endpoint) => answer_there(endpoint, prompt, look, max_new_tokens),
        }
    }

    fn answer_here(
        &self,
        model: &Model,
        prompt: &str,
        look: Option<&Look>,
        max_new_tokens: usize,
    ) -> Result<Reply, ModelError> {
        let pictures: Vec<Arc<Seen>> = match look.map(|look| &look.ready) {
            Some(Ready::Seen(seen)) => vec![Arc::clone(seen)],
            _ => Vec::new(),
        };
        let generation = Generation {
            sampling: SamplingOptions {
                temperature: 0.0,
                max_new_tokens,
                ..SamplingOptions::default()
            },
            image_position: self.options.image_position,
            ..Generation::default()
        };
        let conversation = Conversation::question(prompt).with_images(pictures.len());
        let prompt = model.prompt(&conversation)?;
        let packed = model.pack(&[(&prompt, &pictures)])?;
        let answers = model.generate(&packed, &generation, &mut |_, _| true)?;
        let answer = answers.into_iter().next().ok_or(ModelError::EmptyPrompt)?;
        Ok(Reply {
            prompt_sha256: digest::of(&prompt.text),
            cut_off: matches!(answer.stop, StopReason::MaxTokens | StopReason::ContextFull),
            seconds: answer.prefill_seconds + answer.decode_seconds,
            prompt_tokens: answer.prompt_tokens,
            visual_tokens: answer.visual_tokens,
            answer_tokens: answer.ids.len(),
            text: answer.text,
        })
    }
}

fn answer_there(
    endpoint: &Endpoint,
    prompt: &str,
    look: Option<&Look>,
    max_new_tokens: usize,
) -> Result<Reply, Refusal> {
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
