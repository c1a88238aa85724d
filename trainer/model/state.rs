//! Everything that a model in training consists of, gone over in one order, so that what writes it down and what puts
//! it back cannot disagree.

use std::io;

/// Goes over the state of a model. What it is shown it may read or replace.
pub trait Visitor {
    /// Shows numbers; how many there are follows from the model's shape.
    fn numbers(&mut self, numbers: &mut [f32]) -> io::Result<()>;
    /// Shows a count.
    fn count(&mut self, count: &mut i32) -> io::Result<()>;
}
