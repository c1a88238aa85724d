//! The tables and weights of one version in a GPU's memory: uploaded once, shared by its slots, only read from then on.

use std::{io, sync::Arc};

use half::{f16, slice::HalfFloatSliceExt};

use super::{
    device::{Address, Device, DeviceError, Precision},
    memory::Memory,
    plan::{LayerPlan, Part, Plan},
};
use crate::{
    engine::{
        EngineError, Network,
        network::{Layer, Pooling, Table},
    },
    tensor::{Rows, Values},
};

/// Why a network did not get into a GPU's memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// A table cannot be read.
    #[error("a table cannot be read")]
    Read(#[from] io::Error),
    /// A number that half precision cannot hold.
    #[error("the model holds {0}, and half precision ends at {max}", max = f16::MAX)]
    Range(f32),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A version's tables and weights.
pub(super) struct Resident {
    pub(super) device: Arc<dyn Device>,
    pub(super) plan: Plan,
    /// Rows of the two tables.
    pub(super) rows: TableRows,
    memory: Memory,
}

/// What ids are held against.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableRows {
    pub(super) embeddings: u32,
    pub(super) wide: u32,
}

impl Resident {
    /// Uploads `network` as `plan` lays it out.
    pub(super) fn load(device: Arc<dyn Device>, network: &Network, plan: Plan) -> Result<Self, UploadError> {
        let mut memory = Memory::new(&device, plan.version.bytes)?;
        let mut upload = Upload { memory: &mut memory, precision: plan.precision };
        upload.table(&network.embeddings, plan.version.embeddings, plan.precision)?;
        // The wide part is a sum of single precision whatever the layers are in.
        upload.table(&network.wide, plan.version.wide, Precision::Single)?;
        upload.fields(network, plan.version.fields)?;
        for (layer, place) in network.layers.iter().zip(&plan.layers) {
            upload.layer(layer, place)?;
        }
        let mut last = vec![0.0; plan.last_input.pitch];
        for (index, &weight) in network.last.iter().enumerate() {
            last[plan.last_input.place(index)] = weight;
        }
        upload.numbers(&last, plan.version.last)?;
        let rows =
            plan.buckets.iter().map(|bucket| u32::try_from(bucket.rows).expect("the plan has counted them"));
        let rows: Vec<u8> = rows.flat_map(u32::to_le_bytes).collect();
        memory.upload(plan.version.bucket_rows.offset, &rows)?;
        let rows = |table: &Table| u32::try_from(table.rows()).expect("ids name its rows");
        let rows = TableRows { embeddings: rows(&network.embeddings), wide: rows(&network.wide) };
        Ok(Self { device, plan, rows, memory })
    }

    /// The ids and the dense values of rows, which must be of the version's signature.
    pub(super) fn numbers<'r>(&self, rows: &'r Rows) -> Result<(&'r [i32], &'r [f32]), EngineError> {
        let (ids, dense) = match rows.columns() {
            [ids] => (ids.values(), None),
            [ids, dense] => (ids.values(), Some(dense.values())),
            _ => return Err(EngineError::other_rows()),
        };
        let (ids, dense): (&[i32], &[f32]) = match (ids, dense) {
            (Values::I32(ids), None) => (ids, &[]),
            (Values::I32(ids), Some(Values::F32(dense))) => (ids, dense),
            _ => return Err(EngineError::other_rows()),
        };
        let fits = ids.len() == rows.len() * self.plan.id_columns
            && dense.len() == rows.len() * self.plan.dense_columns;
        if fits { Ok((ids, dense)) } else { Err(EngineError::other_rows()) }
    }

    /// The address of a part.
    pub(super) fn at(&self, part: Part) -> Address {
        self.memory.at(part.offset)
    }
}

struct Upload<'m> {
    memory: &'m mut Memory,
    precision: Precision,
}

