//! `train`: recipes to models, and curves of runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::prelude::Device;
use clap::{Args, Subcommand, ValueEnum};
use opabinia_image::RgbImage;
use opabinia_train::compare::{Axis, Comparison, Curve, SIZE};
use opabinia_train::engine::Ending;
use opabinia_train::job::{self, Finished, JobOptions, Preflight, ShownSample};
use opabinia_train::recipe::{FeatureCache, Recipe};
use serde_json::json;

use crate::failure::Failure;
use crate::watch::{Watch, time};
use crate::{Outcome, device, memory, output};

/// Train what a recipe says; the same command goes on where an interrupted run stands.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Train {
    #[command(subcommand)]
    verb: Option<TrainVerb>,
    /// The recipe, a TOML file.
    #[arg(required = true)]
    recipe: Option<PathBuf>,
    /// Folder of the run instead of the recipe's.
    #[arg(short, long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Another value for a key of the recipe, such as `optimizer.lr=1e-4`; may be given several
    /// times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Say what the run will be, with one step measured and nothing kept.
    #[arg(long)]
    dry_run: bool,
    /// Save and stop after this many steps; the same command goes on.
    #[arg(long, value_name = "STEPS")]
    at_most: Option<u64>,
    /// Run the step in the bundle of a run that stopped because a value was not finite.
    #[arg(long, value_name = "BUNDLE", conflicts_with = "dry_run")]
    replay: Option<PathBuf>,
    /// Device to train on: auto, cpu, cuda, vulkan, metal, rocm; several of a kind share the work.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Burn's dashboard in place of a bar: curves of the figures, on the whole terminal (`q` stops).
    #[arg(long, conflicts_with_all = ["dry_run", "replay"])]
    dashboard: bool,
    /// One JSON object on standard output at the end.
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum TrainVerb {
    /// Draw the curves of runs beside each other.
    Compare(Compare),
}

/// Draw the curves of runs beside each other.
#[derive(Args)]
struct Compare {
    /// Folders of runs.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The picture: `.svg` or `.png`.
    #[arg(short, long, default_value = "curves.svg")]
    out: PathBuf,
    /// A run to draw as a band behind the others, such as one that ships with the program.
    #[arg(long)]
    band: Option<PathBuf>,
    /// What is drawn: loss, grad_norm, lr, or a figure of the task.
    #[arg(long, default_value = "loss")]
    figure: String,
    /// The horizontal axis.
    #[arg(long, value_enum, default_value_t = AxisArg::Steps)]
    axis: AxisArg,
    /// Logarithmic vertical axis.
    #[arg(long)]
    log: bool,
}

/// See [`Axis`].
#[derive(Clone, Copy, ValueEnum)]
enum AxisArg {
    /// Optimizer steps.
    Steps,
    /// Samples seen.
    Samples,
    /// Tokens through the language model.
    Tokens,
    /// Minutes of training.
    Minutes,
}

impl From<AxisArg> for Axis {
    fn from(axis: AxisArg) -> Self {
        match axis {
            AxisArg::Steps => Self::Steps,
            AxisArg::Samples => Self::Samples,
            AxisArg::Tokens => Self::Tokens,
            AxisArg::Minutes => Self::Minutes,
        }
    }
}

#[cfg(feature = "dashboard")]
fn with_dashboard(recipe: &Recipe, options: &JobOptions<'_>) -> Result<Finished, Failure> {
    let mut dashboard = crate::dashboard::Dashboard::new(&STOP)?;
    let finished = job::run(recipe, options, &mut dashboard);
    dashboard.finish();
    Ok(finished?)
}

#[cfg(not(feature = "dashboard"))]
fn with_dashboard(_: &Recipe, _: &JobOptions<'_>) -> Result<Finished, Failure> {
    Err(Failure::new("this program was built without the dashboard")
        .hint("build it with `cargo build --release --features dashboard`"))
}

/// Set by Ctrl-C: the run saves after its step and stops.
static STOP: AtomicBool = AtomicBool::new(false);

/// Says what is not there before anything is done, and where it comes from.
fn check_inputs(path: &Path, recipe: &Recipe) -> Result<(), Failure> {
    let missing = |(_, input): &(&str, &Path)| !input.exists();
    let Some((key, input)) = recipe.inputs().into_iter().find(missing) else {
        return Ok(());
    };
    let what = format!(
        "`{key}` of {} is {}, which does not exist",
        path.display(),
        input.display()
    );
    let run = input.strip_prefix("runs").ok().and_then(Path::parent);
    Err(Failure::new(what).hint(match run {
        Some(run) if key.starts_with("model") => {
            format!("the recipe named `{}` leaves it there; train that one first", run.display())
        }
        _ if key.starts_with("data") => {
            "paths are relative to the working folder; `opabinia world make` makes a small world, and \
             docs/training.md says what each recipe reads"
                .to_owned()
        }
        _ => "paths are relative to the working folder".to_owned(),
    }))
}

