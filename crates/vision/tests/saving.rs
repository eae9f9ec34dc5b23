//! What is written is an ordinary checkpoint: it is read back bit for bit.
#![allow(missing_docs, clippy::unwrap_used)]

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use opabinia_vision::{Encoder, EncoderSpec, load_encoder};
use opabinia_weights::{LoadOptions, WeightDtype};

#[derive(Default)]
struct Values(Vec<f32>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().into_data().convert::<f32>();
        self.0.extend(values.try_to_vec::<f32>().unwrap());
    }
}

fn values(encoder: &Encoder) -> Vec<f32> {
    let mut values = Values::default();
    encoder.visit(&mut values);
    values.0
}

const SHIPPED: [&str; 4] = [
    "opabinia/small-siglip-128",
    "opabinia/small-dinov2-mae-128",
    "opabinia/small-convnext-256",
    "opabinia/small-convnext-text-256",
];

#[test]
fn saved_encoders_are_read_back_bit_for_bit() {
    for name in SHIPPED {
        let spec = EncoderSpec::parse(name).unwrap();
        let encoder = Encoder::random(&spec, &Device::flex()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        encoder.save(folder.path(), WeightDtype::F32).unwrap();
        let options = LoadOptions::new(WeightDtype::AsStored);
        let (read, report) = load_encoder(&spec, folder.path(), &options).unwrap();
        assert!(report.unused.is_empty(), "{name}: {:?}", report.unused);
        assert_eq!(read.config(), encoder.config(), "{name}");
        assert_eq!(read.side(), encoder.side(), "{name}");
        assert!(values(&read) == values(&encoder), "{name}");
    }
}

/// Training happens on an autodiff device; saving does not care.
#[test]
fn a_network_in_training_is_saved_in_half_the_bytes() {
    let spec = EncoderSpec::parse(SHIPPED[1]).unwrap();
    let encoder = Encoder::random(&spec, &Device::flex().autodiff()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let report = encoder.save(folder.path(), WeightDtype::Bf16).unwrap();
    // The parameters and the mask token, two bytes each.
    assert_eq!(report.bytes, 2 * (encoder.parameters() + 128));
}
