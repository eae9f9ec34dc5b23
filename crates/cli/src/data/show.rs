//! `data show`: a sample as the model will see it.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use opabinia_curate::convert::Kind;
use opabinia_curate::look;
use opabinia_curate::page::{STYLE, escape};
use opabinia_data::{PictureFolder, Place, Role, Run, Sample, SampleFile, Turn, written};
use opabinia_image::{Filter, ImageLimits, ImageSource, RgbImage, resize};

use super::check::MaskArgs;
use crate::failure::Failure;
use crate::{Outcome, output};

/// Characters that a picture takes in a terminal; each shows two pixels, one above the other.
const PICTURE_COLUMNS: u32 = 64;

/// Before an exchange that goes on from the shared beginning, not from what stands above it.
pub const BRANCH: &str = "\n└─ ";

/// Show a sample as the model will see it.
///
/// With `--mask` and `--template`, the whole prompt, with what is trained set apart: in colour on a terminal,
/// in ⟦brackets⟧ elsewhere. `--tokenizer` says it token by token, and what does not fit.
#[derive(Args)]
pub struct Show {
    /// File of samples, in any form that `data convert` reads.
    file: PathBuf,
    /// Line of the sample, from 1; its number, where the file is no lines.
    #[arg(long, default_value_t = 1)]
    line: u64,
    /// Folder that the samples' pictures are in; the picture is drawn on a terminal.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Show what is trained; needs `--template`.
    #[arg(long, requires = "template")]
    mask: bool,
    #[command(flatten)]
    tokens: MaskArgs,
    /// Write a page with picture, turns and mask.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

impl Show {
    /// Does it.
    pub fn run(self) -> Outcome {
        let (sample, inside) = match Kind::of(&self.file)? {
            Kind::Lines => (self.sample()?, None),
            _ => self.streamed()?,
        };
        let picture = match (inside, &self.images) {
            (Some(picture), _) => Some(picture),
            (None, Some(root)) => {
                PictureFolder::open(root, ImageLimits::default())?.load(&sample)?
            }
            (None, None) => None,
        };
        let runs = match self.mask {
            true => Some(self.runs(&sample)?),
            false => None,
        };
        if let Some(path) = &self.page {
            let text = page(&sample, picture.as_ref(), runs.as_deref())?;
            std::fs::write(path, text).map_err(|error| {
                Failure::new(format!("cannot write `{}`: {error}", path.display()))
            })?;
        }
        if let Some(picture) = picture.as_ref().filter(|_| output::is_terminal()) {
            output::data(&blocks(picture));
        }
        output::data(&head(&sample));
        match &runs {
            None => output::data(&turns(&sample)),
            Some(runs) => output::data(&masked(runs, output::is_terminal())),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The prompt, and what of it is trained.
    fn runs(&self, sample: &Sample) -> Result<Vec<Run>, Failure> {
        let Some(masker) = self.tokens.masker()? else {
            let template = self.tokens.template()?;
            let template = template.ok_or_else(|| Failure::new("`--mask` needs `--template`"))?;
            output::note("by characters; `--tokenizer MODEL` shows tokens, and what does not fit");
            return Ok(written(template, sample)?);
        };
        let tokens = masker.tokenize(sample, self.tokens.visual_tokens())?;
        if tokens.cut > 0 {
            output::note(&format!("{} tokens do not fit and are cut", tokens.cut));
        }
        if tokens.left_out > 0 {
            output::note(&format!(
                "{} exchanges without question or answer are left out",
                tokens.left_out
            ));
        }
        output::note(&format!(
            "{} tokens, {} of them trained",
            tokens.tokens.len(),
            tokens.trained_tokens()
        ));
        Ok(masker.explain(&tokens)?)
    }

    /// A sample of a file that must be read from its beginning, and the picture that is inside.
    fn streamed(&self) -> Result<(Sample, Option<RgbImage>), Failure> {
        let Some((line, pictures)) = look::nth(&self.file, self.line)? else {
            return Err(Failure::new(format!(
                "`{}` has no sample number {}",
                self.file.display(),
                self.line
            )));
        };
        let place = Place::new(self.file.as_path(), self.line);
        let name = format!("the picture of {place}");
        let sample = Sample::parse(&line, place)?;
        let Some(bytes) = pictures.into_iter().next() else {
            return Ok((sample, None));
        };
        let source = ImageSource::Bytes { bytes, name };
        let picture = opabinia_image::load(&source, &ImageLimits::default())?;
        Ok((sample, Some(picture)))
    }

    fn sample(&self) -> Result<Sample, Failure> {
        let file = SampleFile::open(&self.file)?;
        // Places are ascending.
        let (mut low, mut high) = (0, file.len());
        while low < high {
            let middle = low.midpoint(high);
            match file.place(middle).line < self.line {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        if low >= file.len() || file.place(low).line != self.line {
            let last = file.place(file.len().saturating_sub(1)).line;
            return Err(Failure::new(format!(
                "no sample begins on line {} of `{}`",
                self.line,
                self.file.display()
            ))
            .hint(format!(
                "its last sample is on line {last}; blank lines have none"
            )));
        }
        Ok(file.sample(low)?)
    }
}

/// Where the sample is from, and what stands beside its turns.
fn head(sample: &Sample) -> String {
    let mut text = sample.place.to_string();
    for (name, value) in facts(sample) {
        let _ = write!(text, "\n{name}: {value}");
    }
    text
}

/// All fields but the turns; of those that only this file has, a hundred characters.
fn facts(sample: &Sample) -> Vec<(&str, String)> {
    let known = [
        ("id", &sample.id),
        ("source", &sample.source),
        ("category", &sample.category),
        ("image", &sample.image),
    ];
    let known = known.map(|(name, value)| Some((name, value.clone()?)));
    let short = |value: &serde_json::Value| value.to_string().chars().take(100).collect();
    let more = sample.extra.iter();
    let more = more.map(|(name, value)| (name.as_str(), short(value)));
    known.into_iter().flatten().chain(more).collect()
}

fn turns(sample: &Sample) -> String {
    let turn = |turn: &Turn| format!("\n{}: {}", speaker(turn), turn.text);
    sample.turns.iter().map(turn).collect::<Vec<_>>().join("\n")
}

const fn speaker(turn: &Turn) -> &'static str {
    match turn.role {
        Role::User => "human",
        Role::Assistant => "model",
    }
}

fn masked(runs: &[Run], colour: bool) -> String {
    let run = |run: &Run| {
        let text = match (run.trained, colour) {
            (true, true) => format!("\x1b[30;42m{}\x1b[0m", run.text),
            (true, false) => format!("⟦{}⟧", run.text),
            (false, _) => run.text.clone(),
        };
        match run.branch {
            true => format!("{BRANCH}{text}"),
            false => text,
        }
    };
    format!("\n{}", runs.iter().map(run).collect::<String>())
}

/// A picture in characters: upper halves in the colour of one pixel on the colour of the one below.
fn blocks(picture: &RgbImage) -> String {
    let (width, height) = picture.size();
    let columns = PICTURE_COLUMNS.min(width.max(1));
    let rows = u64::from(columns) * u64::from(height) / u64::from(width.max(1));
    let rows = u32::try_from(rows.clamp(2, 96))
        .unwrap_or(96)
        .next_multiple_of(2);
    let small = resize(picture, columns, rows, Filter::Bilinear);
    let mut text = String::new();
    for y in (0..rows).step_by(2) {
        for x in 0..columns {
            let [r, g, b] = small.pixel(x, y).unwrap_or_default();
            let [s, h, c] = small.pixel(x, y + 1).unwrap_or_default();
            let _ = write!(text, "\x1b[38;2;{r};{g};{b};48;2;{s};{h};{c}m▀");
        }
        text += "\x1b[0m\n";
    }
    text
}

/// What the page of a sample has beside the common style.
const PAGE_STYLE: &str = "
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .8rem 0 1.4rem; } dd { margin: 0; overflow-wrap: anywhere; }
dt { color: var(--faint); } .model { color: var(--bar); } .turns dd, pre { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { font-size: 13px; border-left: 3px solid var(--rule); padding-left: 1rem; } mark { background: var(--soft); color: inherit; } img { max-width: 100%; }
";

fn page(
    sample: &Sample,
    picture: Option<&RgbImage>,
    runs: Option<&[Run]>,
) -> Result<String, Failure> {
    let mut text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{0}</title><style>{STYLE}{PAGE_STYLE}</style>\
         <h1>{0}</h1><dl>",
        escape(sample.place.to_string().trim_matches('`')),
    );
    for (name, value) in facts(sample) {
        let _ = write!(text, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(&value));
    }
    text += "</dl>";
    if let Some(picture) = picture {
        let data = BASE64_STANDARD.encode(picture.encode_png()?);
        let _ = write!(
            text,
            "<img alt=\"its picture\" src=\"data:image/png;base64,{data}\">"
        );
    }
    text += "<h2>Turns</h2><dl class=\"turns\">";
    for turn in &sample.turns {
        let (who, said) = (speaker(turn), escape(&turn.text));
        let _ = write!(text, "<dt class=\"{who}\">{who}</dt><dd>{said}</dd>");
    }
    text += "</dl>";
    if let Some(runs) = runs {
        text += "<h2>Prompt</h2><p>What is marked is trained.</p><pre>";
        for run in runs {
            if run.branch {
                text += BRANCH;
            }
            let part = escape(&run.text);
            let _ = match run.trained {
                true => write!(text, "<mark>{part}</mark>"),
                false => write!(text, "{part}"),
            };
        }
        text += "</pre>";
    }
    Ok(text + "</html>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trained_is_in_colour_or_in_brackets() {
        let run = |trained, text: &str| Run {
            trained,
            branch: false,
            text: text.to_owned(),
        };
        let runs = [run(false, "USER: Why?"), run(true, " So</s>")];
        assert_eq!(masked(&runs, false), "\nUSER: Why?⟦ So</s>⟧");
        assert_eq!(
            masked(&runs, true),
            "\nUSER: Why?\u{1b}[30;42m So</s>\u{1b}[0m"
        );
    }

    #[test]
    fn a_page_escapes_what_is_said_and_marks_what_is_trained() {
        let line = r#"{"id": "a<b", "conversations": [{"from": "human", "value": "1 < 2?"},
            {"from": "gpt", "value": "yes"}]}"#;
        let sample = Sample::parse(
            line.as_bytes(),
            Place::new(std::path::Path::new("x.jsonl"), 3),
        )
        .unwrap();
        let runs = [Run {
            trained: true,
            branch: false,
            text: "<end>".to_owned(),
        }];
        let text = page(&sample, None, Some(&runs)).unwrap();
        for part in [
            "<h1>x.jsonl:3</h1>",
            "<dt>id</dt><dd>a&lt;b</dd>",
            "<dt class=\"human\">human</dt><dd>1 &lt; 2?</dd>",
            "<mark>&lt;end&gt;</mark>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("<img"), "{text}");
    }

    /// Two pixels, one above the other, are one character: the upper one in front of the lower one.
    #[test]
    fn a_picture_is_drawn_in_halves() {
        let picture = RgbImage::from_raw(1, 2, vec![255, 0, 0, 0, 0, 255]).unwrap();
        assert_eq!(
            blocks(&picture),
            "\u{1b}[38;2;255;0;0;48;2;0;0;255m▀\u{1b}[0m\n"
        );
        let wide = blocks(&RgbImage::filled(200, 100, [1, 2, 3]).unwrap());
        assert_eq!(
            (wide.lines().count(), wide.matches('▀').count()),
            (16, 16 * 64)
        );
    }
}
