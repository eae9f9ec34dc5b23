//! `ask`: a question about pictures, or about nothing but words.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use opabinia_llm::template::IMAGE_PLACEHOLDER;
use opabinia_llm::{Conversation, StopReason};
use opabinia_model::{Answer, Model, Seen, Session};
use serde::Serialize;

use crate::args::{ImageArgs, ModelArgs, SamplingArgs};
use crate::failure::Failure;
use crate::{Outcome, interrupt, load, output};

/// Ask a question, with pictures or without.
#[derive(Args)]
pub struct Ask {
    /// Pictures (files, `-` for standard input, `data:` URLs), and last the question.
    #[arg(required = true, value_name = "IMAGE… QUESTION")]
    words: Vec<String>,
    /// Another question about the same pictures, which are not looked at again.
    #[arg(long = "also", value_name = "QUESTION")]
    also: Vec<String>,
    /// System text instead of the template's own.
    #[arg(long)]
    system: Option<String>,
    /// One JSON object per answer on standard output.
    #[arg(long)]
    json: bool,
    /// Say how the model was loaded and how the pictures were seen.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    image: ImageArgs,
}

#[derive(Serialize)]
struct JsonAnswer<'a> {
    question: &'a str,
    #[serde(flatten)]
    answer: &'a Answer,
    pictures: Vec<JsonPicture<'a>>,
}

#[derive(Serialize)]
struct JsonPicture<'a> {
    source: &'a str,
    remembered: bool,
    #[serde(flatten)]
    view: &'a opabinia_model::PictureView,
}

impl Ask {
    /// Loads, looks, answers.
    pub fn run(self) -> Outcome {
        let generation = self.sampling.generation()?;
        let Some((question, pictures)) = self.words.split_last() else {
            return Err(Failure::new("no question"));
        };
        if std::iter::once(question)
            .chain(&self.also)
            .any(|question| question.trim().is_empty())
        {
            return Err(Failure::new("a question is empty").hint(
                "the last argument is the question: `opabinia ask photo.png \"What is it?\"`",
            ));
        }
        if Path::new(question).is_file() {
            return Err(Failure::new(format!(
                "`{question}` is a file, and no question follows it"
            ))
            .hint("the last argument is the question: `opabinia ask photo.png \"What is it?\"`"));
        }
        // Pictures first: a broken one should not cost the time to load a model.
        let limits = self.image.limits();
        let decoded = pictures
            .iter()
            .map(|text| load::picture(text, &limits, self.verbose))
            .collect::<Result<Vec<_>, _>>()?;
        let model = load::model(&self.model, self.verbose)?;
        interrupt::watch()?;
        let mut session = Session::new(&model);
        for question in std::iter::once(question).chain(&self.also) {
            let seen = decoded
                .iter()
                .map(|picture| Ok(session.see(picture)?))
                .collect::<Result<Vec<_>, Failure>>()?;
            let asked = Asked {
                question,
                pictures,
                seen: &seen,
            };
            if self.answer(&model, &mut session, &asked, &generation)? {
                return Ok(ExitCode::from(130));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Answers one question; true if the user interrupted.
    fn answer(
        &self,
        model: &Model,
        session: &mut Session<'_>,
        asked: &Asked<'_>,
        generation: &opabinia_model::Generation,
    ) -> Result<bool, Failure> {
        if self.verbose {
            for (seen, remembered) in asked.seen {
                load::describe_view(&seen.view, *remembered);
            }
        }
        // Whoever writes the placeholders chooses where the pictures stand.
        let placed = asked.question.matches(IMAGE_PLACEHOLDER).count();
        let missing = if placed == 0 { asked.seen.len() } else { 0 };
        let mut conversation = Conversation::question(asked.question).with_images(missing);
        conversation.system.clone_from(&self.system);
        let seen: Vec<Arc<Seen>> = asked.seen.iter().map(|(seen, _)| seen.clone()).collect();
        if seen.len() == 1 && placed <= 1 {
            warn_of_position(model, &conversation, generation)?;
        }
        // On a terminal the answer appears as it is written; elsewhere whole.
        let stream = output::is_terminal() && !self.json;
        let mut at_start = true;
        let answer = session.answer(&conversation, &seen, generation, &mut |_, piece| {
            if stream {
                let piece = if at_start { piece.trim_start() } else { piece };
                at_start &= piece.is_empty();
                output::piece(piece);
            }
            !interrupt::asked()
        })?;
        match (self.json, stream) {
            (true, _) => output::data(&asked.json(&answer)?),
            (false, true) => output::piece("\n"),
            (false, false) => output::data(&answer.text),
        }
        if self.verbose {
            describe(&answer);
        }
        Ok(interrupt::asked())
    }
}

/// A question and what it is about.
struct Asked<'a> {
    question: &'a str,
    pictures: &'a [String],
    seen: &'a [(Arc<Seen>, bool)],
}

impl Asked<'_> {
    fn json(&self, answer: &Answer) -> Result<String, Failure> {
        let pictures = self
            .pictures
            .iter()
            .zip(self.seen)
            .map(|(source, (seen, remembered))| {
                // A data URL is a picture, not a name.
                let source = if source.starts_with("data:") {
                    "data:"
                } else {
                    source
                };
                JsonPicture {
                    source,
                    remembered: *remembered,
                    view: &seen.view,
                }
            });
        let line = JsonAnswer {
            question: self.question,
            answer,
            pictures: pictures.collect(),
        };
        Ok(serde_json::to_string(&line)?)
    }
}

/// Says so if in-LLM layers will look where the visual tokens are not.
pub fn warn_of_position(
    model: &Model,
    conversation: &Conversation,
    generation: &opabinia_model::Generation,
) -> Result<(), Failure> {
    if let Some((constant, actual)) = model.misplaced_image(conversation, generation)? {
        output::note(&format!(
            "warning: the prompt's visual tokens start at position {actual}, but in-LLM layers act \
             at {constant} (`image_position` in config.json), as the reference does; \
             `--image-position actual` moves them"
        ));
    }
    Ok(())
}

/// What an answer took.
pub fn describe(answer: &Answer) {
    let tokens = answer.ids.len();
    let rate = if answer.decode_seconds > 0.0 {
        format!(
            "{:.1} tokens/s",
            tokens.saturating_sub(1) as f64 / answer.decode_seconds
        )
    } else {
        "at once".into()
    };
    output::note(&format!(
        "{} prompt tokens ({} visual, {} read before) in {:.2} s; {tokens} answer tokens in {} \
         steps, {rate}; stopped by {}",
        answer.prompt_tokens,
        answer.visual_tokens,
        answer.reused_tokens,
        answer.prefill_seconds,
        answer.steps,
        stop_reason(&answer.stop)
    ));
}

fn stop_reason(stop: &StopReason) -> String {
    match stop {
        StopReason::EndToken(id) => format!("token {id}"),
        StopReason::StopString(text) => format!("`{text}`"),
        StopReason::MaxTokens => "--max-new-tokens".into(),
        StopReason::ContextFull => "the end of the context".into(),
        StopReason::Cancelled => "Ctrl-C".into(),
    }
}
