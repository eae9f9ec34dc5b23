//! What is measured.

/// Formats of the weights where answers are measured.
const FORMATS: &[&str] = &["f32", "bf16", "int8"];
/// Where a weight is read for a few rows only.
const ALL_FORMATS: &[&str] = &["f32", "bf16", "int8", "int4"];
/// Formats that llama.cpp has, too: its Q8_0 and Q4_0 take 8.5 and 4.5 bits for a weight.
const INTEGERS: &[&str] = &["int8", "int4"];
/// What is made for answering on a CPU.
const SHORT_FORMATS: &[&str] = &["bf16", "int8", "int4"];
/// Where a file is read.
const FLOATS: &[&str] = &["f32", "bf16"];
/// The limit of products of many rows: multiplications and additions in registers.
const ARITHMETIC: &str = "limit/arithmetic";
/// The limit of products of one row: reading the weight.
const READING: &str = "limit/reading";
/// Training is measured as it is done on a CPU.
const F32: &[&str] = &["f32"];

impl Beside {
    /// Name of a peer, and its script in `benches/peers`; `None` if this program runs beside itself.
    pub(super) fn peer(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::PyTorch => Some(("PyTorch", "measure.py")),
            Self::LlamaCpp => Some(("llama.cpp", "llama_cpp_side.py")),
            Self::Without(_) | Self::Itself => None,
        }
    }

    /// What a peer runs beside a format: PyTorch has none shorter than bf16 that plain modules use.
    pub(super) fn format(self, ours: &'static str) -> &'static str {
        match (self, ours) {
            (Self::PyTorch, "int8" | "int4") => "bf16",
            _ => ours,
        }
    }
}

/// Something that this program can run.
#[derive(Debug)]
pub(super) struct Workload {
    /// As `measure` and the peers know it.
    pub(super) name: &'static str,
    /// As the table calls it.
    pub(super) title: &'static str,
    /// How its speed is told.
    pub(super) unit: Unit,
    /// Formats of the weights in which it is run.
    pub(super) dtypes: &'static [&'static str],
    /// What runs beside it.
    pub(super) beside: Beside,
    /// What measures the most that this machine can do of the same work, where that is known.
    pub(super) limit: Option<&'static str>,
    /// Where its figures are published.
    pub(super) group: Group,
}

/// What a workload is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// PyTorch, doing the same.
    PyTorch,
    /// llama.cpp, doing the same.
    LlamaCpp,
    /// This program without what the workload is about: another workload's name. The amount of work may
    /// be another; speeds are compared.
    Without(&'static str),
    /// Itself: the memory it holds at its end and after warming up. There is one pass.
    Itself,
}

/// Workloads that are published together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// What it takes to answer.
    Answering,
    /// What it takes to answer, beside a program that does nothing else.
    LanguageModel,
    /// What it takes to learn.
    Training,
    /// What both are made of.
    Products,
}

impl Group {
    /// All, in the order of the document.
    pub(super) const ALL: [Self; 4] = [
        Self::Answering,
        Self::LanguageModel,
        Self::Training,
        Self::Products,
    ];

    /// What it is called on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Answering => "answering",
            Self::LanguageModel => "language-model",
            Self::Training => "training",
            Self::Products => "products",
        }
    }

    /// All that belongs to it.
    pub(super) fn workloads(self) -> impl Iterator<Item = &'static Workload> {
        WORKLOADS.iter().filter(move |w| w.group == self)
    }
}

/// How a speed is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Seconds for a picture; less is better.
    SecondsPerPicture,
    /// Seconds for a question; less is better.
    SecondsPerQuestion,
    /// Seconds for a model; less is better.
    SecondsPerModel,
    /// Tokens in a second; more is better.
    TokensPerSecond,
    /// Pictures in a second; more is better.
    PicturesPerSecond,
    /// Samples in a second; more is better.
    SamplesPerSecond,
    /// 10⁹ bytes of the file in a second; more is better.
    GigabytesPerSecond,
    /// 10⁹ multiplications and additions in a second; more is better.
    Gigaflops,
}

