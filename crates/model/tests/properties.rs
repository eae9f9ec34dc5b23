//! What must hold whatever is asked: rows of a batch do not know of each other, the cache and the
//! size of the chunks change nothing, a talk that goes on answers like one that begins, padding is
//! cut by the reference's formula, and a model that is written is the model that was read.
//!
//! Everything runs on the small golden models; the cases are drawn from a fixed seed, so a failure
//! comes back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opabinia_connector::{ConnectorError, PictureContext};
use opabinia_image::{ImageLimits, ImageSource, RgbImage, load};
use opabinia_llm::{Conversation, PromptToken, SamplingOptions, Turn};
use opabinia_model::{
    Answer, Generation, ImagePosition, LoadModel, Model, ModelError, Prompt, Seen, Session, keys,
};
use opabinia_nn::Trace;
use opabinia_vision::Encoder;
use opabinia_weights::{Checkpoint, CheckpointWriter, WeightDtype};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

fn golden(case: &str) -> PathBuf {
    let root = match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    };
    root.join(case)
}

fn load_model(folder: &Path) -> Model {
    Model::load(folder, &LoadModel::default()).unwrap().0
}

/// The golden model with in-LLM layers, which has the most to get wrong.
fn model() -> Model {
    load_model(&golden("cambrian_llama_sva"))
}

/// Runs a property on cases that are the same every time.
fn check<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> TestCaseResult) {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 64,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    if let Err(error) = runner.run(&strategy, test) {
        panic!("{error}");
    }
}

fn golden_picture(name: &str) -> RgbImage {
    let path = golden("cambrian_llama_sva").join(format!("images/{name}.png"));
    load(&ImageSource::File(path), &ImageLimits::default()).unwrap()
}

/// A picture of any size whose pixels are all different from their neighbours'.
fn pattern(width: u32, height: u32, seed: u32) -> RgbImage {
    let bytes = (0..width * height * 3).map(|i| (i.wrapping_mul(seed | 1) >> 3) as u8);
    RgbImage::from_raw(width, height, bytes.collect()).unwrap()
}

/// A square, a wide and a tall picture.
fn pictures() -> Vec<RgbImage> {
    ["square", "wide", "tall"].map(golden_picture).into()
}

fn see_all(model: &Model) -> Vec<Arc<Seen>> {
    let see = |picture: &RgbImage| model.see(picture, &mut Trace::off()).unwrap();
    pictures().iter().map(see).collect()
}

const QUESTIONS: [&str; 6] = [
    "What is it?",
    "What is in the image?",
    "How many?",
    "Describe the picture in detail.",
    "What is 3 plus 4?",
    "Où est le carré rouge ? 赤い四角",
];

/// A question about one of the three pictures, or about none.
#[derive(Clone, Copy, Debug)]
struct Asked {
    question: &'static str,
    picture: Option<usize>,
}

fn asked() -> impl Strategy<Value = Asked> {
    (select(&QUESTIONS[..]), proptest::option::of(0..3usize))
        .prop_map(|(question, picture)| Asked { question, picture })
}

impl Asked {
    fn conversation(&self) -> Conversation {
        Conversation::question(self.question).with_images(usize::from(self.picture.is_some()))
    }

    fn seen(&self, all: &[Arc<Seen>]) -> Vec<Arc<Seen>> {
        self.picture.iter().map(|&i| all[i].clone()).collect()
    }
}

fn greedy(tokens: usize) -> Generation {
    Generation {
        sampling: SamplingOptions {
            max_new_tokens: tokens,
            ..SamplingOptions::default()
        },
        ..Generation::default()
    }
}

/// Answers several questions as one batch.
fn answer_batch(
    model: &Model,
    batch: &[Asked],
    all: &[Arc<Seen>],
    generation: &Generation,
) -> Vec<Answer> {
    let prompts: Vec<Prompt> = batch
        .iter()
        .map(|asked| model.prompt(&asked.conversation()).unwrap())
        .collect();
    let seen: Vec<Vec<Arc<Seen>>> = batch.iter().map(|asked| asked.seen(all)).collect();
    let rows: Vec<(&Prompt, &[Arc<Seen>])> = prompts
        .iter()
        .zip(&seen)
        .map(|(prompt, seen)| (prompt, seen.as_slice()))
        .collect();
    let packed = model.pack(&rows).unwrap();
    model
        .generate(&packed, generation, &mut |_, _| true)
        .unwrap()
}

