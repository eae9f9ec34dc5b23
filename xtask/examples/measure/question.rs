//! One whole question at the size of the 8B model: four encoders, the connector, a prompt of 700 tokens with
//! the in-LLM layers on the way, and an answer of 64 tokens. Then a second question on the same picture.
//!
//! Every part is the workload that is also measured alone, so what is scaled there is scaled here: of 32
//! decoder layers a few stand for all, one in-LLM layer stands for ten, eight tokens for 64.

use burn::prelude::*;

use crate::{Fallible, WeightFormat, Workload, connector, decoder, encoder};

/// Encoders of the released models.
const ENCODERS: [&str; 4] = ["siglip", "clip", "dinov2", "convnext"];
/// In-LLM layers of the 8B model.
const IN_LLM: f64 = 10.0;

pub(crate) fn workload(
    name: &str,
    dtype: WeightFormat,
    smoke: bool,
    device: &Device,
) -> Fallible<Workload> {
    let prompt = match name {
        "whole" => decoder::Prompt::Whole,
        // The picture was seen and its tokens were read: what is left is the question.
        "again" => decoder::Prompt::Follows,
        _ => return Err(format!("there is no question workload `{name}`").into()),
    };
    // Int4 is for the decoder; see `WeightDtype::for_encoders`.
    let seeing = match dtype {
        WeightFormat::Int4 => WeightFormat::Int8,
        other => other,
    };
    let mut parts = Vec::new();
    for encoder in ENCODERS {
        parts.push((1.0, encoder::workload(encoder, seeing, smoke, device)?));
    }
    parts.push((1.0, connector::workload("sva", seeing, smoke, device)?));
    parts.push((
        IN_LLM,
        connector::workload("in-llm", seeing, smoke, device)?,
    ));
    let mut answer = decoder::answer(prompt, dtype, smoke, device)?;
    let seen = parts.iter().map(|(_, part)| part.parameters).sum::<u64>();
    Ok(Workload {
        parameters: seen + answer.parameters,
        amount: 1.0,
        losses: Vec::new(),
        pass: Box::new(move || {
            let mut seconds = (answer.pass)()?;
            if prompt == decoder::Prompt::Whole {
                for (times, part) in &mut parts {
                    seconds += *times * (part.pass)()?;
                }
            }
            Ok(seconds)
        }),
    })
}