impl Unit {
    /// A pass in words.
    pub(super) fn show(self, amount: f64, seconds: f64) -> String {
        match self {
            Self::SecondsPerPicture | Self::SecondsPerQuestion | Self::SecondsPerModel => {
                format!("{:.3} s", seconds / amount)
            }
            Self::TokensPerSecond => format!("{:.2} tokens/s", amount / seconds),
            Self::PicturesPerSecond => format!("{:.2} pictures/s", amount / seconds),
            Self::SamplesPerSecond => format!("{:.2} samples/s", amount / seconds),
            Self::GigabytesPerSecond => format!("{:.2} GB/s", amount / 1e9 / seconds),
            Self::Gigaflops => format!("{:.0} GFLOP/s", amount / 1e9 / seconds),
        }
    }
}

const fn answering(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    dtypes: &'static [&'static str],
) -> Workload {
    Workload {
        name,
        title,
        unit,
        dtypes,
        beside: Beside::PyTorch,
        limit: None,
        group: Group::Answering,
    }
}

const fn language_model(name: &'static str, title: &'static str) -> Workload {
    Workload {
        name,
        title,
        unit: Unit::TokensPerSecond,
        dtypes: INTEGERS,
        beside: Beside::LlamaCpp,
        limit: None,
        group: Group::LanguageModel,
    }
}

/// What a feature brings to somebody who asks.
const fn without(
    name: &'static str,
    title: &'static str,
    unit: Unit,
    other: &'static str,
) -> Workload {
    Workload {
        name,
        title,
        unit,
        dtypes: SHORT_FORMATS,
        beside: Beside::Without(other),
        limit: None,
        group: Group::Answering,
    }
}

const fn product(name: &'static str, title: &'static str, limit: &'static str) -> Workload {
    Workload {
        name,
        title,
        unit: Unit::Gigaflops,
        dtypes: ALL_FORMATS,
        beside: Beside::PyTorch,
        limit: Some(limit),
        group: Group::Products,
    }
}

const fn training(name: &'static str, title: &'static str, unit: Unit, beside: Beside) -> Workload {
    Workload {
        name,
        title,
        unit,
        dtypes: F32,
        beside,
        limit: None,
        group: Group::Training,
    }
}

