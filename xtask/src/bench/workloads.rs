//! What is measured.

/// Formats of the weights where answers are measured; PyTorch's activations have the same format.
const BOTH_FORMATS: &[&str] = &["f32", "bf16"];
/// Training is measured as it is done on a CPU.
const F32: &[&str] = &["f32"];

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
    /// Where its figures are published.
    pub(super) group: Group,
}

/// What a workload is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// PyTorch, doing the same.
    PyTorch,
    /// This program without what the workload is about: another workload's name.
    Without(&'static str),
    /// Itself: the memory it holds at its end and after warming up. There is one pass.
    Itself,
}

/// Workloads that are published together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// What it takes to answer.
    Answering,
    /// What it takes to learn.
    Training,
}

impl Group {
    /// Both, in the order of the document.
    pub(super) const ALL: [Self; 2] = [Self::Answering, Self::Training];

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
    /// Tokens in a second; more is better.
    TokensPerSecond,
    /// Pictures in a second; more is better.
    PicturesPerSecond,
    /// Samples in a second; more is better.
    SamplesPerSecond,
    /// 10⁹ bytes of the file in a second; more is better.
    GigabytesPerSecond,
}

impl Unit {
    /// A pass in words.
    pub(super) fn show(self, amount: f64, seconds: f64) -> String {
        match self {
            Self::SecondsPerPicture => format!("{:.3} s", seconds / amount),
            Self::TokensPerSecond => format!("{:.2} tokens/s", amount / seconds),
            Self::PicturesPerSecond => format!("{:.2} pictures/s", amount / seconds),
            Self::SamplesPerSecond => format!("{:.2} samples/s", amount / seconds),
            Self::GigabytesPerSecond => format!("{:.2} GB/s", amount / 1e9 / seconds),
        }
    }
}

const fn answering(name: &'static str, title: &'static str, unit: Unit) -> Workload {
    Workload {
        name,
        title,
        unit,
        dtypes: BOTH_FORMATS,
        beside: Beside::PyTorch,
        group: Group::Answering,
    }
}

const fn training(name: &'static str, title: &'static str, unit: Unit, beside: Beside) -> Workload {
    Workload {
        name,
        title,
        unit,
        dtypes: F32,
        beside,
        group: Group::Training,
    }
}

/// All workloads, in the order of the tables.
pub(super) const WORKLOADS: &[Workload] = &[
    answering(
        "encoder/siglip",
        "SigLIP SO400M/14, 384 px",
        Unit::SecondsPerPicture,
    ),
    answering(
        "encoder/clip",
        "CLIP ViT-L/14, 336 px",
        Unit::SecondsPerPicture,
    ),
    answering(
        "encoder/dinov2",
        "DINOv2 ViT-g/14, 378 px",
        Unit::SecondsPerPicture,
    ),
    answering(
        "encoder/convnext",
        "ConvNeXt-XXL, 1024 px, all stages",
        Unit::SecondsPerPicture,
    ),
    answering(
        "connector/sva",
        "SVA of the 8B model",
        Unit::SecondsPerPicture,
    ),
    answering(
        "connector/in-llm",
        "one in-LLM layer of it",
        Unit::SecondsPerPicture,
    ),
    answering(
        "llm/prefill",
        "Llama-3 8B, prompt of 700 tokens",
        Unit::TokensPerSecond,
    ),
    answering(
        "llm/decode",
        "Llama-3 8B, answer after it",
        Unit::TokensPerSecond,
    ),
    answering(
        "load",
        "loading a bf16 checkpoint",
        Unit::GigabytesPerSecond,
    ),
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
