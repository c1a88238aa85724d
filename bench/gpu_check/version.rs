//! Networks of versions, as the trainer leaves them.

use std::path::Path;

use millrace::{
    engine::{Network, OnnxEngine, OnnxRuntime},
    features::Encoder,
    repository::manifest::Manifest,
    tensor::Signature,
};

use crate::subject::Subject;

/// The version in `folder`, without ONNX Runtime.
pub(crate) fn read(folder: &Path) -> anyhow::Result<Subject> {
    let encoder = Encoder::read(&folder.join(Manifest::FEATURES))?;
    let (model, signature) = (folder.join(Manifest::MODEL), encoder.signature().clone());
    let network = Network::read(&model, &signature)?;
    let units: Vec<usize> = network.layers.iter().map(|layer| layer.outputs).collect();
    let (fields, dimension) = (network.fields.len(), network.embeddings.dimension());
    let (dense, rows) = (network.dense_columns, network.embeddings.rows());
    let shape = format!("{fields} x {dimension} + {dense}, {units:?}, {rows} rows of tables");
    let id_ranges = encoder.id_ranges().to_vec();
    Ok(Subject { shape, network, signature, id_ranges, onnx: None })
}

/// ONNX Runtime for the version in `folder`.
pub(crate) fn onnx(folder: &Path, onnxruntime: &Path, signature: &Signature) -> anyhow::Result<OnnxEngine> {
    let runtime = OnnxRuntime::load(onnxruntime)?;
    Ok(OnnxEngine::open(&runtime, &folder.join(Manifest::MODEL), signature)?)
}
