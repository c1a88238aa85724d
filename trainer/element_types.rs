//! The element type of every value in an ONNX graph, by the rules of its operators, which never mix types: a runtime
//! that is strongly typed computes each operator in the type of its inputs and refuses a graph in which they differ.
//!
//! Pure, and for the operators that the exporter writes or may come to write: what is not among them is refused.

use std::collections::BTreeMap;

use onnx_rs::ast::{DataType, Graph, Node, OpType, TypeValue, ValueInfo};

/// Why a graph has no types.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// An operator without a rule here.
    #[error("node `{node}`: there is no rule for the types of the operator {operator}")]
    Operator {
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
    },
    /// A node's inputs differ in their types.
    #[error("node `{node}`: {operator} of {types:?}")]
    Mixed {
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
        /// The types of those inputs that must be of one type.
        types: Vec<DataType>,
    },
    /// A value that nothing before has made, or that says nothing of its type.
    #[error("the value `{0}` has no type")]
    Untyped(String),
}

/// How the type of a node's outputs follows from those of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// All inputs have one type, which is that of the outputs.
    Same,
    /// The first input's type; the others are indices, axes or shapes.
    First,
    /// What the attribute `to` says.
    Declared,
    /// 64-bit integers, whatever comes in.
    Lengths,
    /// All inputs have one type, and the outputs are true or false.
    Truths,
}

/// The type of each value of `graph` by its name.
pub fn infer<'a>(graph: &Graph<'a>) -> Result<BTreeMap<&'a str, DataType>, TypeError> {
    let inputs = graph.input.iter().map(|input| (input.name, declared(input)));
    let tensors = graph.initializer.iter().map(|tensor| (tensor.name(), Some(tensor.data_type())));
    let mut types = BTreeMap::new();
    for (name, kind) in inputs.chain(tensors) {
        let kind = kind.filter(|&kind| kind != DataType::Undefined);
        types.insert(name, kind.ok_or_else(|| TypeError::Untyped(name.to_owned()))?);
    }
    for node in &graph.node {
        let kind = output(node, &types)?;
        types.extend(node.output.iter().map(|&name| (name, kind)));
    }
    Ok(types)
}

/// The type that a value at the graph's edge declares.
pub fn declared(value: &ValueInfo<'_>) -> Option<DataType> {
    match value.r#type.as_ref()?.value.as_ref()? {
        TypeValue::Tensor(tensor) => Some(tensor.elem_type),
        _ => None,
    }
}

/// The inputs of `node` that share the type in which it computes; the others are indices, axes or shapes.
pub fn computed<'n, 'a>(node: &'n Node<'a>) -> Result<&'n [&'a str], TypeError> {
    let count = match rule(node)? {
        Rule::Same | Rule::Truths => node.input.len(),
        Rule::First => node.input.len().min(1),
        Rule::Declared | Rule::Lengths => 0,
    };
    Ok(&node.input[..count])
}

fn output(node: &Node<'_>, types: &BTreeMap<&str, DataType>) -> Result<DataType, TypeError> {
    let of = |&name: &&str| types.get(name).copied().ok_or_else(|| TypeError::Untyped(name.to_owned()));
    // An input that is left out has an empty name.
    node.input.iter().filter(|name| !name.is_empty()).try_for_each(|name| of(name).map(drop))?;
    match rule(node)? {
        Rule::Declared => to(node).ok_or_else(|| TypeError::Untyped(name(node))),
        Rule::Lengths => Ok(DataType::Int64),
        rule @ (Rule::Same | Rule::First | Rule::Truths) => {
            let inputs = computed(node)?.iter().filter(|name| !name.is_empty());
            let types = inputs.map(of).collect::<Result<Vec<_>, _>>()?;
            match types.split_first() {
                Some((&first, rest)) if rest.iter().all(|&kind| kind == first) => {
                    Ok(if rule == Rule::Truths { DataType::Bool } else { first })
                }
                _ => Err(TypeError::Mixed { node: name(node), operator: node.op_type.to_string(), types }),
            }
        }
    }
}

