//! The processors that were published with the encoders, and the reference's chains around them.

use super::{
    CLIP_MEAN, CLIP_STD, CropRounding, HALF, IMAGENET_MEAN, IMAGENET_STD, Preprocessor, Rescale,
    SAM_MEAN, SAM_STD, Step, ZeroPad, pad_colour,
};
use crate::resample::Filter;

/// The published processors.
impl Preprocessor {
    /// CLIP (OpenAI), as transformers' `CLIPImageProcessor`.
    pub fn clip(side: u32) -> Self {
        Self::shortest_then_crop(
            side,
            Filter::Bicubic,
            CropRounding::Down,
            CLIP_MEAN,
            CLIP_STD,
        )
    }

    /// SigLIP, as open_clip's transform with `resize_mode = "squash"`.
    pub fn siglip(side: u32) -> Self {
        Self::squash(side, HALF, HALF)
    }

    /// ConvNeXt trained as CLIP, as open_clip's transform with `resize_mode = "shortest"`.
    pub fn convnext_clip(side: u32) -> Self {
        Self::shortest_then_crop(
            side,
            Filter::Bicubic,
            CropRounding::Even,
            CLIP_MEAN,
            CLIP_STD,
        )
    }

    /// DINOv2, as transformers' `BitImageProcessor` with both sizes set to `side`.
    pub fn dinov2(side: u32) -> Self {
        let (mean, std) = (IMAGENET_MEAN, IMAGENET_STD);
        Self::shortest_then_crop(side, Filter::Bicubic, CropRounding::Down, mean, std)
    }

    /// Segment Anything: longest side, normalised in units of 0..=255, then zeros to a square.
    pub fn sam(side: u32) -> Self {
        Self {
            steps: vec![Step::ResizeLongest {
                side,
                filter: Filter::Bilinear,
            }],
            rescale: Rescale::Byte,
            mean: SAM_MEAN,
            std: SAM_STD,
            zero_pad: Some(ZeroPad {
                width: side,
                height: side,
            }),
        }
    }

    /// MoCo v3, I-JEPA and MAWS: torchvision's `Resize(side · 256 / 224)` and `CenterCrop(side)`.
    pub fn imagenet_crop(side: u32) -> Self {
        // 65 535 · 256 still fits.
        let larger = side.saturating_mul(256) / 224;
        let mut this = Self::shortest_then_crop(
            larger,
            Filter::Bilinear,
            CropRounding::Even,
            IMAGENET_MEAN,
            IMAGENET_STD,
        );
        this.steps.pop();
        this.steps.push(Step::CenterCrop {
            side,
            rounding: CropRounding::Even,
        });
        this
    }

    /// Stable Diffusion as a feature extractor: torchvision's `Resize` and `CenterCrop`, −1..=1.
    pub fn diffusion(side: u32) -> Self {
        Self::shortest_then_crop(side, Filter::Bilinear, CropRounding::Even, HALF, HALF)
    }

    /// DPT (MiDaS), as transformers' `DPTImageProcessor`.
    pub fn dpt(side: u32) -> Self {
        Self::squash(side, HALF, HALF)
    }

    fn squash(side: u32, mean: [f64; 3], std: [f64; 3]) -> Self {
        let steps = vec![Step::Resize {
            width: side,
            height: side,
            filter: Filter::Bicubic,
        }];
        Self {
            steps,
            rescale: Rescale::Unit,
            mean,
            std,
            zero_pad: None,
        }
    }

    fn shortest_then_crop(
        side: u32,
        filter: Filter,
        rounding: CropRounding,
        mean: [f64; 3],
        std: [f64; 3],
    ) -> Self {
        let steps = vec![
            Step::ResizeShortest { side, filter },
            Step::CenterCrop { side, rounding },
        ];
        Self {
            steps,
            rescale: Rescale::Unit,
            mean,
            std,
            zero_pad: None,
        }
    }
}

/// The chains of the reference implementation.
impl Preprocessor {
    /// Puts the reference's two steps before these: pad to a square of `colour`, then resize to
    /// `side × side` with the bicubic filter.
    #[must_use]
    pub fn square_padded(mut self, side: u32, colour: [u8; 3]) -> Self {
        let square = [
            Step::PadSquare { colour },
            Step::Resize {
                width: side,
                height: side,
                filter: Filter::Bicubic,
            },
        ];
        self.steps.splice(0..0, square);
        self
    }

    /// [`clip`](Self::clip) as the reference runs it; released models use 336.
    pub fn reference_clip(side: u32) -> Self {
        Self::clip(side).square_padded(side, pad_colour(CLIP_MEAN))
    }

    /// [`siglip`](Self::siglip) as the reference runs it, with CLIP's border; released models use
    /// 384.
    pub fn reference_siglip(side: u32) -> Self {
        Self::siglip(side).square_padded(side, pad_colour(CLIP_MEAN))
    }

    /// [`convnext_clip`](Self::convnext_clip) as the reference runs it; released models use 1024.
    pub fn reference_convnext_clip(side: u32) -> Self {
        Self::convnext_clip(side).square_padded(side, pad_colour(CLIP_MEAN))
    }

    /// [`dinov2`](Self::dinov2) as the reference runs it; released models use 378.
    pub fn reference_dinov2(side: u32) -> Self {
        Self::dinov2(side).square_padded(side, pad_colour(IMAGENET_MEAN))
    }

    /// [`sam`](Self::sam) as the reference runs it: its mean is not in 0..=1, so the border comes
    /// out white. Published at 1024.
    pub fn reference_sam(side: u32) -> Self {
        Self::sam(side).square_padded(side, pad_colour(SAM_MEAN))
    }

    /// [`imagenet_crop`](Self::imagenet_crop) as the reference runs it, with CLIP's border: the
    /// outer 6 % of the square are cut off. Published at 224.
    pub fn reference_imagenet_crop(side: u32) -> Self {
        Self::imagenet_crop(side).square_padded(side, pad_colour(CLIP_MEAN))
    }

    /// [`diffusion`](Self::diffusion) as the reference runs it, with CLIP's border; used at 512.
    pub fn reference_diffusion(side: u32) -> Self {
        Self::diffusion(side).square_padded(side, pad_colour(CLIP_MEAN))
    }

    /// [`dpt`](Self::dpt) as the reference runs it; used at 384 and 512.
    pub fn reference_dpt(side: u32) -> Self {
        Self::dpt(side).square_padded(side, pad_colour(HALF))
    }
}
