//! Operations on rows of activations other than matrix products.

pub mod activations;
pub mod attention;
pub mod delta;
pub mod experts;
pub mod gates;
pub mod gram;
pub mod rows;
