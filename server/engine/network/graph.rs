//! The walk from a graph's output to its inputs, which makes a [`Network`] of exactly what the trainer writes:
//!
//! ```text
//! ids -> Gather(wide) -> ReduceSum ------------------------------------------\
//! ids -> [Slice | Gather columns] -> Gather(embeddings) -> Reshape ---\       \
//! ids -> Slice -> Gather(embeddings) -> ReduceSum [-> Div by count] ---> Concat -> layers -> Gemm -> Sigmoid
//! dense --------------------------------------------------------------/
//! layer: Gemm -> Relu, or Gemm -> Mul by the first layer's input -> Add the layer's input
//! ```

use std::{collections::HashMap, fs, path::Path};

use onnx_rs::ast::{
    Attribute, AttributeType, DataType, Dimension, Graph, Model, Node, OpType, TensorShapeDimension,
    TypeValue, ValueInfo,
};

use super::{
    Field, Layer, LayerKind, Network, NetworkError, Pooling, Table,
    file::{Tensors, wrong},
};
use crate::tensor::{DType, Signature, TensorSpec};

impl Network {
    /// Reads the model file at `path`, which must have the inputs and the output of `signature`.
    pub fn read(path: &Path, signature: &Signature) -> Result<Self, NetworkError> {
        let bytes =
            fs::read(path).map_err(|source| NetworkError::Read { path: path.to_path_buf(), source })?;
        let model = onnx_rs::parse(&bytes)
            .map_err(|source| NetworkError::Syntax { path: path.to_path_buf(), source })?;
        let graph = check_version(&model)?;
        check_inputs(graph, signature)?;
        Walk::new(graph, path, Edges::of(signature)?)?.network(&signature.output)
    }
}

fn check_version<'m>(model: &'m Model<'m>) -> Result<&'m Graph<'m>, NetworkError> {
    match model.opset_import.as_slice() {
        [opset] if opset.domain.is_empty() && opset.version == OPSET => {}
        _ => return Err(graph_error(format!("its operators are not those of opset {OPSET}"))),
    }
    model.graph.as_ref().ok_or_else(|| graph_error("there is none"))
}

/// The graph's own word on its inputs is that of `signature`.
fn check_inputs(graph: &Graph<'_>, signature: &Signature) -> Result<(), NetworkError> {
    let is_declared = |(input, declared): (&ValueInfo<'_>, &TensorSpec)| {
        let kind = match declared.dtype {
            DType::F32 => DataType::Float,
            DType::I32 => DataType::Int32,
        };
        input.name == declared.name && row_of(input) == Some((kind, declared.width))
    };
    let (inputs, declared) = (&graph.input, &signature.inputs);
    if inputs.len() == declared.len() && inputs.iter().zip(declared).all(is_declared) {
        return Ok(());
    }
    Err(graph_error("its inputs are not those that are declared"))
}

/// The type and the number of a row's elements, of a tensor `[rows, elements]`.
fn row_of(value: &ValueInfo<'_>) -> Option<(DataType, usize)> {
    let Some(TypeValue::Tensor(tensor)) = &value.r#type.as_ref()?.value else { return None };
    let [_, TensorShapeDimension { value: Dimension::Value(width), .. }] =
        tensor.shape.as_ref()?.dim.as_slice()
    else {
        return None;
    };
    Some((tensor.elem_type, usize::try_from(*width).ok()?))
}

/// The graph's inputs.
#[derive(Clone, Copy)]
struct Edges<'m> {
    ids: &'m TensorSpec,
    dense: Option<&'m TensorSpec>,
}

impl<'m> Edges<'m> {
    fn of(signature: &'m Signature) -> Result<Self, NetworkError> {
        match signature.inputs.as_slice() {
            [ids] if ids.dtype == DType::I32 => Ok(Self { ids, dense: None }),
            [ids, dense] if ids.dtype == DType::I32 && dense.dtype == DType::F32 => {
                Ok(Self { ids, dense: Some(dense) })
            }
            _ => Err(graph_error("its inputs are not ids and dense values")),
        }
    }
}

