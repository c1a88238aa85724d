//! The towers of a two-tower model as ONNX files of their own, beside the model: `user_tower.onnx` and
//! `item_tower.onnx`, which retrieval over a whole catalogue needs. The server computes with the model alone.
//!
//! A tower is the part of the model's graph that its outputs follow from, node by node: `user_vector`
//! `[batch, numbers]` and `user_bias` `[batch, 1]`, and the same of the item. It takes the same rows as the model, and
//! an input that it does not look at is none of its own. The logit is the product of both vectors with both biases
//! added to it. Tables beside the model stay the model's own; a tower's file refers to them.

use std::{collections::BTreeSet, fs, path::Path};

use millrace::repository::manifest::Manifest;
use onnx_rs::ast::{DataType, Graph, Model, ValueInfo};

use crate::{
    onnx,
    onnx_file::{FileError, OnnxFile},
};

/// The file of the tower of `side`, which is `user` or `item`.
pub fn file_name(side: &str) -> String {
    format!("{side}_tower.onnx")
}

/// Writes both towers of the model in `folder`, whose vectors have so many numbers, beside it.
pub fn write(folder: &Path, vector: usize) -> Result<(), FileError> {
    let file = OnnxFile::read(&folder.join(Manifest::MODEL))?;
    let model = file.model()?;
    for side in ["user", "item"] {
        let names = [format!("{side}_vector"), format!("{side}_bias")];
        let outputs = [(names[0].as_str(), vector), (names[1].as_str(), 1)];
        let outputs = outputs.map(|(name, width)| onnx::value(name, DataType::Float, width));
        let graph = model.graph.as_ref().map(|graph| part(graph, outputs.into()));
        let tower = Model { graph, doc_string: "One of two towers, trained for Millrace.", ..model.clone() };
        let path = folder.join(file_name(side));
        let written = fs::write(&path, onnx_rs::encode(&tower));
        written.map_err(|source| FileError::Write { path, source })?;
    }
    Ok(())
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
    Graph {
        name: "tower",
        doc_string: "A vector and a bias for each row of a batch.",
        node: nodes,
        initializer: graph
            .initializer
            .iter()
            .filter(|tensor| needed.contains(tensor.name()))
            .cloned()
            .collect(),
        input: graph.input.iter().filter(|input| needed.contains(input.name)).cloned().collect(),
        output: outputs,
        value_info: Vec::new(),
        ..graph.clone()
    }
}