impl Train {
    /// Reads, trains, reports.
    pub fn run(self) -> Outcome {
        if let Some(TrainVerb::Compare(compare)) = self.verb {
            return compare.run();
        }
        let Some(path) = &self.recipe else {
            return Err(Failure::new("no recipe"));
        };
        let recipe = self.read(path)?;
        check_inputs(path, &recipe)?;
        let folder = self.out.clone().unwrap_or_else(|| recipe.folder());
        let devices = device::of_kind(&self.device)?;
        let options = JobOptions {
            // What is free on a GPU is not known.
            memory: match devices.iter().all(|device| *device == Device::flex()) {
                true => memory::free(),
                false => None,
            },
            devices,
            disk: free_disk(&folder),
            folder: Some(folder),
            at_most: self.at_most,
            stop: &STOP,
        };
        if self.dry_run {
            show(&recipe, &job::preflight(&recipe, &options)?);
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(bundle) = &self.replay {
            let replayed = job::replay(&recipe, &options, bundle)?;
            for (samples, loss) in replayed.losses {
                output::data(&format!("summed loss {loss:.6} of samples {samples:?}"));
            }
            for (batch, parameter) in replayed.parameters {
                output::data(&format!(
                    "not finite since micro-batch {batch}: {parameter}"
                ));
            }
            return Ok(ExitCode::SUCCESS);
        }
        watch_for_interrupts()?;
        if self.dashboard {
            return self.report(&with_dashboard(&recipe, &options)?);
        }
        let mut watch = Watch::new(recipe.log.every);
        let finished = job::run(&recipe, &options, &mut watch);
        watch.finish();
        self.report(&finished?)
    }

    fn read(&self, path: &Path) -> Result<Recipe, Failure> {
        let recipe = Recipe::read(path)?;
        let pairs = self.set.iter().map(|pair| {
            pair.split_once('=').ok_or_else(|| {
                Failure::new(format!("`--set {pair}` has no `=`"))
                    .hint("write `--set optimizer.lr=1e-4`, once per key")
            })
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        if pairs.is_empty() {
            return Ok(recipe);
        }
        Ok(recipe.with_overrides(&pairs)?)
    }

    fn report(&self, finished: &Finished) -> Outcome {
        if let Some(faults) = &finished.faults {
            output::note(&format!("bad samples were left out: {faults}"));
        }
        if let Some(shortened) = &finished.shortened {
            output::note(&format!("not all of every sample was used: {shortened}"));
        }
        if self.json {
            let line = json!({
                "done": finished.ending == Ending::Done,
                "step": finished.step,
                "steps": finished.total,
                "folder": finished.folder,
                "model": finished.model,
                "samples": finished.totals.samples,
                "text_only": finished.text_only,
                "seconds": finished.totals.seconds,
            });
            output::data(&line.to_string());
        }
        if let Some(without) = finished.text_only.filter(|&without| without > 0) {
            output::note(&format!(
                "{without} of {} samples had no picture",
                finished.totals.samples
            ));
        }
        let took = time(finished.totals.seconds);
        match (&finished.model, finished.ending) {
            (Some(model), _) => {
                output::note(&format!(
                    "done: {} steps in {took}; the result is in {}",
                    finished.total,
                    model.display()
                ));
                Ok(ExitCode::SUCCESS)
            }
            (None, _) => {
                output::note(&format!(
                    "stopped and saved after step {} of {} ({took}); the same command goes on",
                    finished.step, finished.total
                ));
                let interrupted = STOP.load(Ordering::SeqCst);
                Ok(if interrupted {
                    ExitCode::from(130)
                } else {
                    ExitCode::SUCCESS
                })
            }
        }
    }
}

/// The first Ctrl-C saves and stops, the second ends the program at once.
fn watch_for_interrupts() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            output::note("interrupted; what was done since the last checkpoint is lost");
            std::process::exit(130);
        }
        output::note("stopping after this step, and saving; Ctrl-C again ends at once");
    })?;
    Ok(())
}

/// Free bytes on the disk that a folder is on, or will be.
fn free_disk(folder: &Path) -> Option<u64> {
    let existing = folder.ancestors().find(|path| path.exists())?;
    let existing = if existing.as_os_str().is_empty() {
        Path::new(".")
    } else {
        existing
    };
    let path = existing.canonicalize().ok()?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    disks
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())
        .map(sysinfo::Disk::available_space)
}

