//! Chat templates: from a list of turns to the text that a decoder was trained to continue.
//!
//! The texts are data (`templates.toml`); code knows only the few [`Style`]s of putting them
//! together. A style is one small function that says what stands around the turns, and one loop
//! renders them all. Names, texts and oddities are those of the reference implementation of
//! Cambrian-1 (arXiv 2406.16860), so that released checkpoints see the prompts they were trained
//! on, to the byte.
//!
//! An image is the text [`IMAGE_PLACEHOLDER`] inside a turn; what stands in for it is decided by
//! whoever packs the prompt. Nothing here looks at pictures or tokens.

mod conversation;

use std::ops::Range;
use std::sync::LazyLock;

use serde::Deserialize;

pub use conversation::{Conversation, Role, Turn};

/// The text that stands for one image in a prompt.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

/// Compiled in, so that a binary never lacks its templates.
static TEMPLATES: LazyLock<Vec<ChatTemplate>> = LazyLock::new(|| {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        template: Vec<ChatTemplate>,
    }
    toml::from_str::<File>(include_str!("templates.toml"))
        .expect("templates.toml is part of the program, and tests read it")
        .template
});

/// Why a prompt could not be rendered or a template not be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No template has this name.
    #[error("no chat template is called `{name}`; {}", suggestion(.similar))]
    UnknownName {
        /// What was asked for.
        name: String,
        /// Known names that look like it, best first; empty if none does.
        similar: Vec<&'static str>,
    },
    /// `config.json` names a family of decoders whose template is not known.
    #[error(
        "no chat template is known for `model_type` `{model_type}`: name one \
         (`conversation_template` in config.json)"
    )]
    UnknownModelType {
        /// `model_type` of `config.json`.
        model_type: String,
    },
    /// There is nothing to render.
    #[error("cannot render a conversation without turns")]
    NoTurns,
    /// Turns must alternate, user first.
    #[error("turn {index} comes from {found}, but turns alternate and the user begins")]
    RoleOrder {
        /// Index of the turn, from 0.
        index: usize,
        /// Who spoke out of turn.
        found: Role,
    },
    /// Only the last turn, and only the assistant's, may be left open.
    #[error("turn {index} ({role}) has no text; only a last turn of the assistant may be open")]
    EmptyTurn {
        /// Index of the turn, from 0.
        index: usize,
        /// Whose turn it is.
        role: Role,
    },
    /// The template does not say how an answer ends, so none can be rendered.
    #[error("template `{template}` has no `sep2`, so it cannot close an answer")]
    NoAnswerEnd {
        /// Name of the template.
        template: String,
    },
}

/// The part of [`TemplateError::UnknownName`] that tells what to do.
fn suggestion(similar: &[&'static str]) -> String {
    if similar.is_empty() {
        format!("the templates are {}", ChatTemplate::names().join(", "))
    } else {
        format!("did you mean {}?", similar.join(" or "))
    }
}

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text, special tokens written out.
    pub text: String,
    /// For every finished answer of the conversation the bytes of `text` that the assistant has to
    /// produce: everything that follows the open prompt, up to and including the end marker.
    /// Answers of a template's preset example are not among them.
    pub answers: Vec<Range<usize>>,
    /// For every turn that has a text the bytes of `text` that hold it, markup around it not
    /// included: what came from outside, and may look like markup without being any.
    pub contents: Vec<Range<usize>>,
}

/// How the parts of a template are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// `role: text`, every turn and the system text ended by `sep`.
    Single,
    /// As [`Style::Single`], but answers end with `sep2`.
    Two,
    /// Roles are markup of their own, every turn and the system text ended by `sep`. The reference
    /// has three names for it: MPT, GEMMA and PHI3.
    Tagged,
    /// `[INST] … [/INST]` around what the user says, system text inside the first of them, spaces
    /// around answers.
    #[serde(rename = "llama-2")]
    Llama2,
    /// As [`Style::Llama2`], without spaces around answers.
    Mistral,
    /// `<|start_header_id|>` markup without the line breaks of Meta's own template. Always ends
    /// with an open assistant turn, as the reference's does, even after a finished answer.
    #[serde(rename = "llama-3")]
    Llama3,
    /// Bare texts.
    Plain,
}

/// What a [`Style`] writes around the texts of the turns.
struct Frame {
    /// Everything before the first user text, system text included.
    opening: String,
    /// Before a later user text.
    user_start: String,
    /// After a user text.
    user_end: String,
    /// What an open prompt ends with.
    assistant: String,
    /// Between that and an answer.
    answer_start: &'static str,
    /// After an answer; `None` if the template cannot close one.
    answer_end: Option<String>,
    /// After a conversation whose last answer is finished.
    closing: String,
}