fn rule(node: &Node<'_>) -> Result<Rule, TypeError> {
    match node.op_type {
        OpType::Add
        | OpType::Sub
        | OpType::Mul
        | OpType::Div
        | OpType::Sum
        | OpType::Mean
        | OpType::Min
        | OpType::Max
        | OpType::Neg
        | OpType::Abs
        | OpType::Sqrt
        | OpType::Reciprocal
        | OpType::Exp
        | OpType::Log
        | OpType::Clip
        | OpType::Relu
        | OpType::LeakyRelu
        | OpType::Sigmoid
        | OpType::Tanh
        | OpType::Softmax
        | OpType::MatMul
        | OpType::Gemm
        | OpType::Concat
        | OpType::LayerNormalization => Ok(Rule::Same),
        OpType::Gather
        | OpType::Reshape
        | OpType::Flatten
        | OpType::Transpose
        | OpType::Squeeze
        | OpType::Unsqueeze
        | OpType::Expand
        | OpType::Tile
        | OpType::Slice
        | OpType::Split
        | OpType::Identity
        | OpType::ReduceSum
        | OpType::ReduceMean
        | OpType::ReduceMax
        | OpType::ReduceL2
        | OpType::ReduceSumSquare => Ok(Rule::First),
        OpType::Equal | OpType::Greater | OpType::GreaterOrEqual | OpType::Less | OpType::LessOrEqual => {
            Ok(Rule::Truths)
        }
        OpType::Cast => Ok(Rule::Declared),
        OpType::Shape | OpType::Size => Ok(Rule::Lengths),
        _ => Err(TypeError::Operator { node: name(node), operator: node.op_type.to_string() }),
    }
}

/// The type that a Cast casts to.
fn to(node: &Node<'_>) -> Option<DataType> {
    let to = node.attribute.iter().find(|attribute| attribute.name == "to")?;
    DataType::try_from(i32::try_from(to.i).ok()?).ok()
}

/// What to call a node in an error: nodes need no name of their own.
fn name(node: &Node<'_>) -> String {
    let first = node.output.first().copied().unwrap_or_default();
    if node.name.is_empty() { first.to_owned() } else { node.name.to_owned() }
}

#[cfg(test)]
mod tests {
    use onnx_rs::ast::{Attribute, AttributeType, TensorProto};

    use super::*;

    fn node(op_type: OpType<'static>, input: &[&'static str], output: &'static str) -> Node<'static> {
        Node { op_type, input: input.to_vec(), output: vec![output], ..Node::default() }
    }

    fn graph(node: Vec<Node<'static>>) -> Graph<'static> {
        let initializer = vec![
            TensorProto::from_f32("table", vec![2, 1], vec![0.5, 1.5]),
            TensorProto::from_i32("ids", vec![1, 1], vec![1]),
            TensorProto::from_i64("axis", vec![1], vec![1]),
            TensorProto::from_raw("halves", vec![1], DataType::Float16, &[0, 60]),
        ];
        Graph { node, initializer, ..Graph::default() }
    }

    #[test]
    fn indices_and_axes_do_not_count_among_what_is_computed_with() {
        let graph = graph(vec![
            node(OpType::Gather, &["table", "ids"], "rows"),
            node(OpType::ReduceSum, &["rows", "axis"], "sum"),
            node(OpType::Slice, &["ids", "axis", "axis"], "some_ids"),
            node(OpType::Clip, &["sum", "", "sum"], "clipped"),
        ]);
        let types = infer(&graph).expect("typed");
        assert_eq!([types["rows"], types["sum"], types["clipped"]], [DataType::Float; 3]);
        assert_eq!(types["some_ids"], DataType::Int32);
    }

    #[test]
    fn a_comparison_is_true_or_false_and_of_one_type() {
        let above = node(OpType::Greater, &["ids", "ids"], "above");
        assert_eq!(infer(&graph(vec![above])).expect("typed")["above"], DataType::Bool);
        let error = infer(&graph(vec![node(OpType::Greater, &["ids", "axis"], "above")])).expect_err("mixed");
        assert_eq!(error.to_string(), "node `above`: Greater of [Int32, Int64]");
    }

    #[test]
    fn a_cast_has_the_type_that_it_says() {
        let attribute = Attribute { name: "to", r#type: AttributeType::Int, i: 10, ..Attribute::default() };
        let cast = Node { attribute: vec![attribute], ..node(OpType::Cast, &["table"], "half_table") };
        let graph = graph(vec![cast, node(OpType::Add, &["half_table", "halves"], "sum")]);
        assert_eq!(infer(&graph).expect("typed")["sum"], DataType::Float16);
    }

    #[test]
    fn single_and_half_precision_are_never_mixed() {
        let error = infer(&graph(vec![node(OpType::Add, &["table", "halves"], "sum")])).expect_err("mixed");
        assert_eq!(error.to_string(), "node `sum`: Add of [Float, Float16]");
    }

    #[test]
    fn what_is_unknown_is_named() {
        let error =
            infer(&graph(vec![node(OpType::Conv, &["table", "table"], "image")])).expect_err("no rule");
        assert!(error.to_string().starts_with("node `image`: there is no rule"), "{error}");
        let error = infer(&graph(vec![node(OpType::Relu, &["nothing"], "x")])).expect_err("no such value");
        assert_eq!(error, TypeError::Untyped("nothing".into()));
    }
}
