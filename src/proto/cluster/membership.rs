//! The tree of nodes in a channel. `standing` is what a node knows of itself there, as plain data.

pub mod standing;
