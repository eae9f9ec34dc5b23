//! What the reference implementation of Cambrian-1 (arXiv 2406.16860) does to pictures when it trains,
//! against what this project always does.
//!
//! The reference trains with padded rows: a picture takes `side · (side + 1)` slots, those of padding
//! are hidden and skipped by the positions. When it answers, the padding is cropped, and so it is
//! here, in training too. Both say the same: as many tokens remain, at the same positions, and what
//! the remaining queries look at is the same, as these cases show. They differ in one thing: a picture
//! so elongated that no row of cells shows it is trained there as nothing, or as a column of
//! end-of-row tokens, and is an error here.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::prelude::*;
use opabinia_connector::layout::{token_count, visible_region};
use opabinia_connector::{ConnectorError, InLlmConfig, LayerType, PictureSize, Sva, SvaConfig};
use opabinia_nn::{FeatureGrid, Grid, Region, Trace};
use serde_json::Value;

fn golden(name: &str) -> Vec<Value> {
    let root = std::env::var_os("OPABINIA_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden"),
        PathBuf::from,
    );
    let path = root.join("recipe/batch").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn size(case: &Value) -> PictureSize {
    let side = |i: usize| u32::try_from(number(&case["image_size_wh"][i])).unwrap();
    PictureSize {
        width: side(0),
        height: side(1),
    }
}

/// `[value, count]` pairs, written out.
fn runs(value: &Value) -> Vec<bool> {
    let run = |pair: &Value| vec![pair[0] == 1; number(&pair[1])];
    value.as_array().unwrap().iter().flat_map(run).collect()
}

/// Bits as hexadecimal digits, the highest first.
fn bits(value: &Value, count: usize) -> Vec<bool> {
    let digits = value.as_str().unwrap().chars();
    let nibbles = digits.map(|digit| digit.to_digit(16).unwrap());
    nibbles
        .flat_map(|nibble| (0..4).rev().map(move |bit| nibble >> bit & 1 == 1))
        .take(count)
        .collect()
}

#[test]
fn the_same_cells_show_the_picture() {
    let mut elongated = 0;
    for case in golden("image_info.json") {
        let grid = Grid::from_token_count(number(&case["image_token_len"])).unwrap();
        let newline = case["newline"] == true;
        let what = format!("{} {grid} {newline}", case["image_size_wh"]);
        let PictureSize { width, height } = size(&case);
        let region = Region::of_picture(width, height, grid.rows);
        let shown = |(row, col)| {
            // The end of a row is shown with its row.
            region.contains(row, col) || (col == grid.cols && region.rows.contains(&row))
        };
        let cols = grid.cols + usize::from(newline);
        let cells = (0..grid.rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
        let found: Vec<bool> = cells.map(shown).collect();
        assert_eq!(found, runs(&case["mask_rle"]), "{what}");

        match visible_region(size(&case), grid) {
            Ok(region) => {
                let tokens = match newline {
                    true => token_count(region.grid()),
                    false => region.grid().len(),
                };
                assert_eq!(tokens, number(&case["mask_true"]), "{what}");
                // Positions skip what is hidden, so they count the tokens that are left.
                let last = case["position_max"].as_i64().unwrap();
                assert_eq!(i64::try_from(tokens).unwrap(), last + 1, "{what}");
            }
            Err(error) => {
                assert!(
                    matches!(error, ConnectorError::TooElongated { .. }),
                    "{what}"
                );
                elongated += 1;
            }
        }
    }
    // 1000 × 10 and 10 × 1000, on grids of 4, 12 and 24 cells a side, with row ends and without.
    assert_eq!(elongated, 12);
}

/// What the queries under the visible cells may look at, by encoder.
fn visible_features(size: PictureSize, cells: usize, sides: &[usize]) -> Vec<Vec<bool>> {
    let device = Device::flex();
    let grids: Vec<Grid> = sides.iter().map(|&side| Grid::square(side)).collect();
    let config = SvaConfig {
        encoder_widths: vec![1; grids.len()],
        encoder_grids: grids.clone(),
        width: 16,
        hidden: 2,
        query_grids: vec![Grid::square(cells)],
        token_grid: Grid::square(cells),
        depth: 1,
        layer_type: LayerType::Joint,
        in_llm: Some(InLlmConfig {
            count: 1,
            start: 0,
            stride: 1,
        }),
    };
    let features: Vec<FeatureGrid> = grids
        .iter()
        .map(|&grid| FeatureGrid::new(Tensor::zeros([1, grid.len(), 1], &device), grid))
        .collect();
    let mut trace = Trace::on();
    Sva::new(&config, &device)
        .forward(&features, &[size], &mut trace)
        .unwrap();
    let tensors = trace.into_tensors();
    let mask = |i: usize| {
        let mask = tensors[&format!("llm_mask{i}")].clone();
        let mask = mask.try_to_vec::<f32>().unwrap();
        mask.into_iter().map(|visible| visible == 1.0).collect()
    };
    (0..sides.len()).map(mask).collect()
}

#[test]
fn the_same_features_are_looked_at() {
    let cases = golden("sva_masks.json");
    let mut compared = 0;
    for case in &cases {
        let (cells, side) = (number(&case["base_side"]), number(&case["aux_side"]));
        let grid = Grid::square(cells);
        let what = format!("{} {cells} {side}", case["image_size_wh"]);
        let expected = &case["inference_unpadded_hw"];
        let expected = Grid {
            rows: number(&expected[0]),
            cols: number(&expected[1]),
        };
        let Ok(region) = visible_region(size(case), grid) else {
            assert!(expected.is_empty(), "{what}");
            continue;
        };
        assert_eq!(region.grid(), expected, "{what}");
        let tokens = number(&case["inference_token_count_with_newline"]);
        assert_eq!(token_count(region.grid()), tokens, "{what}");

        let found = visible_features(size(case), cells, &[side]).remove(0);
        let shape = &case["inference_mask_shape"];
        let count = number(&shape[0]) * number(&shape[1]);
        let when_answering = bits(&case["inference_mask_hex_bits_msb_first"], count);
        assert_eq!(found, when_answering, "{what}");

        // The reference's mask for training has a row for every cell; those of the visible ones
        // are the same.
        let window = (side / cells).pow(2);
        let mask = bits(&case["train_mask_hex_bits_msb_first"], grid.len() * window);
        let rows = region.rows.clone();
        let visible = rows.flat_map(|row| region.cols.clone().map(move |col| row * cells + col));
        let when_training: Vec<bool> = visible
            .flat_map(|cell| mask[cell * window..(cell + 1) * window].to_vec())
            .collect();
        assert_eq!(found, when_training, "{what}");
        compared += 1;
    }
    assert_eq!((cases.len(), compared), (60, 50));
}
