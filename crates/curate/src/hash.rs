//! Numbers that look random but are a function of what they are made of.

/// The step of splitmix64: 2⁶⁴ over the golden ratio, made odd (Steele et al. 2014).
pub const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of splitmix64 (Steele et al. 2014): every bit of the result depends on every bit of `z`.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
