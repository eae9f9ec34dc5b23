//! Asks a model one question about one picture, through the library.
//!
//! ```text
//! cargo run --release -p opabinia-model --example ask -- MODEL_FOLDER PICTURE QUESTION
//! ```

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

use std::error::Error;
use std::path::Path;

use opabinia_image::{ImageLimits, ImageSource, load};
use opabinia_llm::{Conversation, SamplingOptions};
use opabinia_model::{Generation, LoadModel, Model, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, picture, question] = arguments.as_slice() else {
        return Err("usage: ask MODEL_FOLDER PICTURE QUESTION".into());
    };

    let (model, _loaded) = Model::load(Path::new(folder), &LoadModel::default())?;
    let source: ImageSource = picture.parse()?;
    let picture = load(&source, &ImageLimits::default())?;

    // The session remembers pictures and what it has read, for the next question.
    let mut session = Session::new(&model);
    let (seen, _remembered) = session.see(&picture)?;
    let conversation = Conversation::question(question).with_images(1);
    let generation = Generation {
        sampling: SamplingOptions {
            max_new_tokens: 24,
            ..SamplingOptions::default()
        },
        ..Generation::default()
    };
    // The last argument is given each piece of text as it is written; `false` would stop it.
    let answer = session.answer(&conversation, &[seen], &generation, &mut |_, _| true)?;
    println!("{}", answer.text);
    Ok(())
}