/// A chat template of the reference.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ChatTemplate {
    /// The name under which configurations ask for it.
    pub name: String,
    /// Other names for the same template.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The reference's label for the family of training masks.
    pub version: String,
    /// How the parts are put together.
    pub style: Style,
    /// What user and assistant are called, markup included.
    pub roles: [String; 2],
    /// End of a turn.
    pub sep: String,
    /// End of an answer, in the styles that have one of its own.
    pub sep2: Option<String>,
    /// What stands in front of the system text, whichever that is.
    #[serde(default)]
    pub system_markup: String,
    /// The default system text.
    pub system: String,
    /// Whether an interactive chat gives the image a turn of its own; see
    /// [`ChatTemplate::with_leading_images`].
    #[serde(default)]
    pub image_tags: bool,
    /// Texts of the turns that stand in front of every conversation, the user's first.
    #[serde(default)]
    pub preset: Vec<String>,
}

/// What is known of a checkpoint when a template has to be chosen for it.
pub struct TemplateHints<'a> {
    /// `model_type` of `config.json`, with or without the prefix `cambrian_`.
    pub model_type: &'a str,
    /// The template that `config.json` names, if it names one.
    pub conversation_template: Option<&'a str>,
    /// Whether the tokenizer knows a text as one token.
    pub has_token: &'a dyn Fn(&str) -> bool,
}

/// A chosen template, and why it was chosen: for the log.
#[derive(Clone, Debug)]
pub struct TemplateChoice {
    /// The template.
    pub template: &'static ChatTemplate,
    /// What decided, as a half sentence.
    pub reason: &'static str,
}

