//! Bytes on the wire to rows of a batch, and scores back to bytes. Decoders and encoders of one format stand side by
//! side; no format knows which dialect of HTTP carries it.

pub mod alertmanager;
pub mod binary;
pub mod feedback;
pub mod json;
mod positional;
pub mod raw;
pub mod recommend;
