//! Kind `vision_encoder`: one encoder, its intermediate tensors and its features on several grids.

use burn::prelude::*;
use opabinia_nn::{FeatureGrid, Grid, Trace};
use opabinia_vision::{
    Encoder, EncoderConfig, EncoderEntry, EncoderSpec, Family, REGISTRY, Select, load_with_config,
};

use super::case::Tolerance;
use super::{Case, CaseError, Check};

pub(super) fn run(case: &Case) -> Result<Vec<Check>, CaseError> {
    let bench = Bench {
        case,
        config: config(case)?,
        tolerance: case.tolerance()?,
    };
    match bench.config.family() {
        Family::Clip => bench.clip(),
        Family::Siglip => bench.siglip(),
        Family::Dinov2 => bench.dinov2(),
        Family::ConvNext => bench.convnext(),
    }
}

/// The architecture; a case of an invented timm network describes it in `case.json`.
fn config(case: &Case) -> Result<EncoderConfig, CaseError> {
    let mut json = case.file("config.json")?;
    if let (Some(map), Some(arch)) = (json.as_object_mut(), case.json.get("timm_arch"))
        && map.contains_key("model_cfg")
        && !map.contains_key("timm_arch")
    {
        map.insert("timm_arch".into(), arch.clone());
    }
    Ok(EncoderConfig::from_json(
        &json,
        &case.folder.join("config.json"),
    )?)
}

struct Bench<'a> {
    case: &'a Case,
    config: EncoderConfig,
    tolerance: Tolerance,
}

impl Bench<'_> {
    /// The case's encoder, as a row of its family would load it.
    fn encoder(&self, side: usize, select: Option<Select>) -> Result<Encoder, CaseError> {
        let entry = self.entry()?;
        let spec = EncoderSpec {
            entry,
            side: u32::try_from(side).ok(),
            tokens: None,
            select: select.unwrap_or(entry.select),
        };
        let options = self.case.load_options();
        let (encoder, report) = load_with_config(&spec, self.config, &self.case.folder, &options)?;
        report.deny_unused()?;
        Ok(encoder)
    }

    fn entry(&self) -> Result<&'static EncoderEntry, CaseError> {
        let family = self.config.family();
        let entry = REGISTRY.iter().find(|entry| entry.family == family);
        entry.ok_or_else(|| {
            self.case
                .wrong(format!("no encoder of the family {family}"))
        })
    }

    fn compare<const D: usize>(&self, name: &str, ours: Tensor<D>) -> Result<Check, CaseError> {
        self.case.compare(name, &ours.into_data(), self.tolerance)
    }

    /// Every traced tensor that the case holds as `prefix + name`.
    fn traced(
        &self,
        encoder: &Encoder,
        pixels: Tensor<4>,
        prefix: &str,
    ) -> Result<Vec<Check>, CaseError> {
        let mut trace = Trace::on();
        let _ = encoder.encode_traced(pixels, None, &mut trace);
        trace
            .into_tensors()
            .into_iter()
            .map(|(name, data)| (format!("{prefix}{name}"), data))
            .filter(|(name, _)| self.case.tensors.contains_key(name))
            .map(|(name, data)| self.case.compare(&name, &data, self.tolerance))
            .collect()
    }

    /// Features on each grid that the case holds as `prefix + N`.
    fn resampled(
        &self,
        encoder: &Encoder,
        pixels: &Tensor<4>,
        prefix: &str,
    ) -> Result<Vec<Check>, CaseError> {
        let mut checks = Vec::new();
        for name in self.case.tensors.keys() {
            let Some(tokens) = name.strip_prefix(prefix).and_then(|n| n.parse().ok()) else {
                continue;
            };
            let grid = Grid::from_token_count(tokens)
                .ok_or_else(|| self.case.wrong(format!("`{name}` is on no square grid")))?;
            let features = encoder.encode(pixels.clone(), Some(grid)).features;
            checks.push(self.compare(name, features)?);
        }
        Ok(checks)
    }

    fn native(
        &self,
        encoder: &Encoder,
        pixels: &Tensor<4>,
        name: &str,
    ) -> Result<Vec<Check>, CaseError> {
        if !self.case.tensors.contains_key(name) {
            return Ok(Vec::new());
        }
        Ok(vec![
            self.compare(name, encoder.forward(pixels.clone()).features)?,
        ])
    }

    fn square_pixels(&self) -> Result<Tensor<4>, CaseError> {
        let name = "pixel_values";
        let side = self.case.tensor(name)?.shape.get(2).copied();
        self.case
            .sized_input::<4>(name, [None, Some(3), None, side])
    }

    fn clip(&self) -> Result<Vec<Check>, CaseError> {
        let pixels = self.square_pixels()?;
        let side = pixels.dims()[2];
        let layer = self.case.json["tower_options"]["select_layer"]
            .as_i64()
            .unwrap_or(-2);
        let encoder = self.encoder(side, Some(Select::Layer(layer)))?;
        // Blocks after the selected one are compared too, in an encoder that has them.
        let whole = self.encoder(side, Some(Select::Layer(-1)))?;
        let mut checks = self.traced(&whole, pixels.clone(), "")?;
        checks.extend(self.native(&encoder, &pixels, "tower_native")?);
        checks.extend(self.resampled(&encoder, &pixels, "tower_interp")?);
        Ok(checks)
    }

    fn siglip(&self) -> Result<Vec<Check>, CaseError> {
        let pixels = self.square_pixels()?;
        let encoder = self.encoder(pixels.dims()[2], None)?;
        let mut checks = self.traced(&encoder, pixels.clone(), "")?;
        checks.extend(self.native(&encoder, &pixels, "tower_native")?);
        for prefix in ["tower_interp", "interp"] {
            checks.extend(self.resampled(&encoder, &pixels, prefix)?);
        }
        Ok(checks)
    }

    /// At every resolution that the case has.
    fn dinov2(&self) -> Result<Vec<Check>, CaseError> {
        let mut checks = Vec::new();
        for name in self.case.tensors.keys() {
            let Some(run) = name.strip_suffix("pixel_values") else {
                continue;
            };
            let pixels = self
                .case
                .sized_input::<4>(name, [None, Some(3), None, None])?;
            let encoder = self.encoder(pixels.dims()[2], None)?;
            checks.extend(self.traced(&encoder, pixels.clone(), run)?);
            checks.extend(self.native(&encoder, &pixels, &format!("{run}tower_native"))?);
            checks.extend(self.resampled(&encoder, &pixels, &format!("{run}tower_interp"))?);
        }
        Ok(checks)
    }

    fn convnext(&self) -> Result<Vec<Check>, CaseError> {
        let pixels = self.square_pixels()?;
        let side = pixels.dims()[2];
        let all = self.encoder(side, Some(Select::AllStages))?;
        let last = self.encoder(side, Some(Select::LastStage))?;
        let mut checks = self.traced(&all, pixels.clone(), "")?;
        checks.extend(self.resampled(&all, &pixels, "multi_stage_interp")?);
        checks.extend(self.resampled(&last, &pixels, "single_stage_interp")?);
        let planes = "single_stage_native_nchw";
        if self.case.tensors.contains_key(planes) {
            let features: FeatureGrid = last.forward(pixels);
            checks.push(self.compare(planes, features.into_rows().permute([0, 3, 1, 2]))?);
        }
        Ok(checks)
    }
}