/// What an answer says, without what it took.
fn said(answer: &Answer) -> (&[u32], &str, &opabinia_llm::StopReason) {
    (&answer.ids, &answer.text, &answer.stop)
}

#[test]
fn rows_of_a_batch_answer_as_they_do_alone() {
    let model = model();
    let all = see_all(&model);
    let batches = (
        prop::collection::vec(asked(), 2..5),
        select(&[0.0f32, 1.0][..]),
        1..16usize,
    );
    check(16, batches, |(batch, temperature, tokens)| {
        let mut generation = greedy(tokens);
        generation.sampling.temperature = temperature;
        // Frequent, so that rows end at different times.
        generation.sampling.stop_ids = vec![180, 195];
        let together = answer_batch(&model, &batch, &all, &generation);
        prop_assert_eq!(together.len(), batch.len());
        for (row, asked) in together.iter().zip(&batch) {
            let alone = answer_batch(&model, &[*asked], &all, &generation);
            prop_assert_eq!(said(row), said(&alone[0]));
            prop_assert_eq!(row.prompt_tokens, alone[0].prompt_tokens);
            prop_assert_eq!(row.visual_tokens, alone[0].visual_tokens);
        }
        Ok(())
    });
}

#[test]
fn chunks_of_any_length_read_the_same() {
    let model = model();
    let all = see_all(&model);
    let cases = (prop::collection::vec(asked(), 1..3), 1..300usize);
    check(24, cases, |(batch, chunk)| {
        let whole = answer_batch(&model, &batch, &all, &greedy(8));
        let generation = Generation {
            prefill_chunk: chunk,
            ..greedy(8)
        };
        let parts = answer_batch(&model, &batch, &all, &generation);
        for (a, b) in whole.iter().zip(&parts) {
            prop_assert_eq!(said(a), said(b));
        }
        Ok(())
    });
}

/// The likeliest token after each of the last `count` positions of a single packed row, with
/// nothing taken from a cache.
fn likeliest(model: &Model, prompt: &Prompt, seen: &[Arc<Seen>], count: usize) -> Vec<u32> {
    let packed = model.pack(&[(prompt, seen)]).unwrap();
    let (hidden, _) = model
        .forward(&packed, ImagePosition::Config, &mut Trace::off())
        .unwrap();
    let [_, length, width] = hidden.dims();
    let last = hidden.slice([0..1, length - count..length, 0..width]);
    let logits = model.network.decoder.logits(last.reshape([count, width]));
    let best = logits.argmax(1).into_data();
    best.iter::<i64>()
        .map(|id| u32::try_from(id).unwrap())
        .collect()
}

#[test]
fn the_cache_changes_no_answer() {
    let model = model();
    let all = see_all(&model);
    check(12, asked(), |asked| {
        let answer = &answer_batch(&model, &[asked], &all, &greedy(12))[0];
        prop_assert!(!answer.ids.is_empty());
        let mut prompt = model.prompt(&asked.conversation()).unwrap();
        let written = &answer.ids[..answer.ids.len() - 1];
        prompt
            .tokens
            .extend(written.iter().map(|&id| PromptToken::Text(id)));
        let again = likeliest(&model, &prompt, &asked.seen(&all), answer.ids.len());
        prop_assert_eq!(&again, &answer.ids);
        Ok(())
    });
}

/// One question to a session, with what was said before it.
#[derive(Clone, Debug)]
struct Step {
    system: Option<&'static str>,
    history: usize,
    pictures: Vec<usize>,
    question: &'static str,
    rule: ImagePosition,
    tokens: usize,
}

/// Moves the pictures behind the constant position, so that in-LLM layers write what they see into
/// the words before.
const LONG_SYSTEM: &str = "You are Cambrian, a highly intelligent multimodal AI trained by NYU \
    Vision X. As a multimodal AI, you have the ability to process and analyze images. Whenever an \
    image is present in the conversation, very carefully examine it and consider its content when \
    formulating your response. You should give concise responses to very simple questions, but \
    provide thorough responses to more complex and open-ended questions. Be kind please, and never \
    forget to be polite to all.";

