//! Kind `conversations`: the rendered prompts of every chat template.

use opabinia_llm::{ChatTemplate, Conversation, Turn};
use serde_json::Value;

use super::case::equal;
use super::{Case, CaseError, Check};
use crate::ModelError;

pub(super) fn run(case: &Case) -> Result<Vec<Check>, CaseError> {
    let prompts = case.file("prompts.json")?;
    let modes = prompts
        .as_object()
        .ok_or_else(|| case.wrong("prompts.json is no object"))?;
    let mut checks = Vec::new();
    for (mode, expected) in modes {
        let template = ChatTemplate::by_name(mode).map_err(ModelError::from)?;
        for (variant, text) in expected.as_object().into_iter().flatten() {
            let (Some(text), Some(conversation)) = (
                text.as_str(),
                conversation(&case.json["texts"], template, variant),
            ) else {
                continue; // Settings of the template, not prompts.
            };
            let ours = template
                .render(&conversation)
                .map_err(ModelError::from)?
                .text;
            checks.push(equal(&format!("{mode}.{variant}"), &ours.as_str(), &text));
        }
    }
    Ok(checks)
}

/// The conversation that a variant of the case stands for.
fn conversation(texts: &Value, template: &ChatTemplate, variant: &str) -> Option<Conversation> {
    let text = |key: &str| texts[key].as_str().map(str::to_owned);
    let first = Turn::user(text("user1")?);
    let answer = Turn::assistant(text("assistant1")?);
    let two = || {
        vec![
            first.clone(),
            answer.clone(),
            Turn::user(text("user2").unwrap_or_default()),
        ]
    };
    let open = |mut turns: Vec<Turn>| {
        turns.push(Turn::open());
        Conversation::new(turns)
    };
    Some(match variant {
        "1turn_text" => open(vec![first]),
        "2turn_text" => open(two()),
        "1turn_image" => open(vec![first]).with_images(1),
        "2turn_image" => open(two()).with_images(1),
        "1turn_complete" => Conversation::new(vec![first, answer]),
        // The interactive chat of the reference appends the placeholder and then moves it.
        "1turn_tuple_image" => {
            let shown = Turn::user(format!("{}\n<image>", text("user1")?));
            template.with_leading_images(open(vec![shown]))
        }
        _ => return None,
    })
}
