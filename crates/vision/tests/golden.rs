//! Every encoder against the reference implementation, tensor by tensor.
//!
//! The cases were computed by the published Python libraries in f32 with small random weights; each
//! states its own tolerance, which covers another order of summation and nothing more.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::prelude::*;
use opabinia_nn::{Grid, LayerNorm, Trace};
use opabinia_vision::{
    Encoder, EncoderConfig, EncoderSpec, Family, VisionError, load_encoder, load_with_config,
};
use opabinia_weights::{Checkpoint, LoadOptions};
use serde_json::Value;

fn golden_root() -> PathBuf {
    match std::env::var_os("OPABINIA_GOLDEN") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
    }
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Folders and descriptions of the cases of a kind, sorted.
fn cases(kind: &str) -> Vec<(PathBuf, Value)> {
    let root = golden_root();
    let folders = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut found: Vec<(PathBuf, Value)> = folders
        .map(|folder| folder.unwrap().path())
        .filter(|folder| folder.join("case.json").is_file())
        .map(|folder| (folder.clone(), json(&folder.join("case.json"))))
        .filter(|(_, case)| case["kind"] == kind)
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(
        !found.is_empty(),
        "no case of kind `{kind}` in {}",
        root.display()
    );
    found
}

/// The expected tensors of a case, with its tolerance and the names compared so far.
struct Expected {
    case: String,
    io: Checkpoint,
    max_abs: f32,
    rel: f32,
    compared: BTreeSet<String>,
}

impl Expected {
    fn open(folder: &Path, case: &Value) -> Self {
        let tolerance = |key: &str| case["tolerance"][key].as_f64().unwrap() as f32;
        Self {
            case: folder.file_name().unwrap().to_string_lossy().into_owned(),
            io: Checkpoint::open(folder.join("io.safetensors")).unwrap(),
            max_abs: tolerance("max_abs"),
            rel: tolerance("rel"),
            compared: BTreeSet::new(),
        }
    }

    fn tensor(&self, name: &str) -> TensorData {
        self.io.tensor(name, None).unwrap()
    }

    fn pixels(&self, name: &str) -> Tensor<4> {
        Tensor::from_data(self.tensor(name), &Device::flex())
    }

    /// `|ours − theirs| ≤ max_abs + rel · |theirs|` for every element.
    fn compare(&mut self, name: &str, ours: &TensorData) {
        let theirs = self.tensor(name);
        assert_eq!(ours.shape(), theirs.shape(), "{}/{name}", self.case);
        let (a, b) = (
            ours.try_to_vec::<f32>().unwrap(),
            theirs.try_to_vec::<f32>().unwrap(),
        );
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            let allowed = self.max_abs + self.rel * b.abs();
            assert!(
                (a - b).abs() <= allowed,
                "{}/{name}[{i}]: {a} is not {b}",
                self.case
            );
        }
        self.compared.insert(name.to_owned());
    }

    /// Compares every traced tensor that the case knows under `group` + name.
    fn compare_all(&mut self, group: &str, ours: &BTreeMap<String, TensorData>) {
        for (name, tensor) in ours {
            let name = format!("{group}{name}");
            if self.io.contains(&name) {
                self.compare(&name, tensor);
            }
        }
    }

    fn names_with(&self, group: &str) -> Vec<String> {
        self.io
            .keys()
            .filter_map(|key| key.strip_prefix(group))
            .map(str::to_owned)
            .collect()
    }

    fn assert_complete(&self) {
        let left: Vec<&str> = self
            .io
            .keys()
            .filter(|key| !self.compared.contains(*key))
            .collect();
        assert!(left.is_empty(), "{}: not compared: {left:?}", self.case);
    }
}

/// The case's configuration, with the architecture that the reference registered in timm itself.
fn config(folder: &Path, case: &Value) -> Result<EncoderConfig, VisionError> {
    let path = folder.join("config.json");
    let mut config = json(&path);
    if config.get("model_cfg").is_some() && case["timm_arch"].is_object() {
        config["timm_arch"] = case["timm_arch"].clone();
    }
    EncoderConfig::from_json(&config, &path)
}

/// Rows of the registry that run a family; ConvNeXt has one for all stages and one for the last.
fn names(family: Family) -> &'static [&'static str] {
    match family {
        Family::Clip => &["openai/clip-vit-large-patch14-336"],
        Family::Siglip => &["siglip/CLIP-ViT-SO400M-14-384"],
        Family::Dinov2 => &["facebook/dinov2-giant"],
        Family::ConvNext => &["clip-convnext-XXL-multi-stage", "clip-convnext-XXL"],
    }
}

fn load(spec: &EncoderSpec, config: EncoderConfig, folder: &Path) -> Encoder {
    let weights = folder.join("model.safetensors");
    let loaded = load_with_config(spec, config, &weights, &LoadOptions::default());
    let (encoder, report) = loaded.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    assert!(report.unused.is_empty(), "{}: {report}", folder.display());
    encoder
}

fn traced(encoder: &Encoder, pixels: Tensor<4>) -> BTreeMap<String, TensorData> {
    let mut trace = Trace::on();
    encoder.encode_traced(pixels, None, &mut trace);
    trace.into_tensors()
}

/// Compares the features on every grid for which the case has an output called `prefix` + tokens.
fn compare_features(expected: &mut Expected, encoder: &Encoder, group: &str, prefix: &str) {
    let pixels = expected.pixels(&format!("{group}pixel_values"));
    for name in expected.names_with(group) {
        let Some(tokens) = name.strip_prefix(prefix) else {
            continue;
        };
        let grid = Grid::from_token_count(tokens.parse().unwrap()).unwrap();
        let features = encoder.encode(pixels.clone(), Some(grid)).features;
        expected.compare(&format!("{group}{name}"), &features.into_data());
    }
}