fn step() -> impl Strategy<Value = Step> {
    (
        select(&[None, Some(LONG_SYSTEM)][..]),
        0..3usize,
        prop_oneof![
            prop::collection::vec(0..3usize, 1),
            prop::collection::vec(0..3usize, 0..3)
        ],
        select(&QUESTIONS[..]),
        select(
            &[
                ImagePosition::Config,
                ImagePosition::Config,
                ImagePosition::Actual,
            ][..],
        ),
    )
        .prop_map(|(system, history, pictures, question, rule)| Step {
            system,
            history,
            pictures,
            question,
            rule,
            tokens: 16,
        })
}

impl Step {
    fn conversation(&self) -> Conversation {
        let mut turns = Vec::new();
        for question in QUESTIONS.into_iter().take(self.history) {
            turns.push(Turn::user(question));
            turns.push(Turn::assistant("A circle."));
        }
        turns.push(Turn::user(self.question));
        turns.push(Turn::open());
        let mut conversation = Conversation::new(turns).with_images(self.pictures.len());
        conversation.system = self.system.map(str::to_owned);
        conversation
    }

    fn ask(&self, session: &mut Session<'_>, all: &[RgbImage]) -> Result<Answer, ModelError> {
        let seen = self
            .pictures
            .iter()
            .map(|&i| Ok(session.see(&all[i])?.0))
            .collect::<Result<Vec<_>, ModelError>>()?;
        let generation = Generation {
            image_position: self.rule,
            ..greedy(self.tokens)
        };
        session.answer(&self.conversation(), &seen, &generation, &mut |_, _| true)
    }
}

#[test]
fn a_session_that_goes_on_answers_like_one_that_begins() {
    let model = model();
    let all = pictures();
    check(40, prop::collection::vec(step(), 2..7), |steps| {
        let mut session = Session::new(&model);
        for step in &steps {
            let goes_on = step.ask(&mut session, &all);
            let begins = step.ask(&mut Session::new(&model), &all);
            match (goes_on, begins) {
                (Ok(goes_on), Ok(begins)) => {
                    prop_assert_eq!(said(&goes_on), said(&begins), "at {:?}", step);
                }
                (Err(a), Err(b)) => prop_assert_eq!(a.to_string(), b.to_string()),
                (a, b) => prop_assert!(false, "{a:?} but {b:?} at {step:?}"),
            }
        }
        Ok(())
    });
}

/// What in-LLM layers wrote into the words before a picture belongs to that picture, and must not
/// be reused for another one.
#[test]
fn another_picture_in_the_same_place_is_looked_at_anew() {
    let model = model();
    let all = pictures();
    for question in QUESTIONS {
        let mut session = Session::new(&model);
        for picture in [1, 2, 1] {
            let step = Step {
                system: Some(LONG_SYSTEM),
                history: 0,
                pictures: vec![picture],
                question,
                rule: ImagePosition::Config,
                tokens: 24,
            };
            let goes_on = step.ask(&mut session, &all).unwrap();
            let begins = step.ask(&mut Session::new(&model), &all).unwrap();
            assert_eq!(
                said(&goes_on),
                said(&begins),
                "picture {picture}, {question}"
            );
        }
    }
}

/// A session forgets old pictures; a new one that takes their place in memory is no old one.
#[test]
fn a_forgotten_picture_is_not_mistaken_for_a_new_one() {
    let model = model();
    let mut session = Session::new(&model);
    for round in 0..8u32 {
        let picture = pattern(64, 64, 1 + 2 * round);
        let conversation = Conversation::question("What is it?").with_images(1);
        let ask = |session: &mut Session<'_>| {
            let (seen, remembered) = session.see(&picture).unwrap();
            assert!(!remembered);
            let nothing = &mut |_: usize, _: &str| true;
            session
                .answer(&conversation, &[seen], &greedy(8), nothing)
                .unwrap()
        };
        let goes_on = ask(&mut session);
        let begins = ask(&mut Session::new(&model));
        assert_eq!(said(&goes_on), said(&begins), "round {round}");
        assert!(
            goes_on.reused_tokens <= 206,
            "round {round} reused another picture"
        );
        for other in 0..16 {
            session
                .see(&pattern(8, 8, 1001 + 100 * round + 2 * other))
                .unwrap();
        }
    }
}

