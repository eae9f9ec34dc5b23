//! Vision encoders and their registry: pixels to one feature grid per encoder.