/// All workloads, in the order of the tables.
pub(super) const WORKLOADS: &[Workload] = &[
    answering(
        "encoder/siglip",
        "SigLIP SO400M/14, 384 px",
        Unit::SecondsPerPicture,
        FORMATS,
    ),
    answering(
        "encoder/clip",
        "CLIP ViT-L/14, 336 px",
        Unit::SecondsPerPicture,
        FORMATS,
    ),
    answering(
        "encoder/dinov2",
        "DINOv2 ViT-g/14, 378 px",
        Unit::SecondsPerPicture,
        FORMATS,
    ),
    answering(
        "encoder/convnext",
        "ConvNeXt-XXL, 1024 px, all stages",
        Unit::SecondsPerPicture,
        FORMATS,
    ),
    answering(
        "connector/sva",
        "SVA of the 8B model",
        Unit::SecondsPerPicture,
        FORMATS,
    ),
    answering(
        "connector/in-llm",
        "one in-LLM layer of it",
        Unit::SecondsPerPicture,
        FORMATS,
    ),
    answering(
        "llm/prefill",
        "Llama-3 8B, prompt of 700 tokens",
        Unit::TokensPerSecond,
        ALL_FORMATS,
    ),
    answering(
        "llm/decode",
        "Llama-3 8B, answer after it",
        Unit::TokensPerSecond,
        ALL_FORMATS,
    ),
    answering(
        "load",
        "loading a bf16 checkpoint",
        Unit::GigabytesPerSecond,
        FLOATS,
    ),
    answering(
        "question/whole",
        "one question at 8B shape, 64 answer tokens",
        Unit::SecondsPerQuestion,
        SHORT_FORMATS,
    ),
    without(
        "question/again",
        "second question on the same picture, 64 answer tokens",
        Unit::SecondsPerQuestion,
        "question/whole",
    ),
    without(
        "llm/prefill-long",
        "Llama-3 8B, prompt of 2,800 tokens beside one of 700",
        Unit::TokensPerSecond,
        "llm/prefill",
    ),
    without(
        "llm/guesses",
        "seven tokens guessed, all of them right",
        Unit::TokensPerSecond,
        "llm/decode",
    ),
    without(
        "llm/batch",
        "eight answers at a time, Llama-3 8B",
        Unit::TokensPerSecond,
        "llm/decode",
    ),
    without(
        "load/packed",
        "Llama-3 8B from a file that is packed",
        Unit::SecondsPerModel,
        "load/packing",
    ),
    language_model("llama.cpp/prefill", "Llama-3 8B, prompt of 700 tokens"),
    language_model("llama.cpp/decode", "Llama-3 8B, answer after it"),
    product("product/vit", "577 × 1024 → 4096", ARITHMETIC),
    product("product/vit-back", "577 × 4096 → 1024", ARITHMETIC),
    product("product/convnext", "4096 × 384 → 1536", ARITHMETIC),
    product("product/decoder", "700 × 4096 → 14336", ARITHMETIC),
    product("product/token", "1 × 4096 → 14336", READING),
    training(
        "training/decoder",
        "step of a decoder of 20M parameters",
        Unit::TokensPerSecond,
        Beside::PyTorch,
    ),
    training(
        "training/sva",
        "step of the small SVA model, all of it",
        Unit::PicturesPerSecond,
        Beside::PyTorch,
    ),
    training(
        "training/feature-cache",
        "feature cache, stage 1 of the small model",
        Unit::SamplesPerSecond,
        Beside::Without("training/stage-1"),
    ),
    training(
        "training/checkpointing",
        "gradient checkpointing, the decoder of 20M",
        Unit::TokensPerSecond,
        Beside::Without("training/decoder"),
    ),
    training(
        "training/long",
        "2,000 steps of stage 1 of a tiny model",
        Unit::SamplesPerSecond,
        Beside::Itself,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_told_in_their_unit() {
        assert_eq!(Unit::SecondsPerPicture.show(2.0, 3.0), "1.500 s");
        assert_eq!(Unit::TokensPerSecond.show(700.0, 10.0), "70.00 tokens/s");
        assert_eq!(Unit::PicturesPerSecond.show(16.0, 2.0), "8.00 pictures/s");
        assert_eq!(Unit::SamplesPerSecond.show(256.0, 4.0), "64.00 samples/s");
        assert_eq!(Unit::GigabytesPerSecond.show(3e9, 2.0), "1.50 GB/s");
        assert_eq!(Unit::Gigaflops.show(3e11, 2.0), "150 GFLOP/s");
    }

    #[test]
    fn peers_run_their_own_formats() {
        let formats = ["f32", "bf16", "int8", "int4"];
        let pytorch = formats.map(|format| Beside::PyTorch.format(format));
        assert_eq!(pytorch, ["f32", "bf16", "bf16", "bf16"]);
        assert_eq!(
            formats.map(|format| Beside::LlamaCpp.format(format)),
            formats
        );
    }

    #[test]
    fn every_workload_is_in_a_group_and_names_tell_which() {
        let count: usize = Group::ALL
            .map(|group| group.workloads().count())
            .iter()
            .sum();
        assert_eq!(count, WORKLOADS.len());
        for workload in Group::Training.workloads() {
            assert!(workload.name.starts_with("training/"), "{}", workload.name);
        }
    }
}