/// Prints a pre-flight.
fn show(recipe: &Recipe, flight: &Preflight) {
    let count = |n: u64| {
        if n == 0 {
            "–".to_owned()
        } else {
            output::count(n)
        }
    };
    let rows: Vec<Vec<String>> = flight
        .parts
        .iter()
        .map(|part| {
            let rate = recipe.rates().part(part.part);
            let lr = if part.trained > 0 {
                format!("{:.1e}", rate.lr)
            } else {
                "–".into()
            };
            vec![
                part.part.name().into(),
                count(part.trained),
                count(part.frozen),
                lr,
            ]
        })
        .collect();
    output::data(&format!("{} ({})\n", recipe.name, recipe.stage()));
    output::data(&output::table(&["part", "trains", "frozen", "rate"], &rows));
    let run = whole_run(recipe, flight);
    let peak = flight.peak_bytes.map_or_else(String::new, |bytes| {
        format!(
            " ({} in use at most during the step below)",
            output::bytes(bytes)
        )
    });
    let lines = [
        ("samples", samples(flight)),
        (
            "steps",
            format!(
                "{} ({} per epoch, {} of warm-up)",
                flight.steps, flight.steps_per_epoch, flight.warmup
            ),
        ),
        (
            "batch",
            format!(
                "{} samples in {} micro-batches, {} side by side",
                recipe.batch.global, flight.micro_batches, flight.workers
            ),
        ),
        (
            "memory",
            format!(
                "{} for weights, gradients and optimizer{peak}",
                output::bytes(flight.state_bytes)
            ),
        ),
        ("disk", disk(flight)),
        ("visual tokens", visual_tokens(flight)),
        (
            "one step",
            format!(
                "{:.2} s after {:.2} s of reading; loss {:.3}, {} tokens, {} pictures",
                flight.step_seconds,
                flight.load_seconds,
                flight.step_loss,
                flight.step_tokens,
                flight.step_pictures
            ),
        ),
        ("whole run", format!("about {}", time(run))),
    ];
    output::data("");
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        output::data(&format!("{name:<14}{value}"));
    }
    for sample in &flight.shown {
        output::data(&shown(sample));
    }
    if let Some(faults) = &flight.faults {
        output::data(&format!("\nbad samples: {faults}"));
    }
}

fn samples(flight: &Preflight) -> String {
    match flight.text_only {
        Some(without) if without > 0 => {
            format!("{}, {without} of them without a picture", flight.samples)
        }
        _ => flight.samples.to_string(),
    }
}

fn disk(flight: &Preflight) -> String {
    let run = output::bytes(flight.disk_bytes);
    match flight.cache_bytes {
        Some(cache) => format!(
            "{run}, and about {} more in the feature cache",
            output::bytes(cache)
        ),
        None => run,
    }
}

/// Of the samples that are shown; nothing where none of them has a picture.
fn visual_tokens(flight: &Preflight) -> String {
    let with_picture = flight.shown.iter().filter(|sample| sample.image.is_some());
    let tokens: Vec<usize> = with_picture.map(|sample| sample.visual_tokens).collect();
    match (tokens.iter().min(), tokens.iter().max()) {
        (Some(least), Some(most)) if least < most => {
            format!("{least} to {most} per picture of the samples below")
        }
        (Some(least), _) => format!("{least} per picture"),
        _ => String::new(),
    }
}

/// Seconds of the whole run, guessed from one step: reading and training share the machine, and with a
/// feature cache pictures are looked at in the first epoch only.
fn whole_run(recipe: &Recipe, flight: &Preflight) -> f64 {
    let reading = match recipe.data.feature_cache {
        FeatureCache::Off => flight.steps,
        FeatureCache::Folder(_) => flight.steps.min(flight.steps_per_epoch),
    };
    flight.step_seconds * flight.steps as f64 + flight.load_seconds * reading as f64
}

/// A sample with its trained text marked: underlined on a terminal, in brackets elsewhere.
fn shown(sample: &ShownSample) -> String {
    let picture = match &sample.image {
        Some(image) => format!(", {image} as {} visual tokens", sample.visual_tokens),
        None => String::new(),
    };
    let (begin, end) = if output::is_terminal() {
        ("\x1b[4;32m", "\x1b[0m")
    } else {
        ("⟦", "⟧")
    };
    let mut text = format!(
        "\n{}{picture}: {} of {} tokens are trained\n",
        sample.place, sample.trained, sample.tokens
    );
    for run in &sample.runs {
        if run.branch {
            text.push_str(crate::data::BRANCH);
        }
        if run.trained {
            text.push_str(&format!("{begin}{}{end}", run.text));
        } else {
            text.push_str(&run.text);
        }
    }
    text
}

impl Compare {
    fn run(self) -> Outcome {
        let comparison = Comparison {
            curves: Curve::read_all(&self.runs)?,
            band: self.band.as_deref().map(Curve::read).transpose()?,
            figure: self.figure,
            axis: self.axis.into(),
            logarithmic: self.log,
        };
        let kind = self.out.extension().and_then(|kind| kind.to_str());
        match kind.map(str::to_lowercase).as_deref() {
            Some("svg") => std::fs::write(&self.out, comparison.svg()?).map_err(|error| {
                Failure::new(format!("cannot write {}: {error}", self.out.display()))
            })?,
            Some("png") => {
                RgbImage::from_raw(SIZE.0, SIZE.1, comparison.pixels()?)?.save_png(&self.out)?;
            }
            _ => {
                return Err(Failure::new(format!(
                    "`{}` is neither `.svg` nor `.png`",
                    self.out.display()
                ))
                .hint("the ending of `--out` says what is drawn"));
            }
        }
        output::note(&format!("wrote {}", self.out.display()));
        Ok(ExitCode::SUCCESS)
    }
}
