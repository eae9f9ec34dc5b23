//! The most that this machine can do of what a product is made of.
//!
//! Its amounts are those of a product in the format, so that speeds can be compared: operations on values
//! in registers, and for products of one row two operations for each weight that is read.

use opabinia_kernels::{Activations, Format, Path, limits};

use crate::{Fallible, WeightFormat, Workload};

/// Bytes that are read, more than caches hold.
const READ: usize = 1 << 30;

/// Operations of a pass; only their speed matters.
const AMOUNT: f64 = 1e9;

pub(crate) fn workload(name: &str, dtype: WeightFormat, smoke: bool) -> Fallible<Workload> {
    let format = match dtype {
        WeightFormat::F32 => Format::F32,
        WeightFormat::Bf16 => Format::Bf16,
        WeightFormat::Int8 => Format::Int8,
        WeightFormat::Int4 => Format::Int4,
    };
    // Operations in a second.
    let rate: Box<dyn Fn() -> Option<f64>> = match name {
        "arithmetic" => {
            Box::new(move || limits::arithmetic(Path::best(), format, Activations::Rounded))
        }
        "reading" => {
            // 16 columns of 4096, as they are packed.
            let shape = [16, 4096];
            let bytes = format.bytes(shape).ok_or("a panel has a size")?;
            let each = 2.0 * (shape[0] * shape[1]) as f64 / bytes as f64;
            let read = READ >> if smoke { 6 } else { 0 };
            Box::new(move || Some(limits::reading(read) * each))
        }
        _ => return Err(format!("there is no limit `{name}`").into()),
    };
    Ok(Workload {
        parameters: 0,
        amount: AMOUNT,
        losses: Vec::new(),
        pass: Box::new(move || {
            let rate = rate().ok_or("this processor has no instructions whose speed is known")?;
            Ok(AMOUNT / rate)
        }),
    })
}
