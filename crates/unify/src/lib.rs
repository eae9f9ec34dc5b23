//! Nothing but dependencies.
//!
//! Cargo unifies the features of shared dependencies over the packages that one command selects.
//! `cargo test -p opabinia-nn` would therefore build other variants of `serde`, `regex`, … than
//! `cargo test --workspace`, and everything above them again, `burn-flex` (minutes) among it. Every
//! crate names this one as a dev-dependency, so each selection sees the same features. An external
//! dependency that the workspace gains is added here too.
