//! How good the answers were. An answer carries a [`Receipt`] where it is asked for one: which version scored what, and when,
//! under a key that every replica has. Whoever comes back with it and a label needs no server to have remembered anything.
//! [`Intake`] takes what they tell, which is in the [`log`] before anybody is thanked, and from there [`export`] makes tables
//! for the trainer. [`Live`] counts how right scores were, in
//! [`window`]s of the times of their answers, and an [`Alarm`] has an [`Alert`] for each model that fires where they are not right
//! often enough.

mod alarm;
mod alert;
mod event;
pub mod export;
mod intake;
mod keys;
mod live;
pub mod log;
mod receipt;
mod seen;
mod webhook;
pub mod window;

pub use self::{
    alarm::Alarm,
    alert::{Alert, AlertMeasure, AlertOptions, Change, Reading},
    event::{Event, Label, Record, Scalar, Told},
    intake::{FeedbackError, Intake, IntakeOptions, Taken},
    keys::{Keys, KeysError},
    live::{Live, LiveVersion},
    receipt::{IssueError, Issuer, MAX_ROWS, Receipt, ReceiptError},
    webhook::{Webhook, WebhookThread},
};
