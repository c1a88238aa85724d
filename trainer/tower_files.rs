//! The sides of a model that knows users and items apart, as ONNX files of their own beside the model, for the server to
//! search a whole catalogue with: `user_tower.onnx` and `item_tower.onnx`, and `pairs.onnx`, which goes on from both.
//!
//! A tower is the part of a graph that its outputs follow from, node by node: `user_vector` `[batch, numbers]` and
//! `user_bias` `[batch, 1]`, and the same of the item. It takes the same rows as the model, and an input that it does not look
//! at is none of its own. `pairs.onnx` makes the logits of one user with any number of items from these. Tables beside the
//! model stay the model's own; these files refer to them.

use std::{collections::BTreeSet, fs, path::Path};

use millrace::{
    engine::{PairEngine, Side},
    repository::manifest::Manifest,
};
use onnx_rs::ast::{DataType, Graph, Model, TensorProto, ValueInfo};

use crate::{
    onnx,
    onnx_file::{FileError, OnnxFile},
};

/// What the files are made of.
pub(crate) struct Sides<'a> {
    /// A graph in which the towers are apart.
    pub(crate) whole: &'a Model<'a>,
    /// The graph that goes on from them.
    pub(crate) pairs: &'a Model<'a>,
    /// Numbers in a vector.
    pub(crate) width: usize,
}

/// Writes both towers and what goes on from them beside the model in `folder`. Where one of their tensors is the model's too,
/// by its name and shape, it is taken from there.
pub(crate) fn write(folder: &Path, sides: &Sides<'_>) -> Result<(), FileError> {
    let file = OnnxFile::read(&folder.join(Manifest::MODEL))?;
    let model = file.model()?;
    let tables = model.graph.as_ref().map_or(&[][..], |graph| &graph.initializer);
    for side in [Side::User, Side::Item] {
        let [vector, bias] = side.outputs();
        let outputs = [(vector, sides.width), (bias, 1)];
        let outputs = outputs.map(|(name, width)| onnx::value(name, DataType::Float, width));
        let graph = sides.whole.graph.as_ref().map(|graph| part(graph, outputs.into()));
        let doc_string = "One side of a model, trained for Millrace.";
        save(&folder.join(side.file()), Model { graph, doc_string, ..sides.whole.clone() }, tables)?;
    }
    save(&folder.join(PairEngine::FILE), sides.pairs.clone(), tables)
}

fn save(path: &Path, model: Model<'_>, tables: &[TensorProto<'_>]) -> Result<(), FileError> {
    let graph = model.graph.as_ref().map(|graph| {
        let tensors = graph.initializer.iter();
        let initializer = tensors.map(|tensor| of_model(tensor, tables).unwrap_or(tensor).clone()).collect();
        Graph { initializer, ..graph.clone() }
    });
    let written = fs::write(path, onnx_rs::encode(&Model { graph, ..model }));
    written.map_err(|source| FileError::Write { path: path.to_path_buf(), source })
}

/// The same tensor as the model has it, whose numbers may lie beside the model.
fn of_model<'t, 'a>(tensor: &TensorProto<'_>, tables: &'t [TensorProto<'a>]) -> Option<&'t TensorProto<'a>> {
    tables.iter().find(|table| table.name() == tensor.name() && table.dims() == tensor.dims())
}

/// The part of `graph` that `outputs` follow from.
fn part<'a>(graph: &Graph<'a>, outputs: Vec<ValueInfo<'a>>) -> Graph<'a> {
    let mut needed: BTreeSet<&str> = outputs.iter().map(|output| output.name).collect();
    // Nodes are in the order in which they can be run, so that whoever needs a value is met before who makes it.
    let mut nodes = Vec::new();
    for node in graph.node.iter().rev() {
        if node.output.iter().any(|name| needed.contains(name)) {
            needed.extend(&node.input);
            nodes.push(node.clone());
        }
    }
    nodes.reverse();
    let is_needed = |tensor: &&TensorProto<'_>| needed.contains(tensor.name());
    Graph {
        name: "tower",
        doc_string: "A vector and a bias for each row of a batch.",
        node: nodes,
        initializer: graph.initializer.iter().filter(is_needed).cloned().collect(),
        input: graph.input.iter().filter(|input| needed.contains(input.name)).cloned().collect(),
        output: outputs,
        value_info: Vec::new(),
        ..graph.clone()
    }
}
