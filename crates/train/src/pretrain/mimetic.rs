//! Mimetic first weights of attention (Trockman and Kolter 2023, arXiv 2305.09828).
//!
//! In trained transformers the product of a head's query and key weights resembles the identity,
//! and so does, on the scale of a layer, that of value and output weights. Starting there saves a
//! small decoder the long time in which all tokens look at everything alike. Per head, `keys` are
//! orthonormal directions and `queries = keys`; `values` are orthonormal directions and `output =
//! ½ · valuesᵀ`, shared among the query heads of a value head; all with a little noise.

use opabinia_data::stream::stream;
use opabinia_llm::DecoderConfig;
use rand_chacha::ChaCha8Rng;

use super::start::cut_normal;

/// How much of what it sees a layer takes over.
const COPIED: f64 = 0.5;
/// Standard deviation of what is added to all, over that of ordinary first weights.
const NOISE: f64 = 0.25;

/// The first values of the attention of a decoder.
pub(super) struct Mimetic {
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    seed: u64,
}

impl Mimetic {
    pub(super) fn new(config: &DecoderConfig, seed: u64) -> Self {
        Self {
            hidden: config.hidden,
            heads: config.heads,
            kv_heads: config.kv_heads.max(1),
            head_width: config.head_dim,
            seed,
        }
    }

    /// Row-major values of a parameter; none if it belongs to no attention.
    pub(super) fn values(&self, path: &str) -> Option<Vec<f32>> {
        let (layer, name) = path.strip_suffix(".weight")?.rsplit_once('.')?;
        let group = (self.heads / self.kv_heads).max(1);
        let rows = |kind: &str, heads: usize, shared: usize| -> Vec<f64> {
            (0..heads)
                .flat_map(|head| self.directions(layer, kind, head / shared))
                .collect()
        };
        let mut values = match name {
            "q_proj" => rows("keys", self.heads, group),
            "k_proj" => rows("keys", self.kv_heads, 1),
            "v_proj" => rows("values", self.kv_heads, 1),
            "o_proj" => self.transposed(&rows("values", self.heads, group), COPIED / group as f64),
            _ => return None,
        };
        let mut random = stream(self.seed, path, 0);
        let noise = NOISE / (self.hidden as f64).sqrt();
        for value in &mut values {
            *value += noise * cut_normal(&mut random);
        }
        Some(values.into_iter().map(|value| value as f32).collect())
    }

    /// Orthonormal rows of `hidden` numbers, as many as a head is wide.
    fn directions(&self, layer: &str, kind: &str, head: usize) -> Vec<f64> {
        let mut random = stream(self.seed, &format!("{layer}.{kind}"), head as u64);
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(self.head_width);
        for _ in 0..self.head_width {
            rows.push(orthonormal(&rows, self.hidden, &mut random));
        }
        rows.concat()
    }

    /// `[rows, hidden]` as `[hidden, rows]`, times a number.
    fn transposed(&self, rows: &[f64], times: f64) -> Vec<f64> {
        let count = rows.len() / self.hidden.max(1);
        (0..self.hidden)
            .flat_map(|column| (0..count).map(move |row| times * rows[row * self.hidden + column]))
            .collect()
    }
}

/// A random direction at right angles to others (Gram and Schmidt); with as many others as there
/// are dimensions, just a random one.
fn orthonormal(others: &[Vec<f64>], width: usize, random: &mut ChaCha8Rng) -> Vec<f64> {
    let mut row: Vec<f64> = (0..width).map(|_| cut_normal(random)).collect();
    if others.len() < width {
        for other in others {
            let along: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
            for (value, part) in row.iter_mut().zip(other) {
                *value -= along * part;
            }
        }
    }
    let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
    row.iter().map(|value| value / length.max(1e-12)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two query heads share one key head.
    fn mimetic() -> Mimetic {
        Mimetic {
            hidden: 16,
            heads: 4,
            kv_heads: 2,
            head_width: 4,
            seed: 1,
        }
    }

    /// `a · bᵀ` of two matrices with rows of 16 numbers.
    fn products(a: &[f32], b: &[f32]) -> Vec<f32> {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
        let rows = |of: &[f32]| of.chunks(16).map(<[f32]>::to_vec).collect::<Vec<_>>();
        let (a, b) = (rows(a), rows(b));
        a.iter()
            .flat_map(|x| b.iter().map(|y| dot(x, y)).collect::<Vec<_>>())
            .collect()
    }

    /// Mean of the diagonal and of what is beside it, of square blocks of 4.
    fn diagonal(block: &[f32]) -> (f32, f32) {
        let (on, off): (Vec<_>, Vec<_>) = block
            .iter()
            .enumerate()
            .partition(|(place, _)| place % 5 == 0);
        let mean =
            |of: &[(usize, &f32)]| of.iter().map(|(_, v)| **v).sum::<f32>() / of.len() as f32;
        (mean(&on), mean(&off))
    }

    #[test]
    fn the_queries_of_a_head_resemble_its_keys() {
        let of = |name: &str| mimetic().values(&format!("layers.0.attention.{name}.weight"));
        let (queries, keys) = (of("q_proj").unwrap(), of("k_proj").unwrap());
        assert_eq!((queries.len(), keys.len()), (16 * 16, 8 * 16));
        for head in 0..4 {
            let own = head / 2;
            let block = products(
                &queries[head * 64..(head + 1) * 64],
                &keys[own * 64..(own + 1) * 64],
            );
            let (on, off) = diagonal(&block);
            assert!((on - 1.0).abs() < 0.2 && off.abs() < 0.2, "{on} {off}");
        }
    }

    #[test]
    fn the_output_gives_back_half_of_the_values() {
        let of = |name: &str| mimetic().values(&format!("layers.0.attention.{name}.weight"));
        let (values, output) = (of("v_proj").unwrap(), of("o_proj").unwrap());
        assert_eq!((values.len(), output.len()), (8 * 16, 16 * 16));
        // Columns of the first two heads, which share their values.
        let column = |of: usize| {
            (0..16)
                .map(|row| output[row * 16 + of])
                .collect::<Vec<f32>>()
        };
        let both: Vec<f32> = (0..4)
            .flat_map(|i| {
                let (first, second) = (column(i), column(4 + i));
                first
                    .iter()
                    .zip(second)
                    .map(|(a, b)| a + b)
                    .collect::<Vec<_>>()
            })
            .collect();
        let (on, off) = diagonal(&products(&both, &values[..64]));
        assert!(
            (on - COPIED as f32).abs() < 0.2 && off.abs() < 0.2,
            "{on} {off}"
        );
    }

    #[test]
    fn layers_differ_and_other_weights_are_left_alone() {
        let keys = |layer| mimetic().values(&format!("layers.{layer}.attention.k_proj.weight"));
        assert_ne!(keys(0), keys(1));
        assert_eq!(mimetic().values("layers.0.mlp.up_proj.weight"), None);
        assert_eq!(mimetic().values("norm.weight"), None);
    }
}
