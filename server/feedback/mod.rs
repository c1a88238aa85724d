//! How good the answers were. An answer carries a [`Receipt`] where it is asked for one: which version scored what, and when,
//! under a key that every replica has. Whoever comes back with it and a label needs no server to have remembered anything.
//! [`window`] counts how right scores were, by the time of their answers.

mod keys;
mod receipt;
pub mod window;

pub use self::{
    keys::{Keys, KeysError},
    receipt::{IssueError, Issuer, MAX_ROWS, Receipt, ReceiptError},
};
