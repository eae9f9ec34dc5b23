//! Connectors from feature grids to visual tokens: the Spatial Vision Aggregator and the baselines.
