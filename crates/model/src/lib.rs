//! Vision encoders, connector and decoder as one model: configuration, packing, generation.
