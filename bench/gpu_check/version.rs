//! Networks of versions, as the trainer leaves them.

use std::path::Path;

use millrace::{
    engine::{Network, OnnxEngine, OnnxRuntime},
    features::Encoder,
    repository::manifest::Manifest,
};

use crate::subject::Subject;

/// The version in `folder`, with ONNX Runtime beside it.
pub(crate) fn read(folder: &Path, onnxruntime: &Path) -> anyhow::Result<Subject> {
    let encoder = Encoder::read(&folder.join(Manifest::FEATURES))?;
    let (model, signature) = (folder.join(Manifest::MODEL), encoder.signature().clone());
    let network = Network::read(&model, &signature)?;
    let runtime = OnnxRuntime::load(onnxruntime)?;
    let onnx = OnnxEngine::open(&runtime, &model, &signature)?;
    let units: Vec<usize> = network.layers.iter().map(|layer| layer.outputs).collect();
    let (fields, dimension) = (network.fields.len(), network.embeddings.dimension());
    let (dense, rows) = (network.dense_columns, network.embeddings.rows());
    let shape = format!("{fields} x {dimension} + {dense}, {units:?}, {rows} rows of tables");
    let id_ranges = encoder.id_ranges().to_vec();
    Ok(Subject { shape, network, signature, id_ranges, onnx: Some(onnx) })
}