/// What is known of a graph.
struct Walk<'m> {
    graph: &'m Graph<'m>,
    nodes: HashMap<&'m str, &'m Node<'m>>,
    tensors: Tensors<'m>,
    edges: Edges<'m>,
}

/// A layer, as its last node tells.
struct Step<'m> {
    kind: LayerKind,
    /// The product with its weights and its bias.
    sum: &'m str,
    /// What a cross layer multiplies that with, and what it adds.
    crossed: Option<[&'m str; 2]>,
}

/// What the first layer sees.
#[derive(Default)]
struct Input<'m> {
    fields: Vec<Field>,
    embeddings: Option<&'m str>,
    dense: bool,
}

impl<'m> Walk<'m> {
    fn new(graph: &'m Graph<'m>, path: &'m Path, edges: Edges<'m>) -> Result<Self, NetworkError> {
        let mut nodes = HashMap::new();
        for node in &graph.node {
            for &output in &node.output {
                if nodes.insert(output, node).is_some() {
                    return Err(graph_error(format!("two nodes make `{output}`")));
                }
            }
        }
        Ok(Self { graph, nodes, tensors: Tensors::new(graph, path), edges })
    }

    fn network(&self, output: &'m str) -> Result<Network, NetworkError> {
        let [logit] = self.node(output, &OpType::Sigmoid, &[])?;
        let [deep, last, wide] = self.node(logit, &OpType::Gemm, &[])?;
        let wide = self.wide(wide)?;
        let (first, layers) = self.layers(deep)?;
        let Input { fields, embeddings, dense } = self.input(first)?;
        let embeddings = embeddings.ok_or_else(|| graph_error("it has no embeddings"))?;
        if dense != self.edges.dense.is_some() {
            return Err(graph_error("its dense values are not all in the first layer's input"));
        }
        let (last_weights, [units, outputs]) = self.tensors.floats(last)?;
        let network = Network {
            id_columns: self.edges.ids.width,
            dense_columns: self.edges.dense.map_or(0, |dense| dense.width),
            fields,
            embeddings: self.ids_table(embeddings)?,
            wide,
            layers,
            last: last_weights,
        };
        check_widths(&network)?;
        let width = network.layers.last().map_or(network.input_width(), |layer| layer.outputs);
        if [units, outputs] == [width, 1] { Ok(network) } else { Err(wrong(last, NOT_THE_LAYER_BEFORE)) }
    }

    /// The table whose weights of all of a row's ids are added up to `value`.
    fn wide(&self, value: &'m str) -> Result<Table, NetworkError> {
        let [weights, axis] = self.node(value, &OpType::ReduceSum, &[("keepdims", 1)])?;
        self.check_axis(axis)?;
        let [wide, ids] = self.node(weights, &OpType::Gather, &[])?;
        if ids != self.edges.ids.name {
            return Err(graph_error(format!("`{ids}` is not every id of a row")));
        }
        let table = self.ids_table(wide)?;
        if table.dimension() == 1 { Ok(table) } else { Err(wrong(wide, "is no vector")) }
    }

    /// A table that ids are rows of.
    fn ids_table(&self, name: &str) -> Result<Table, NetworkError> {
        let table = self.tensors.table(name)?;
        match i32::try_from(table.rows()) {
            Ok(_) => Ok(table),
            Err(_) => Err(wrong(name, "has more rows than ids of 32 bits can name")),
        }
    }

