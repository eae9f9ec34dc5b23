//! What is measured.

/// Formats of the weights; PyTorch's activations have the same format.
pub(super) const DTYPES: [&str; 2] = ["f32", "bf16"];

/// Something that both sides can run.
#[derive(Debug)]
pub(super) struct Workload {
    /// As both sides know it.
    pub(super) name: &'static str,
    /// As the table calls it.
    pub(super) title: &'static str,
    /// How its speed is told.
    pub(super) unit: Unit,
}

/// How a speed is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Seconds for a picture; less is better.
    SecondsPerPicture,
    /// Tokens in a second; more is better.
    TokensPerSecond,
    /// 10⁹ bytes of the file in a second; more is better.
    GigabytesPerSecond,
}

impl Unit {
    /// A pass in words.
    pub(super) fn show(self, amount: f64, seconds: f64) -> String {
        match self {
            Self::SecondsPerPicture => format!("{:.3} s", seconds / amount),
            Self::TokensPerSecond => format!("{:.2} tokens/s", amount / seconds),
            Self::GigabytesPerSecond => format!("{:.2} GB/s", amount / 1e9 / seconds),
        }
    }
}

const fn workload(name: &'static str, title: &'static str, unit: Unit) -> Workload {
    Workload { name, title, unit }
}

/// All workloads, in the order of the table.
pub(super) const WORKLOADS: &[Workload] = &[
    workload(
        "encoder/siglip",
        "SigLIP SO400M/14, 384 px",
        Unit::SecondsPerPicture,
    ),
    workload(
        "encoder/clip",
        "CLIP ViT-L/14, 336 px",
        Unit::SecondsPerPicture,
    ),
    workload(
        "encoder/dinov2",
        "DINOv2 ViT-g/14, 378 px",
        Unit::SecondsPerPicture,
    ),
    workload(
        "encoder/convnext",
        "ConvNeXt-XXL, 1024 px, all stages",
        Unit::SecondsPerPicture,
    ),
    workload(
        "connector/sva",
        "SVA of the 8B model",
        Unit::SecondsPerPicture,
    ),
    workload(
        "connector/in-llm",
        "one in-LLM layer of it",
        Unit::SecondsPerPicture,
    ),
    workload(
        "llm/prefill",
        "Llama-3 8B, prompt of 700 tokens",
        Unit::TokensPerSecond,
    ),
    workload(
        "llm/decode",
        "Llama-3 8B, answer after it",
        Unit::TokensPerSecond,
    ),
    workload(
        "load",
        "loading a bf16 checkpoint",
        Unit::GigabytesPerSecond,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_told_in_their_unit() {
        assert_eq!(Unit::SecondsPerPicture.show(2.0, 3.0), "1.500 s");
        assert_eq!(Unit::TokensPerSecond.show(700.0, 10.0), "70.00 tokens/s");
        assert_eq!(Unit::GigabytesPerSecond.show(3e9, 2.0), "1.50 GB/s");
    }
}