impl ChatTemplate {
    /// The template of this name or alias.
    ///
    /// # Errors
    /// [`TemplateError::UnknownName`] with the names nearest to it.
    pub fn by_name(name: &str) -> Result<&'static Self, TemplateError> {
        TEMPLATES
            .iter()
            .find(|template| template.known_as().any(|known| known == name))
            .ok_or_else(|| TemplateError::UnknownName {
                name: name.to_owned(),
                similar: similar_names(name),
            })
    }

    /// All names and aliases, in the order of `templates.toml`.
    pub fn names() -> Vec<&'static str> {
        TEMPLATES.iter().flat_map(Self::known_as).collect()
    }

    fn known_as(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name)
            .chain(&self.aliases)
            .map(String::as_str)
    }

    /// The template that a checkpoint was trained with, as far as its own files tell.
    ///
    /// An explicit name wins; else the family decides, and Llama-shaped decoders, which Vicuna,
    /// Llama 3 and Yi all are, are told apart by the markup tokens of their tokenizers.
    ///
    /// # Errors
    /// [`TemplateError::UnknownName`] if the explicit name is not known,
    /// [`TemplateError::UnknownModelType`] if the family is not.
    pub fn for_checkpoint(hints: &TemplateHints<'_>) -> Result<TemplateChoice, TemplateError> {
        let (name, reason) = match hints.conversation_template {
            Some(name) => (name, "config.json names it"),
            None => family_template(hints)?,
        };
        Ok(TemplateChoice {
            template: Self::by_name(name)?,
            reason,
        })
    }

    /// Renders a conversation: the reference's `get_prompt`, plus where the answers are.
    ///
    /// # Errors
    /// If there are no turns, if they do not alternate beginning with the user, if a turn other
    /// than a last one of the assistant has no text, or if an answer must be closed and the
    /// template does not say how.
    pub fn render(&self, conversation: &Conversation) -> Result<Rendered, TemplateError> {
        check_turns(&conversation.turns)?;
        let frame = self.frame(conversation.system.as_deref().unwrap_or(&self.system));
        let mut prompt = Rendered {
            text: frame.opening.clone(),
            answers: Vec::new(),
            contents: Vec::new(),
        };
        for (index, text) in self.preset.iter().enumerate() {
            if index % 2 == 0 {
                push_user(&mut prompt.text, &frame, index, text);
            } else {
                self.push_answer(&mut prompt.text, &frame, text)?;
            }
        }
        for (index, turn) in conversation.turns.iter().enumerate() {
            match (turn.role, turn.said()) {
                (Role::User, text) => {
                    let index = self.preset.len() + index;
                    let text = text.unwrap_or_default();
                    let content = push_user(&mut prompt.text, &frame, index, text);
                    prompt.contents.push(content);
                }
                (Role::Assistant, Some(text)) => {
                    let answer = self.push_answer(&mut prompt.text, &frame, text)?;
                    let start = answer.start + frame.answer_start.len();
                    prompt.contents.push(start..start + text.len());
                    prompt.answers.push(answer);
                }
                (Role::Assistant, None) => prompt.text += &frame.assistant,
            }
        }
        if conversation
            .turns
            .last()
            .is_some_and(|turn| turn.said().is_some())
        {
            prompt.text += &frame.closing;
        }
        Ok(prompt)
    }

    /// Moves images from wherever the first user turn shows them to where an interactive chat of
    /// the reference shows them: in front of the text, or, in a template with image tags, in an
    /// exchange of their own (`<Image><image></Image>`, answered by `Received.`).
    ///
    /// A template with preset turns keeps the text as it is: the reference looks at the very first
    /// turn only, and there that is the preset's. Text without a placeholder is kept, too.
    #[must_use]
    pub fn with_leading_images(&self, conversation: Conversation) -> Conversation {
        let shown = conversation
            .turns
            .first()
            .and_then(Turn::said)
            .unwrap_or_default();
        let images = shown.matches(IMAGE_PLACEHOLDER).count();
        if images == 0 || !self.preset.is_empty() {
            return conversation;
        }
        let text = shown.replace(IMAGE_PLACEHOLDER, "").trim().to_owned();
        let mut turns = conversation.turns;
        turns[0].text = Some(text);
        if !self.image_tags {
            return Conversation {
                system: conversation.system,
                turns,
            }
            .with_images(images);
        }
        let tagged = format!("<Image>{IMAGE_PLACEHOLDER}</Image>").repeat(images);
        turns.splice(0..0, [Turn::user(tagged), Turn::assistant("Received.")]);
        Conversation {
            system: conversation.system,
            turns,
        }
    }

    /// Text that ends generation in an interactive chat, as the reference's command line has it:
    /// `sep2` of [`Style::Two`], else `sep`; nothing if that is empty.
    pub fn stop_strings(&self) -> Vec<String> {
        let stop = match self.style {
            Style::Two => self.sep2.as_ref(),
            _ => Some(&self.sep),
        };
        stop.filter(|stop| !stop.is_empty())
            .cloned()
            .into_iter()
            .collect()
    }

    /// The marker that ends an answer (`</s>`, `<|eot_id|>`, …), without the white space around
    /// it. Often a single token, and then the token to stop at. `None` if the template has none.
    pub fn answer_end(&self) -> Option<String> {
        let end = self.frame("").answer_end?.trim().to_owned();
        (!end.is_empty()).then_some(end)
    }

    /// Writes an answer and returns the bytes that the assistant has to produce.
    fn push_answer(
        &self,
        prompt: &mut String,
        frame: &Frame,
        text: &str,
    ) -> Result<Range<usize>, TemplateError> {
        let end = frame
            .answer_end
            .as_deref()
            .ok_or_else(|| TemplateError::NoAnswerEnd {
                template: self.name.clone(),
            })?;
        prompt.push_str(&frame.assistant);
        let start = prompt.len();
        for part in [frame.answer_start, text, end] {
            prompt.push_str(part);
        }
        Ok(start..prompt.len())
    }

    fn frame(&self, system: &str) -> Frame {
        let system = format!("{}{system}", self.system_markup);
        match self.style {
            Style::Single => self.named_roles(&system, Some(&self.sep)),
            Style::Two => self.named_roles(&system, self.sep2.as_deref()),
            Style::Tagged => self.tagged_roles(&system),
            Style::Llama2 => self.instructions(&system, " "),
            Style::Mistral => self.instructions(&system, ""),
            Style::Llama3 => self.headers(&system),
            Style::Plain => self.bare(system),
        }
    }

    fn named_roles(&self, system: &str, answer_end: Option<&str>) -> Frame {
        let [user, assistant] = &self.roles;
        Frame {
            opening: format!("{system}{}{user}: ", self.sep),
            user_start: format!("{user}: "),
            user_end: self.sep.clone(),
            assistant: format!("{assistant}:"),
            answer_start: " ",
            answer_end: answer_end.map(str::to_owned),
            closing: String::new(),
        }
    }

    fn tagged_roles(&self, system: &str) -> Frame {
        let [user, assistant] = &self.roles;
        Frame {
            opening: format!("{system}{}{user}", self.sep),
            user_start: user.clone(),
            user_end: self.sep.clone(),
            assistant: assistant.clone(),
            answer_start: "",
            answer_end: Some(self.sep.clone()),
            closing: String::new(),
        }
    }

    /// `sep` stands between exchanges. The reference writes it in front of the first one, too, and
    /// then strips it from the prompt.
    fn instructions(&self, system: &str, answer_space: &'static str) -> Frame {
        let system = match system {
            "" => String::new(),
            text => format!("<<SYS>>\n{text}\n<</SYS>>\n\n"),
        };
        Frame {
            opening: format!("[INST] {system}"),
            user_start: format!("{}[INST] ", self.sep),
            user_end: " [/INST]".to_owned(),
            assistant: String::new(),
            answer_start: answer_space,
            answer_end: self
                .sep2
                .as_ref()
                .map(|sep2| format!("{answer_space}{sep2}")),
            closing: String::new(),
        }
    }

    fn headers(&self, system: &str) -> Frame {
        const END: &str = "<|eot_id|>";
        let header = |role: &str| format!("<|start_header_id|>{role}<|end_header_id|>");
        let system = match system {
            "" => String::new(),
            text => format!("{}{text}{END}", header("system")),
        };
        Frame {
            opening: format!("{}{system}{}", self.sep, header("user")),
            user_start: header("user"),
            user_end: END.to_owned(),
            assistant: header("assistant"),
            answer_start: "",
            answer_end: Some(END.to_owned()),
            closing: header("assistant"),
        }
    }

    fn bare(&self, system: String) -> Frame {
        Frame {
            opening: system,
            user_start: String::new(),
            user_end: self.sep.clone(),
            assistant: String::new(),
            answer_start: "",
            answer_end: self.sep2.clone(),
            closing: String::new(),
        }
    }
}

