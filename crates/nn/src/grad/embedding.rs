//! Rows of a table, and gradients added back to them.

use burn::prelude::*;

use super::{Pullback, input, record};
use crate::cpu::elementwise::add_slice;
use crate::cpu::values::{Plain, contiguous, from_values, plain, tensor, values};

/// The rows `ids` of `table`.
///
/// # Shapes
/// - `table`: `[vocab, d]`, `ids`: `[n]`, each below `vocab`
/// - output: `[n, d]`
pub(crate) fn lookup(table: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    let ids = ids.without_autodiff();
    record([input(table)], |[table], _| {
        let shape = table.layout().shape().clone();
        let rows = tensor::<2>(table).select(0, ids.clone());
        let ids = ids
            .into_data()
            .iter::<i64>()
            .map(|id| id as usize)
            .collect();
        let sizes = [shape[0], shape[1]];
        (plain(rows), Lookup { ids, sizes })
    })
}

#[derive(Clone, Debug)]
struct Lookup {
    ids: Vec<usize>,
    /// `[vocab, d]`.
    sizes: [usize; 2],
}

impl Pullback<1> for Lookup {
    fn pull(self, gradient: Plain, _: [bool; 1]) -> [Option<Plain>; 1] {
        let [vocab, d] = self.sizes;
        let gradient = contiguous(gradient);
        let mut table = vec![0f32; vocab * d];
        for (id, row) in self
            .ids
            .iter()
            .zip(values(&gradient).chunks_exact(d.max(1)))
        {
            add_slice(&mut table[id * d..(id + 1) * d], row);
        }
        [Some(from_values(table, self.sizes))]
    }
}