impl Upload<'_> {
    /// A table, in pieces, each row filled up with zeros to whole chunks where it is one of embeddings.
    fn table(&mut self, table: &Table, to: Part, precision: Precision) -> Result<(), UploadError> {
        let row_bytes = to.bytes / table.rows();
        let piece = (PIECE_BYTES / row_bytes).max(1);
        let (mut numbers, mut bytes) = (Vec::new(), Vec::new());
        for first in (0..table.rows()).step_by(piece) {
            let rows = piece.min(table.rows() - first);
            table.read(first, rows, &mut numbers)?;
            bytes.clear();
            // Rows that need no filling up lie one after the other as they are.
            let is_whole = row_bytes == table.dimension() * precision.bytes();
            for part in numbers.chunks(if is_whole { numbers.len() } else { table.dimension() }) {
                encode(part, precision, &mut bytes)?;
                bytes.resize(bytes.len().next_multiple_of(row_bytes), 0);
            }
            self.memory.upload(to.offset + first * row_bytes, &bytes)?;
        }
        Ok(())
    }

    fn fields(&mut self, network: &Network, to: Part) -> Result<(), UploadError> {
        let number = |number: usize| i32::try_from(number).expect("as few as columns");
        let words = network.fields.iter().flat_map(|field| {
            let (padding, mean) = match field.pooling {
                Pooling::Sum => (0, 0),
                Pooling::Mean { padding } => (padding, 1),
            };
            let (first_column, columns) = (number(field.first_column), number(field.columns));
            let kernels::Field { first_column, columns, padding, mean } =
                kernels::Field { first_column, columns, padding, mean };
            [first_column, columns, padding, mean]
        });
        let bytes: Vec<u8> = words.flat_map(i32::to_le_bytes).collect();
        Ok(self.memory.upload(to.offset, &bytes)?)
    }

    /// The weights of each output side by side, as products of matrices like them best, and each where its input lies.
    fn layer(&mut self, layer: &Layer, to: &LayerPlan) -> Result<(), UploadError> {
        let mut weights = vec![0.0; to.inputs.pitch * to.outputs.pitch];
        for (input, row) in layer.weights.chunks_exact(layer.outputs).enumerate() {
            for (output, &weight) in row.iter().enumerate() {
                weights[to.outputs.place(output) * to.inputs.pitch + to.inputs.place(input)] = weight;
            }
        }
        self.numbers(&weights, to.weights)?;
        let mut bias = vec![0.0; to.outputs.pitch];
        for (output, &number) in layer.bias.iter().enumerate() {
            bias[to.outputs.place(output)] = number;
        }
        self.numbers(&bias, to.bias)
    }

    fn numbers(&mut self, numbers: &[f32], to: Part) -> Result<(), UploadError> {
        let mut bytes = Vec::with_capacity(to.bytes);
        encode(numbers, self.precision, &mut bytes)?;
        Ok(self.memory.upload(to.offset, &bytes)?)
    }
}

/// Appends `numbers` as the device reads them.
fn encode(numbers: &[f32], precision: Precision, to: &mut Vec<u8>) -> Result<(), UploadError> {
    match precision {
        // A GPU's order is that of the machine, which is little-endian, as what reads the model's file has seen to.
        Precision::Single => to.extend_from_slice(bytemuck::cast_slice(numbers)),
        Precision::Half => {
            let mut halves = vec![f16::ZERO; numbers.len()];
            halves.convert_from_f32_slice(numbers);
            let both = || halves.iter().zip(numbers);
            if let Some((_, &number)) = both().find(|(half, number)| half.is_infinite() && number.is_finite())
            {
                return Err(UploadError::Range(number));
            }
            to.extend_from_slice(bytemuck::cast_slice(halves.reinterpret_cast()));
        }
    }
    Ok(())
}

/// What of a table is in memory at a time.
const PIECE_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_half_precision_cannot_hold_are_refused() {
        let mut bytes = Vec::new();
        encode(&[1.0, -65504.0], Precision::Half, &mut bytes).expect("within its range");
        assert_eq!(bytes, [0x00, 0x3c, 0xff, 0xfb]);
        let error = encode(&[70000.0], Precision::Half, &mut bytes).expect_err("beyond it");
        assert_eq!(error.to_string(), "the model holds 70000, and half precision ends at 65504");
    }
}
