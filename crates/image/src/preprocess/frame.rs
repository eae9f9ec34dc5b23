//! Where a step's result comes from: what is kept of a picture, what surrounds it, and whether there is
//! room for it.

use std::borrow::Cow;
use std::iter::Peekable;

use super::{CropRounding, MAX_SIDE, MAX_STEP_PIXELS, Step};
use crate::canvas::{Canvas, Region};
use crate::error::PrepareError;
use crate::resample::{Filter, resize_region};

/// What is kept of a picture along one direction, and how much border precedes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    length: u32,
    pub(super) border_before: u32,
}

impl Span {
    pub(super) fn centred(length: u32, side: u32, rounding: CropRounding) -> Self {
        if length >= side {
            let surplus = length - side;
            let start = match rounding {
                CropRounding::Down => surplus / 2,
                // 1 → 0, 3 → 2, 5 → 2, 7 → 4: half of an odd number to the even neighbour.
                CropRounding::Even => surplus / 2 + u32::from(surplus % 4 == 3),
            };
            return Self {
                start,
                length: side,
                border_before: 0,
            };
        }
        let border = side - length;
        let border_before = match rounding {
            CropRounding::Down => border.div_ceil(2),
            CropRounding::Even => border / 2,
        };
        Self {
            start: 0,
            length,
            border_before,
        }
    }
}

/// The part of a picture that is kept, and the size of what it is put into.
pub(super) struct Frame {
    region: Region,
    size: (u32, u32),
    border: (u32, u32),
}

impl Frame {
    pub(super) fn whole((width, height): (u32, u32)) -> Self {
        let region = Region::whole(width, height);
        Self {
            region,
            size: (width, height),
            border: (0, 0),
        }
    }

    pub(super) fn centred((width, height): (u32, u32), side: u32, rounding: CropRounding) -> Self {
        let x = Span::centred(width, side, rounding);
        let y = Span::centred(height, side, rounding);
        let region = Region {
            x: x.start,
            y: y.start,
            width: x.length,
            height: y.length,
        };
        Self {
            region,
            size: (side, side),
            border: (x.border_before, y.border_before),
        }
    }
}

/// The crop that follows a resize, so that nothing is computed only to be cut off.
pub(super) fn next_frame(
    steps: &mut Peekable<impl Iterator<Item = (usize, Step)>>,
    target: (u32, u32),
) -> Frame {
    match steps.next_if(|(_, step)| matches!(step, Step::CenterCrop { .. })) {
        Some((_, Step::CenterCrop { side, rounding })) => Frame::centred(target, side, rounding),
        _ => Frame::whole(target),
    }
}

/// Resizes, or does not, and keeps what is in the frame.
pub(super) fn reframe<'a>(
    canvas: Canvas<'a>,
    index: usize,
    resize: Option<((u32, u32), Filter)>,
    frame: Frame,
) -> Result<Canvas<'a>, PrepareError> {
    let (target, filter) = resize.unwrap_or((canvas.size(), Filter::Nearest));
    if target == canvas.size() && frame.size == target {
        return Ok(canvas);
    }
    let Region { width, height, .. } = frame.region;
    check_room(canvas.size(), (width, height), index)?;
    // Rows are narrowed before columns are.
    check_room(canvas.size(), (width, canvas.height()), index)?;
    let picture = resize_region(&canvas, target, frame.region, filter);
    Ok(Canvas::around(
        Cow::Owned(picture),
        frame.size,
        frame.border,
        [0; 3],
    ))
}

pub(super) fn pad_square<'a>(
    canvas: Canvas<'a>,
    colour: [u8; 3],
    index: usize,
) -> Result<Canvas<'a>, PrepareError> {
    let (width, height) = canvas.size();
    if width == height {
        return Ok(canvas);
    }
    check_room((width, height), (width, height), index)?;
    let side = width.max(height);
    let border = ((side - width) / 2, (side - height) / 2);
    Ok(Canvas::around(
        canvas.into_picture(),
        (side, side),
        border,
        colour,
    ))
}

/// Sides beyond 32 bits are too large in any case.
pub(super) fn representable(
    (width, height): (u64, u64),
    from: (u32, u32),
    step: usize,
) -> Result<(u32, u32), PrepareError> {
    match (u32::try_from(width), u32::try_from(height)) {
        (Ok(width), Ok(height)) => Ok((width, height)),
        _ => Err(too_large(from, (width, height), step)),
    }
}

pub(super) fn check_room(
    from: (u32, u32),
    to: (u32, u32),
    step: usize,
) -> Result<(), PrepareError> {
    let to = (u64::from(to.0), u64::from(to.1));
    if to.0 * to.1 > MAX_STEP_PIXELS {
        return Err(too_large(from, to, step));
    }
    Ok(())
}

pub(super) fn too_large(from: (u32, u32), to: (u64, u64), step: usize) -> PrepareError {
    PrepareError::TooLarge {
        step,
        from_width: from.0,
        from_height: from.1,
        to_width: to.0,
        to_height: to.1,
        limit: MAX_STEP_PIXELS,
    }
}

pub(super) fn check_side(field: impl FnOnce() -> String, side: u32) -> Result<(), PrepareError> {
    if (1..=MAX_SIDE).contains(&side) {
        return Ok(());
    }
    let (field, found) = (field(), side.to_string());
    Err(PrepareError::InvalidConfig {
        field,
        found,
        expected: "a number of pixels, 1 to 65535",
    })
}
