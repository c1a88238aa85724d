//! The most rows a second that a GPU can do of a network, whatever the program: what its memory brings of embeddings, and
//! what its units multiply. docs/gpu.md has the formula.

use millrace::engine::{Network, cuda::Precision};
use serde::Serialize;

/// Rows a second that neither memory nor arithmetic allows more of.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Floor {
    /// Bytes of tables that a row touches.
    pub(crate) bytes_per_row: f64,
    /// Multiplications and additions of a row.
    pub(crate) operations_per_row: f64,
    pub(crate) memory_rows_per_s: f64,
    pub(crate) compute_rows_per_s: f64,
    pub(crate) rows_per_s: f64,
}

/// What a GPU does in a second by its data sheet.
struct Rates {
    bytes: f64,
    single: f64,
    half: f64,
}

impl Floor {
    /// Of `network` on the GPU of this description, where its rates are known.
    pub(crate) fn new(network: &Network, precision: Precision, device: &str) -> Option<Self> {
        let Rates { bytes, single, half } = rates(device)?;
        let (number, operations) = match precision {
            Precision::Single => (4, single),
            Precision::Half => (2, half),
        };
        let ids: usize = network.fields.iter().map(|field| field.columns).sum();
        let embeddings = ids * network.embeddings.dimension() * number;
        let bytes_per_row = (embeddings + network.id_columns * SECTOR_BYTES) as f64;
        let layers: usize = network.layers.iter().map(|layer| layer.inputs * layer.outputs).sum();
        let operations_per_row = (2 * (layers + network.last.len())) as f64;
        let (memory, compute) = (bytes / bytes_per_row, operations / operations_per_row);
        Some(Self {
            bytes_per_row,
            operations_per_row,
            memory_rows_per_s: memory,
            compute_rows_per_s: compute,
            rows_per_s: memory.min(compute),
        })
    }
}

/// Source: NVIDIA's data sheets of H200 SXM and H100 SXM: memory, single precision without tensor cores, and half precision
/// with them, of dense matrices.
fn rates(device: &str) -> Option<Rates> {
    let bytes = if device.contains("H200") {
        4.8e12
    } else if device.contains("H100") {
        3.35e12
    } else {
        return None;
    };
    Some(Rates { bytes, single: 67e12, half: 989e12 })
}

/// What a GPU reads at least: of a table of wide weights a weight's whole sector.
const SECTOR_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    #[test]
    fn the_floor_of_the_ranking_shape_is_that_of_its_products() {
        let network = Shape::Ranking.network(100);
        let floor =
            Floor::new(&network, Precision::Half, "NVIDIA H200, compute capability 9.0").expect("known");
        assert!((floor.bytes_per_row - 4160.0).abs() < 0.5, "{floor:?}");
        assert!((floor.operations_per_row - 4_745_728.0).abs() < 0.5, "{floor:?}");
        assert!((1.15e9..1.16e9).contains(&floor.memory_rows_per_s), "{floor:?}");
        assert!((2.07e8..2.09e8).contains(&floor.rows_per_s), "{floor:?}");
        assert!(Floor::new(&network, Precision::Half, "a fake").is_none());
    }
}