    /// The layers that lead to `value`, and what the first of them sees.
    fn layers(&self, mut value: &'m str) -> Result<(&'m str, Vec<Layer>), NetworkError> {
        let (mut layers, mut crosses) = (Vec::new(), Vec::new());
        while let Some(Step { kind, sum, crossed }) = self.step(value)? {
            let [input, weights, bias] = self.node(sum, &OpType::Gemm, &[])?;
            if let Some([first, added]) = crossed {
                if added != input {
                    return Err(graph_error(format!("`{value}` adds what is not its layer's input")));
                }
                crosses.push(first);
            }
            layers.push(self.weights(kind, weights, bias)?);
            value = input;
            // Each layer has nodes of its own, unless the walk goes in a circle.
            if layers.len() > self.graph.node.len() {
                return Err(graph_error("it goes in a circle"));
            }
        }
        if crosses.iter().any(|&first| first != value) {
            return Err(graph_error("a cross layer does not multiply the first layer's input"));
        }
        layers.reverse();
        Ok((value, layers))
    }

    /// The layer that makes `value`, where one does.
    fn step(&self, value: &'m str) -> Result<Option<Step<'m>>, NetworkError> {
        if self.is(value, &OpType::Relu) {
            let [sum] = self.node(value, &OpType::Relu, &[])?;
            return Ok(Some(Step { kind: LayerKind::Relu, sum, crossed: None }));
        }
        if self.is(value, &OpType::Add) {
            let [product, input] = self.node(value, &OpType::Add, &[])?;
            let [first, sum] = self.node(product, &OpType::Mul, &[])?;
            return Ok(Some(Step { kind: LayerKind::Cross, sum, crossed: Some([first, input]) }));
        }
        Ok(None)
    }

    fn weights(&self, kind: LayerKind, weights: &str, bias: &str) -> Result<Layer, NetworkError> {
        let (numbers, [inputs, outputs]) = self.tensors.floats(weights)?;
        let (biases, shape) = self.tensors.floats(bias)?;
        if shape != [outputs, 1] {
            return Err(wrong(bias, "is not one number for each unit of its layer"));
        }
        Ok(Layer { kind, inputs, outputs, weights: numbers, bias: biases })
    }

    fn input(&self, value: &'m str) -> Result<Input<'m>, NetworkError> {
        let parts = match self.nodes.get(value) {
            Some(node) if node.op_type == OpType::Concat => {
                check_attributes(node, &[("axis", 1)])?;
                node.input.clone()
            }
            _ => vec![value],
        };
        let mut input = Input::default();
        for part in parts {
            self.part(part, &mut input)?;
        }
        Ok(input)
    }

    /// Adds a part of the first layer's input.
    fn part(&self, value: &'m str, input: &mut Input<'m>) -> Result<(), NetworkError> {
        if input.dense {
            return Err(graph_error(format!("`{value}` stands behind the dense values")));
        }
        if self.edges.dense.is_some_and(|dense| dense.name == value) {
            input.dense = true;
            return Ok(());
        }
        let table = if self.is(value, &OpType::Reshape) {
            self.singles(value, &mut input.fields)?
        } else {
            self.list(value, &mut input.fields)?
        };
        if input.embeddings.is_some_and(|embeddings| embeddings != table) {
            return Err(graph_error(format!("its embeddings lie in `{table}` and in another table")));
        }
        input.embeddings = Some(table);
        Ok(())
    }

    /// Adds the columns of which each makes an embedding, and says in which table.
    fn singles(&self, value: &'m str, fields: &mut Vec<Field>) -> Result<&'m str, NetworkError> {
        let [gathered, shape] = self.node(value, &OpType::Reshape, &[])?;
        let [table, ids] = self.node(gathered, &OpType::Gather, &[])?;
        let columns = self.columns(ids)?;
        let dimension = self.tensors.table(table)?.dimension();
        let width = columns.len().checked_mul(dimension).and_then(|width| i64::try_from(width).ok());
        if self.tensors.integers(shape)? != [-1, width.unwrap_or(-1)] {
            return Err(wrong(shape, "is not the shape of a row's embeddings side by side"));
        }
        let single = |first_column| Field { first_column, columns: 1, pooling: Pooling::Sum };
        fields.extend(columns.into_iter().map(single));
        Ok(table)
    }

    /// Adds the columns that make one embedding, and says in which table.
    fn list(&self, value: &'m str, fields: &mut Vec<Field>) -> Result<&'m str, NetworkError> {
        let (sum, divisor) = if self.is(value, &OpType::Div) {
            let [sum, divisor] = self.node(value, &OpType::Div, &[])?;
            (sum, Some(divisor))
        } else {
            (value, None)
        };
        let [gathered, axis] = self.node(sum, &OpType::ReduceSum, &[("keepdims", 0)])?;
        self.check_axis(axis)?;
        let [table, ids] = self.node(gathered, &OpType::Gather, &[])?;
        let pooling = match divisor {
            None => Pooling::Sum,
            Some(divisor) => Pooling::Mean { padding: self.padding(divisor, ids)? },
        };
        let columns = self.columns(ids)?;
        if !columns.windows(2).all(|two| two[1] == two[0] + 1) {
            return Err(graph_error(format!("the columns of the list `{ids}` are not side by side")));
        }
        fields.push(Field { first_column: columns[0], columns: columns.len(), pooling });
        Ok(table)
    }

    /// The padding of a list, whose `divisor` is the number of its `ids` that are above it, or one.
    fn padding(&self, divisor: &'m str, ids: &str) -> Result<i32, NetworkError> {
        let [count, one] = self.node(divisor, &OpType::Max, &[])?;
        let [ones, axis] = self.node(count, &OpType::ReduceSum, &[("keepdims", 1)])?;
        self.check_axis(axis)?;
        let [there] = self.node(ones, &OpType::Cast, &[("to", DataType::Float as i64)])?;
        let [counted, padding] = self.node(there, &OpType::Greater, &[])?;
        if counted != ids {
            return Err(graph_error(format!("the mean of `{ids}` counts `{counted}`")));
        }
        if self.tensors.floats(one)? != (vec![1.0], [1, 1]) {
            return Err(wrong(one, "is not one"));
        }
        self.tensors.id(padding)
    }

    /// The columns of the ids that `value` selects, at least one.
    fn columns(&self, value: &'m str) -> Result<Vec<usize>, NetworkError> {
        let width = self.edges.ids.width;
        let columns = if value == self.edges.ids.name {
            (0..width).collect()
        } else if self.is(value, &OpType::Slice) {
            self.slice(value)?
        } else {
            self.selection(value)?
        };
        let are_there = !columns.is_empty() && columns.iter().all(|&column| column < width);
        if are_there {
            Ok(columns)
        } else {
            Err(graph_error(format!("`{value}` selects no ids that there are")))
        }
    }

    fn slice(&self, value: &'m str) -> Result<Vec<usize>, NetworkError> {
        let [ids, start, end, axis] = self.node(value, &OpType::Slice, &[])?;
        self.check_ids(ids)?;
        self.check_axis(axis)?;
        let (start, end) = (self.tensors.integer(start)?, self.tensors.integer(end)?);
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) if end <= self.edges.ids.width => Ok((start..end).collect()),
            _ => Err(graph_error(format!("`{value}` ends outside of the ids"))),
        }
    }

    fn selection(&self, value: &'m str) -> Result<Vec<usize>, NetworkError> {
        let [ids, columns] = self.node(value, &OpType::Gather, &[("axis", 1)])?;
        self.check_ids(ids)?;
        let selected = self.tensors.integers(columns)?;
        let selected: Result<Vec<_>, _> = selected.into_iter().map(usize::try_from).collect();
        selected.map_err(|_| wrong(columns, "holds a column that cannot be"))
    }

    fn check_ids(&self, value: &str) -> Result<(), NetworkError> {
        let is_input = value == self.edges.ids.name && !self.nodes.contains_key(value);
        if is_input { Ok(()) } else { Err(graph_error(format!("`{value}` is not the input of ids"))) }
    }

    /// Sums go over the columns of a row.
    fn check_axis(&self, name: &str) -> Result<(), NetworkError> {
        if self.tensors.integer(name)? == 1 { Ok(()) } else { Err(wrong(name, "is not the axis of columns")) }
    }

    /// The inputs of the node that makes `value`, which is of this kind and has these attributes and no others.
    fn node<const N: usize>(
        &self,
        value: &str,
        kind: &OpType<'_>,
        attributes: &[(&str, i64)],
    ) -> Result<[&'m str; N], NetworkError> {
        let expected = || graph_error(format!("`{value}` is not made by {} of {N}", kind.as_str()));
        let node = self.nodes.get(value).filter(|node| node.op_type == *kind).ok_or_else(expected)?;
        check_attributes(node, attributes)?;
        if node.output.len() != 1 || !node.domain.is_empty() {
            return Err(expected());
        }
        node.input.as_slice().try_into().map_err(|_| expected())
    }

    fn is(&self, value: &str, kind: &OpType<'_>) -> bool {
        self.nodes.get(value).is_some_and(|node| node.op_type == *kind)
    }
}

/// Every layer takes what the one before it leaves.
fn check_widths(network: &Network) -> Result<(), NetworkError> {
    let width = network.fields.len().checked_mul(network.embeddings.dimension());
    let width = width.and_then(|width| width.checked_add(network.dense_columns));
    let first = width.ok_or_else(|| graph_error("its first layer's input cannot be counted"))?;
    let mut width = first;
    for (number, layer) in network.layers.iter().enumerate() {
        let fits = layer.inputs == width && (layer.kind == LayerKind::Relu || layer.outputs == first);
        // What a cross layer takes is as wide as what it multiplies it with.
        if !fits || (layer.kind == LayerKind::Cross && layer.inputs != first) {
            return Err(graph_error(format!(
                "layer {number} of {} x {} does not fit the {width} numbers before it",
                layer.inputs, layer.outputs
            )));
        }
        width = layer.outputs;
    }
    Ok(())
}

fn check_attributes(node: &Node<'_>, expected: &[(&str, i64)]) -> Result<(), NetworkError> {
    let is_expected = |attribute: &Attribute<'_>| {
        attribute.r#type == AttributeType::Int && expected.contains(&(attribute.name, attribute.i))
    };
    if node.attribute.len() == expected.len() && node.attribute.iter().all(is_expected) {
        return Ok(());
    }
    Err(graph_error(format!("the node `{}` has other attributes", node.name)))
}

fn graph_error(what: impl Into<String>) -> NetworkError {
    NetworkError::Graph(what.into())
}

/// The operators that the trainer writes.
const OPSET: i64 = 17;
const NOT_THE_LAYER_BEFORE: &str = "is not one weight for each number before it";

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::engine::cuda::sample;

    proptest! {
        /// A file is what its manifest says, but what a trainer wrote may be anything.
        #[test]
        fn no_damage_to_a_file_makes_more_of_it_than_an_error(
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            length in any::<prop::sample::Index>(),
            is_cut in any::<bool>(),
        ) {
            let network = sample::deep_and_cross();
            let mut bytes = sample::onnx(&network);
            for (place, byte) in damage {
                *place.get_mut(&mut bytes) = byte;
            }
            if is_cut {
                bytes.truncate(length.index(bytes.len()));
            }
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("model.onnx");
            fs::write(&path, bytes).expect("written");
            if let Ok(network) = Network::read(&path, &sample::signature(&network)) {
                prop_assert_eq!((network.id_columns, network.dense_columns), (2, 1));
                for layer in network.layers {
                    prop_assert_eq!(layer.weights.len(), layer.inputs * layer.outputs);
                    prop_assert_eq!(layer.bias.len(), layer.outputs);
                }
            }
        }
    }
}
