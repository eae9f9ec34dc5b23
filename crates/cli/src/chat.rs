//! `chat`: several turns with one model.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use opabinia_llm::template::IMAGE_PLACEHOLDER;
use opabinia_llm::{Conversation, StopReason, Turn};
use opabinia_model::{Generation, Model, Seen, Session};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::args::{ImageArgs, ModelArgs, SamplingArgs};
use crate::failure::Failure;
use crate::{Outcome, ask, interrupt, load, output};

/// Talk with a model, with pictures or without.
#[derive(Args)]
pub struct Chat {
    /// Pictures to begin with.
    images: Vec<String>,
    /// System text instead of the template's own.
    #[arg(long)]
    system: Option<String>,
    /// Say how the model was loaded and how pictures were seen.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    image: ImageArgs,
}

const HELP: &str = "\
/image PATH   show a picture with the next message
/undo         forget the last question and answer
/clear        forget everything said and shown
/help         this list
/quit         leave (Ctrl-D too); Ctrl-C stops an answer";

/// What was said and shown.
struct Talk<'a> {
    model: &'a Model,
    session: Session<'a>,
    conversation: Conversation,
    /// In the order of their placeholders.
    shown: Vec<Arc<Seen>>,
    /// To be shown with the next message.
    waiting: Vec<Arc<Seen>>,
}

impl Chat {
    /// Reads lines until the user leaves.
    pub fn run(self) -> Outcome {
        let generation = self.sampling.generation()?;
        let model = load::model(&self.model, self.verbose)?;
        interrupt::watch()?;
        let mut talk = Talk::new(&model, self.system.clone());
        for path in &self.images {
            talk.show(path, &self)?;
        }
        let mut lines = DefaultEditor::new()?;
        loop {
            match lines.readline("> ") {
                Ok(line) => {
                    let line = line.trim();
                    if line.is_empty() {
                        continue;
                    }
                    // A history that cannot be kept is no reason to stop talking.
                    let _ = lines.add_history_entry(line);
                    match self.take(line, &mut talk, &generation) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(failure) => {
                            failure.report();
                        }
                    }
                }
                Err(ReadlineError::Interrupted) => output::note("/quit or Ctrl-D leaves"),
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Obeys or answers a line; false to leave.
    fn take(
        &self,
        line: &str,
        talk: &mut Talk<'_>,
        generation: &Generation,
    ) -> Result<bool, Failure> {
        let Some(command) = line.strip_prefix('/') else {
            talk.say(line, generation, self.verbose)?;
            return Ok(true);
        };
        let (verb, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        match (verb, rest.trim()) {
            ("quit" | "exit", _) => return Ok(false),
            ("help", _) => output::note(HELP),
            ("clear", _) => talk.clear(),
            ("undo", _) => talk.undo(),
            ("image", "") => output::note("/image needs a path"),
            ("image", path) => talk.show(path, self)?,
            _ => output::note(&format!("/{verb} is no command\n{HELP}")),
        }
        Ok(true)
    }
}

impl<'a> Talk<'a> {
    fn new(model: &'a Model, system: Option<String>) -> Self {
        Self {
            model,
            session: Session::new(model),
            conversation: Conversation {
                system,
                turns: Vec::new(),
            },
            shown: Vec::new(),
            waiting: Vec::new(),
        }
    }

    fn show(&mut self, path: &str, chat: &Chat) -> Result<(), Failure> {
        let picture = load::picture(path, &chat.image.limits(), chat.verbose)?;
        let (seen, remembered) = self.session.see(&picture)?;
        if chat.verbose {
            load::describe_view(&seen.view, remembered);
        } else {
            output::note(&format!(
                "looked at {path}: {} visual tokens",
                seen.view.tokens
            ));
        }
        self.waiting.push(seen);
        Ok(())
    }

    /// Says something and shows the answer as it is written. What fails is not remembered.
    fn say(&mut self, text: &str, generation: &Generation, verbose: bool) -> Result<(), Failure> {
        let placeholders = format!("{IMAGE_PLACEHOLDER}\n").repeat(self.waiting.len());
        let mut conversation = self.conversation.clone();
        conversation.turns.push(Turn::user(placeholders + text));
        conversation.turns.push(Turn::open());
        let mut shown = self.shown.clone();
        shown.extend(self.waiting.iter().cloned());

        if shown.len() == 1 {
            ask::warn_of_position(self.model, &conversation, generation)?;
        }
        interrupt::reset();
        let mut at_start = true;
        let answer = self
            .session
            .answer(&conversation, &shown, generation, &mut |_, piece| {
                let piece = if at_start { piece.trim_start() } else { piece };
                at_start &= piece.is_empty();
                output::piece(piece);
                !interrupt::asked()
            })?;
        output::piece("\n");
        if answer.stop == StopReason::Cancelled {
            output::note("(stopped)");
        }
        interrupt::reset();
        if verbose {
            ask::describe(&answer);
        }
        conversation.turns.pop();
        // A template cannot hold an empty answer, and a placeholder in one shows no picture.
        let text = match answer.text.as_str() {
            "" => "…".into(),
            text => text.replace(IMAGE_PLACEHOLDER, "(image)"),
        };
        conversation.turns.push(Turn::assistant(text));
        self.conversation = conversation;
        self.shown = shown;
        self.waiting.clear();
        Ok(())
    }

    fn undo(&mut self) {
        self.conversation.turns.pop();
        if let Some(turn) = self.conversation.turns.pop() {
            let said = turn.text.unwrap_or_default();
            let pictures = said.matches(IMAGE_PLACEHOLDER).count();
            self.shown
                .truncate(self.shown.len().saturating_sub(pictures));
        }
    }

    fn clear(&mut self) {
        self.conversation.turns.clear();
        self.shown.clear();
        self.waiting.clear();
    }
}
