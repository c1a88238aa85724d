//! The crate as a whole, over a fake of the library in both flavours, and over the real one where it is there.

mod building;
mod fake;
mod library;
mod lifetimes;
mod real;
mod running;