/// Writes what the user says and returns the bytes that hold it.
fn push_user(prompt: &mut String, frame: &Frame, index: usize, text: &str) -> Range<usize> {
    if index > 0 {
        prompt.push_str(&frame.user_start);
    }
    let start = prompt.len();
    prompt.push_str(text);
    prompt.push_str(&frame.user_end);
    start..start + text.len()
}

fn check_turns(turns: &[Turn]) -> Result<(), TemplateError> {
    let last = turns.len().checked_sub(1).ok_or(TemplateError::NoTurns)?;
    for (index, turn) in turns.iter().enumerate() {
        let expected = if index % 2 == 0 {
            Role::User
        } else {
            Role::Assistant
        };
        if turn.role != expected {
            return Err(TemplateError::RoleOrder {
                index,
                found: turn.role,
            });
        }
        let may_be_open = index == last && turn.role == Role::Assistant;
        if turn.said().is_none() && !may_be_open {
            return Err(TemplateError::EmptyTurn {
                index,
                role: turn.role,
            });
        }
    }
    Ok(())
}

fn family_template(
    hints: &TemplateHints<'_>,
) -> Result<(&'static str, &'static str), TemplateError> {
    let family = hints
        .model_type
        .strip_prefix("cambrian_")
        .unwrap_or(hints.model_type);
    match family {
        "phi3" => Ok(("phi3", "the decoder is a Phi-3")),
        "gemma" => Ok(("conv_gemma", "the decoder is a Gemma")),
        "mistral" => Ok(("mistral_instruct", "the decoder is a Mistral")),
        "cohere" => Ok(("cohere_v1", "the decoder is a Cohere")),
        "llama" if (hints.has_token)("<|start_header_id|>") => Ok((
            "llama_3",
            "a Llama decoder whose tokenizer knows `<|start_header_id|>`",
        )),
        "llama" if (hints.has_token)("<|im_start|>") => Ok((
            "chatml_direct",
            "a Llama decoder whose tokenizer knows `<|im_start|>`",
        )),
        "llama" => Ok((
            "vicuna_v1",
            "a Llama decoder whose tokenizer knows no chat markup",
        )),
        _ => Err(TemplateError::UnknownModelType {
            model_type: hints.model_type.to_owned(),
        }),
    }
}

/// Up to three known names that resemble `name`, best first.
fn similar_names(name: &str) -> Vec<&'static str> {
    /// Below this share of equal letters a suggestion confuses more than it helps.
    const ALIKE: f64 = 0.5;
    let mut scored: Vec<(f64, &str)> = ChatTemplate::names()
        .into_iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, known)| known).collect()
}

#[cfg(test)]
mod tests;
