//! The log as tables: what it holds, with the columns of a training log, in Parquet files. A trainer reads them beside the
//! log that it learned from before; whoever wants to check the server's own figures can compute them from these files
//! alone.
//!
//! | file | holds |
//! |---|---|
//! | `row` | the row that an event is |
//! | `kind` | of what kind a column is, from all that is in it |
//! | `table` | rows as a Parquet file |
//! | `exporter` | a file for each segment of a log, while a server runs |

mod exporter;
mod kind;
mod row;
mod table;

pub use self::{
    exporter::{ExportOptions, Exporter},
    row::Columns,
    table::{ExportError, MAX_COLUMNS, write},
};