#[test]
fn a_remembered_picture_is_the_same_picture() {
    let model = model();
    let mut session = Session::new(&model);
    let all = pictures();
    let (first, remembered) = session.see(&all[0]).unwrap();
    assert!(!remembered);
    let (again, remembered) = session.see(&golden_picture("square")).unwrap();
    assert!(remembered && Arc::ptr_eq(&first, &again));
    let mut other = all[0].clone();
    other.data_mut()[0] ^= 1;
    assert!(!session.see(&other).unwrap().1, "one pixel differs");
}

/// Rows (or columns) of a square grid of `side` that show a picture, as the reference computes
/// them: `⌊short · (side / long)⌋` with the scale first, then half of the rest cut on both sides.
fn kept(long: u32, short: u32, side: usize) -> std::ops::Range<usize> {
    let scale = side as f64 / f64::from(long);
    let content = (f64::from(short) * scale).trunc() as usize;
    let pad = (side - content) / 2;
    pad..side - pad
}

/// Rows and columns of a grid that show a picture.
fn shown(width: u32, height: u32, side: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    if f64::from(width) / f64::from(height) > 1.0 {
        (kept(width, height, side), 0..side)
    } else {
        (0..side, kept(height, width, side))
    }
}

/// Which features each visible cell's window may show, cell by cell.
fn expected_mask(width: u32, height: u32, side: usize, cells: usize) -> Vec<bool> {
    let (rows, cols) = shown(width, height, cells);
    let (visible_rows, visible_cols) = shown(width, height, side);
    let r = side / cells;
    let mut mask = Vec::new();
    for (y, x) in rows.flat_map(|y| cols.clone().map(move |x| (y, x))) {
        let window: Vec<bool> = (0..r * r)
            .map(|i| {
                visible_rows.contains(&(y * r + i / r)) && visible_cols.contains(&(x * r + i % r))
            })
            .collect();
        let nothing = !window.contains(&true);
        mask.extend(window.into_iter().map(|visible| visible || nothing));
    }
    mask
}

fn masks(context: &PictureContext) -> Option<Vec<Vec<bool>>> {
    let visible = context.windows.visible.as_ref()?;
    let values = visible
        .iter()
        .map(|mask| mask.clone().into_data().iter::<bool>().collect());
    Some(values.collect())
}

#[test]
fn padding_is_cut_and_masked_by_the_formula() {
    let model = model();
    // Sides of the visual grid and of the four encoders' grids.
    let (cells, sides) = (6, [6, 6, 6, 24]);
    let side = || prop_oneof![1..=300u32, 1..=40u32];
    check(120, (side(), side()), |(width, height)| {
        let (rows, cols) = shown(width, height, cells);
        let seen = model.see(&pattern(width, height, 77), &mut Trace::off());
        if rows.is_empty() || cols.is_empty() {
            let too_long = matches!(
                seen,
                Err(ModelError::Connector(ConnectorError::TooElongated { width: w, height: h, side: 6 }))
                    if (w, h) == (width, height)
            );
            prop_assert!(too_long, "{:?}", seen.err());
            return Ok(());
        }
        let seen = seen.unwrap();
        let grid = seen.connected.grids[0];
        prop_assert_eq!((grid.rows, grid.cols), (rows.len(), cols.len()));
        let tokens = rows.len() * (cols.len() + 1);
        prop_assert_eq!(seen.connected.tokens.dims()[0], tokens);
        prop_assert_eq!((seen.view.rows, seen.view.cols), (rows.len(), cols.len()));
        prop_assert_eq!(seen.view.tokens, tokens);

        let context = seen.connected.context.as_ref().unwrap();
        for (latents, side) in context.windows.latents.iter().zip(sides) {
            let window = (side / cells).pow(2);
            prop_assert_eq!(
                latents.dims()[..2].to_vec(),
                [rows.len() * cols.len(), window]
            );
        }
        // No mask says the same as a mask of ones.
        let expected = sides.map(|side| expected_mask(width, height, side, cells));
        match masks(context) {
            Some(masks) => prop_assert_eq!(masks, expected.to_vec()),
            None => prop_assert!(expected.iter().flatten().all(|visible| *visible)),
        }
        Ok(())
    });
}