/// One set of pixels of a vision transformer: native features, resampled ones, intermediates.
fn check_transformer(expected: &mut Expected, encoder: &Encoder, group: &str) {
    let pixels = expected.pixels(&format!("{group}pixel_values"));
    expected.compared.insert(format!("{group}pixel_values"));
    expected.compare_all(group, &traced(encoder, pixels.clone()));
    let native = format!("{group}tower_native");
    if expected.io.contains(&native) {
        expected.compare(&native, &encoder.forward(pixels).features.into_data());
    }
    for prefix in ["tower_interp", "interp"] {
        compare_features(expected, encoder, group, prefix);
    }
}

/// What comes after the selected layer: the rest of the blocks, and the pooled class token.
fn check_clip_end(
    expected: &mut Expected,
    spec: &EncoderSpec,
    config: EncoderConfig,
    folder: &Path,
) {
    let whole = load(&spec.with_select_layer(-1), config, folder);
    let trace = traced(&whole, expected.pixels("pixel_values"));
    expected.compare_all("", &trace);
    let last = Tensor::<3>::from_data(trace["last_hidden_state"].clone(), &Device::flex());
    let [b, _, d] = last.dims();
    let weights = Checkpoint::open(folder.join("model.safetensors")).unwrap();
    let parameter = |name: &str| {
        let key = format!("vision_model.post_layernorm.{name}");
        Param::from_tensor(Tensor::from_data(
            weights.tensor(&key, None).unwrap(),
            &Device::flex(),
        ))
    };
    let mut norm = LayerNorm::new(d, 1e-5, &Device::flex());
    (norm.weight, norm.bias) = (parameter("weight"), parameter("bias"));
    let class = norm.forward(last.slice([0..b, 0..1, 0..d])).reshape([b, d]);
    expected.compare("pooler_output", &class.into_data());
}

fn check_convnext(expected: &mut Expected, encoder: &Encoder) {
    let pixels = expected.pixels("pixel_values");
    expected.compared.insert("pixel_values".to_owned());
    expected.compare_all("", &traced(encoder, pixels.clone()));
    if encoder.stage_widths().len() > 1 {
        return compare_features(expected, encoder, "", "multi_stage_interp");
    }
    compare_features(expected, encoder, "", "single_stage_interp");
    let planes = encoder.forward(pixels).into_rows().permute([0, 3, 1, 2]);
    expected.compare("single_stage_native_nchw", &planes.into_data());
}

#[test]
fn encoders_match_the_reference() {
    let mut families = BTreeSet::new();
    for (folder, case) in cases("vision_encoder") {
        let config = match config(&folder, &case) {
            Ok(config) => config,
            Err(VisionError::UnsupportedFamily { .. }) => continue,
            Err(error) => panic!("{}: {error}", folder.display()),
        };
        let mut expected = Expected::open(&folder, &case);
        let groups: BTreeSet<String> = expected
            .io
            .keys()
            .filter_map(|key| key.strip_suffix("pixel_values"))
            .map(str::to_owned)
            .collect();
        for name in names(config.family()) {
            let spec = EncoderSpec::parse(name).unwrap();
            let encoder = load(&spec, config, &folder);
            if config.family() == Family::ConvNext {
                check_convnext(&mut expected, &encoder);
                continue;
            }
            for group in &groups {
                check_transformer(&mut expected, &encoder, group);
            }
            if config.family() == Family::Clip {
                check_clip_end(&mut expected, &spec, config, &folder);
            }
        }
        expected.assert_complete();
        families.insert(config.family().to_string());
    }
    assert_eq!(
        families.len(),
        4,
        "families without a case: only {families:?} were compared"
    );
}

/// The encoders of whole models, found by their published names and loaded as users load them.
#[test]
fn encoders_of_models_match_the_reference() {
    let mut compared = 0;
    for (folder, case) in cases("model") {
        let config = json(&folder.join("config.json"));
        let mut expected = Expected::open(&folder, &case);
        let towers = case["towers_order"].as_array().unwrap();
        for (i, tower) in towers.iter().enumerate() {
            let name = config["mm_vision_tower_aux_list"][i].as_str().unwrap();
            let tokens = config["mm_vision_tower_aux_token_len_list"][i]
                .as_u64()
                .unwrap();
            let spec = EncoderSpec::parse(&format!("{name}-interp{tokens}")).unwrap();
            let select = config["mm_vision_select_layer"].as_i64().unwrap();
            let path = folder.join(tower.as_str().unwrap());
            let options = LoadOptions::default();
            let loaded = load_encoder(&spec.with_select_layer(select), &path, &options);
            let (encoder, report) = loaded.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(report.unused.is_empty(), "{}: {report}", path.display());
            let (pixels, output) = (format!("pixels.wide.tower{i}"), format!("wide.tower{i}"));
            if !expected.io.contains(&pixels) || !expected.io.contains(&output) {
                continue;
            }
            let pixels = expected.pixels(&pixels);
            assert_eq!(pixels.dims()[2], encoder.side() as usize, "{name}");
            let features = encoder.encode(pixels, None);
            assert_eq!(
                (features.grid.len() as u64, features.grid),
                (tokens, encoder.output_grid())
            );
            expected.compare(&output, &features.features.into_data());
            compared += 1;
        }
    }
    assert!(
        compared >= 5,
        "only {compared} encoders of models were compared"
    );
}
