use burn::tensor::Distribution;

use super::*;
use crate::convnext::ConvNextConfig;
use crate::transformer::tests::tiny;

fn encoder(name: &str, config: EncoderConfig) -> Encoder {
    Encoder::new(&EncoderSpec::parse(name).unwrap(), config, &Device::flex()).unwrap()
}

fn tiny_encoders() -> Vec<Encoder> {
    let convnext = ConvNextConfig {
        depths: [1; 4],
        dims: [4, 6, 8, 10],
        eps: 1e-6,
    };
    let siglip = siglip::SiglipConfig {
        vit: tiny(),
        layout: siglip::Layout::Timm,
    };
    let dinov2 = VitConfig {
        layer_scale: true,
        ..tiny()
    };
    vec![
        encoder("openai/clip-vit-large-patch14", EncoderConfig::Clip(tiny())),
        encoder("siglip/CLIP-ViT-SO400M-14", EncoderConfig::Siglip(siglip)),
        encoder("facebook/dinov2-base-res12", EncoderConfig::Dinov2(dinov2)),
        encoder("clip-convnext-L-res64", EncoderConfig::ConvNext(convnext)),
        encoder(
            "clip-convnext-L-multi-stage-res64",
            EncoderConfig::ConvNext(convnext),
        ),
    ]
}

fn pictures(encoder: &Encoder, count: usize) -> Tensor<4> {
    let side = encoder.side() as usize;
    Tensor::random(
        [count, 3, side, side],
        Distribution::Default,
        &Device::flex(),
    )
}

#[test]
fn a_batch_of_two_is_two_singles() {
    for encoder in tiny_encoders() {
        let pixels = pictures(&encoder, 2);
        let both = encoder
            .encode(pixels.clone(), Some(Grid::square(3)))
            .features;
        for (i, picture) in pixels.split(1, 0).into_iter().enumerate() {
            let alone = encoder.encode(picture, Some(Grid::square(3))).features;
            let worst = (both.clone().narrow(0, i, 1) - alone).abs().max();
            assert!(worst.into_scalar::<f32>() < 1e-5, "{}", encoder.spec());
        }
    }
}

#[test]
fn a_class_token_is_there_or_refused() {
    for encoder in tiny_encoders() {
        let found = encoder.class_token(pictures(&encoder, 2));
        assert_eq!(found.is_ok(), encoder.has_class_token());
        match found {
            Ok(token) => assert_eq!(token.dims(), [2, encoder.width()]),
            Err(error) => assert!(matches!(error, VisionError::NoClassToken { .. })),
        }
    }
}

#[test]
fn other_weights_have_another_hash() {
    let [first, second] = [(); 2].map(|()| tiny_encoders().swap_remove(0));
    assert_eq!(first.weights_hash(), first.clone().weights_hash());
    assert_ne!(first.weights_hash(), second.weights_hash());
    assert_eq!(first.weights_hash().len(), 64);
}

#[test]
fn promised_shapes_are_kept() {
    for encoder in tiny_encoders() {
        let features = encoder.forward(pictures(&encoder, 1));
        assert_eq!(
            (features.grid, features.width()),
            (encoder.grid(), encoder.width())
        );
        assert_eq!(
            encoder.grid().rows,
            encoder.side() as usize / encoder.stride()
        );
    }
}

#[test]
fn the_name_chooses_the_token_grid() {
    let encoder = encoder(
        "facebook/dinov2-base-res12-interp25",
        EncoderConfig::Dinov2(tiny()),
    );
    let pixels = pictures(&encoder, 1);
    assert_eq!(encoder.output_grid(), Grid::square(5));
    assert_eq!(encoder.encode(pixels.clone(), None).grid, Grid::square(5));
    assert_eq!(
        encoder.encode(pixels.clone(), Some(Grid::square(2))).grid,
        Grid::square(2)
    );
    assert_eq!(encoder.forward(pixels).grid, Grid::square(3));
}

#[test]
fn layers_count_from_both_ends() {
    let blocks = |layer| blocks_for(Select::Layer(layer), &tiny()).ok();
    assert_eq!(
        [blocks(-1), blocks(-2), blocks(-3)],
        [Some(2), Some(1), Some(0)]
    );
    assert_eq!([blocks(0), blocks(2)], [Some(0), Some(2)]);
    assert_eq!([blocks(3), blocks(-4), blocks(i64::MIN)], [None; 3]);
}

#[test]
fn a_fixed_position_table_takes_one_grid() {
    let spec = EncoderSpec::parse("openai/clip-vit-large-patch14-336-res224").unwrap();
    let error = Encoder::random(&spec, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("leave `-res224` out"), "{error}");
    let spec = EncoderSpec::parse("facebook/dinov2-base-res13").unwrap();
    let error = Encoder::random(&spec, &Device::flex()).unwrap_err();
    assert!(matches!(
        error,
        VisionError::SideTooSmall { smallest: 14, .. }
    ));
}

#[test]
fn every_parameter_trains() {
    struct Untrained<'a>(&'a burn::tensor::Gradients, usize);
    impl ModuleVisitor for Untrained<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1 += usize::from(param.val().grad(self.0).is_none());
        }
    }
    for encoder in tiny_encoders() {
        let encoder = encoder.train();
        let side = encoder.side() as usize;
        let device = Device::flex().autodiff();
        let pixels = Tensor::random([1, 3, side, side], Distribution::Default, &device);
        let loss = encoder
            .encode(pixels, Some(Grid::square(3)))
            .features
            .square()
            .sum();
        let grads = loss.backward();
        let mut untrained = Untrained(&grads, 0);
        encoder.visit(&mut untrained);
        assert_eq!(untrained.1, 0, "{}", encoder.spec());
    }
}