#[test]
fn a_line_is_refused_and_a_strip_is_not() {
    let model = model();
    for long in [6, 7, 60, 61, 300] {
        for (width, height) in [(long, 1), (1, long), (long, long / 6), (long / 6, long)] {
            let seen = model.see(&pattern(width, height, 3), &mut Trace::off());
            let fits = width.max(height) <= 6 * width.min(height);
            assert_eq!(seen.is_ok(), fits, "{width} × {height}");
        }
    }
}

/// A model folder whose weights this program wrote from the golden ones, in small shards.
fn rewritten(case: &str) -> (Model, tempfile::TempDir, Checkpoint) {
    let original = golden(case);
    let model = load_model(&original);
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&original, folder.path());
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();

    let mut writer = CheckpointWriter::new(WeightDtype::AsStored).max_shard_bytes(200_000);
    let decoder = &model.network.decoder;
    writer
        .add(decoder, &keys::decoder(&model.config.decoder))
        .unwrap();
    let vision = model.config.vision.as_ref().unwrap();
    let widths: Vec<usize> = model.network.encoders.iter().map(Encoder::width).collect();
    let config = vision
        .connector(&widths, model.config.decoder.hidden)
        .unwrap();
    let connector = model.network.connector.as_ref().unwrap();
    writer.add(connector, &keys::connector(&config)).unwrap();
    let report = writer.write_folder(folder.path()).unwrap();
    assert!(
        report.files.len() > 1,
        "{case}: {} files",
        report.files.len()
    );
    let written = Checkpoint::open(folder.path()).unwrap();
    (model, folder, written)
}

/// Copies what a model folder needs; the reference's numbers stay behind.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name())
        };
        if path.is_dir() {
            copy_folder(&path, &to.join(name));
        } else if name != "io.safetensors" {
            fs::copy(path, to.join(name)).unwrap();
        }
    }
}

const MODELS: [&str; 5] = [
    "cambrian_llama_sva",
    "cambrian_llama_g2",
    "cambrian_llama_mlp2x_gelu",
    "cambrian_phi3",
    "cambrian_mistral",
];

#[test]
fn a_model_that_is_written_has_the_published_keys_shapes_and_values() {
    for case in MODELS {
        let (_, _folder, written) = rewritten(case);
        let published = Checkpoint::open(golden(case).join("model.safetensors")).unwrap();
        let keys = |checkpoint: &Checkpoint| -> Vec<String> {
            let mut keys: Vec<String> = checkpoint.keys().map(str::to_owned).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&written), keys(&published), "{case}");
        for key in published.keys() {
            let (a, b) = (published.info(key).unwrap(), written.info(key).unwrap());
            assert_eq!((a.shape, a.dtype), (b.shape, b.dtype), "{case}: {key}");
            let values = |checkpoint: &Checkpoint| {
                let data = checkpoint.tensor(key, None).unwrap();
                data.iter::<f32>().collect::<Vec<f32>>()
            };
            assert!(
                values(&published) == values(&written),
                "{case}: {key} has changed"
            );
        }
    }
}

#[test]
fn a_model_that_is_written_loads_and_answers_the_same() {
    for case in MODELS {
        let (model, folder, _) = rewritten(case);
        let (again, loaded) = Model::load(folder.path(), &LoadModel::default()).unwrap();
        assert!(
            loaded.main.unused.is_empty(),
            "{case}: {:?}",
            loaded.main.unused
        );
        let picture = pattern(90, 60, 5);
        let answer = |model: &Model| {
            let conversation = Conversation::question("What is it?").with_images(1);
            let prompt = model.prompt(&conversation).unwrap();
            let seen = [model.see(&picture, &mut Trace::off()).unwrap()];
            let packed = model.pack(&[(&prompt, &seen)]).unwrap();
            let generation = Generation {
                image_position: ImagePosition::Actual,
                ..greedy(12)
            };
            let answers = model.generate(&packed, &generation, &mut |_, _| true);
            answers.unwrap().remove(0)
        };
        assert_eq!(said(&answer(&model)), said(&answer(&again)), "{case}");
    }
}
