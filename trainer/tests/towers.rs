//! The files of two towers: what their vectors come to is what the model answers, and neither looks at the other's side.

use std::path::{Path, PathBuf};

use millrace::{
    engine::OnnxEngine,
    tensor::{Rows, Signature, Values},
};
use millrace_trainer::{
    artifact,
    onnx_file::{MAX_INLINE_BYTES, OnnxFile},
    tower_files,
};
use onnx_rs::ast::{
    DataLocation, DataType, Dimension, Graph, Model, Node, OpType, TensorProto, TensorShape,
    TensorShapeDimension, TensorTypeProto, TypeProto, TypeValue, ValueInfo,
};

use crate::graphs::{Exported, VECTOR, distance};

/// A tower's file and its outputs, number by number: an engine answers one for each row.
struct TowerFile {
    path: PathBuf,
    side: &'static str,
}

impl TowerFile {
    fn of(model: &Exported, side: &'static str) -> Self {
        Self { path: model.single().with_file_name(tower_files::file_name(side)), side }
    }

    /// The vector of each row, column by column.
    fn vectors(&self, rows: &Rows, signature: &Signature) -> Vec<Vec<f32>> {
        let column = |at: usize| self.column(&format!("{}_vector", self.side), at, (rows, signature));
        (0..VECTOR).map(column).collect()
    }

    fn bias(&self, rows: &Rows, signature: &Signature) -> Vec<f32> {
        self.column(&format!("{}_bias", self.side), 0, (rows, signature))
    }

    /// One number of the output `name` for each row, by ONNX Runtime.
    fn column(&self, name: &str, at: usize, (rows, signature): (&Rows, &Signature)) -> Vec<f32> {
        let file = OnnxFile::read(&self.path).expect("read");
        let model = file.model().expect("a model");
        let graph = model.graph.clone().expect("a graph");
        let inputs: Vec<&str> = graph.input.iter().map(|input| input.name).collect();
        let inputs =
            signature.inputs.iter().filter(|input| inputs.contains(&&*input.name)).cloned().collect();
        let signature = Signature { inputs, output: "column".into() };
        let copy = self.path.with_extension("column.onnx");
        std::fs::write(&copy, with_column(&model, graph, (name, at))).expect("written");
        let mut engine = OnnxEngine::open(&crate::runtime(), &copy, &signature).expect("opened");
        artifact::score(&mut engine, &some_inputs(rows, &signature)).expect("numbers")
    }
}

/// The model with one column of the output `name` in place of all outputs.
fn with_column(model: &Model<'_>, graph: Graph<'_>, (name, at): (&str, usize)) -> Vec<u8> {
    let number = |number: usize| vec![i64::try_from(number).expect("small")];
    let mut graph = graph;
    for (tensor, value) in [("column_start", at), ("column_end", at + 1), ("column_axis", 1)] {
        graph.initializer.push(TensorProto::from_i64(tensor, vec![1], number(value)));
    }
    graph.node.push(Node {
        name: "column",
        op_type: OpType::Slice,
        input: vec![name, "column_start", "column_end", "column_axis"],
        output: vec!["column"],
        ..Node::default()
    });
    let dimension = |value| TensorShapeDimension { value, ..TensorShapeDimension::default() };
    let dim = vec![dimension(Dimension::Param("batch")), dimension(Dimension::Value(1))];
    let tensor = TensorTypeProto { elem_type: DataType::Float, shape: Some(TensorShape { dim }) };
    let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() };
    graph.output = vec![ValueInfo { name: "column", r#type: Some(kind), ..ValueInfo::default() }];
    onnx_rs::encode(&Model { graph: Some(graph), ..model.clone() })
}

/// The same rows with those inputs alone that `signature` has.
fn some_inputs(rows: &Rows, signature: &Signature) -> Rows {
    let mut some = Rows::new(signature);
    let dense = signature.inputs.len() > 1;
    for row in 0..rows.len() {
        some.push_zeroed();
        for (input, column) in rows.columns().iter().take(1 + usize::from(dense)).enumerate() {
            let elements = row * column.width()..(row + 1) * column.width();
            match column.values() {
                Values::I32(ids) => some.last_i32(input).copy_from_slice(&ids[elements]),
                Values::F32(numbers) => some.last_f32(input).copy_from_slice(&numbers[elements]),
            }
        }
    }
    some
}

#[test]
fn the_product_of_the_vectors_and_both_biases_are_what_the_model_answers() {
    // Tables within the files, and beside the model.
    for max_inline_bytes in [MAX_INLINE_BYTES, 256] {
        let model = Exported::of_towers(max_inline_bytes);
        let rows = model.rows(500);
        let expected = model.score(&model.single(), &rows);
        let [user, item] = ["user", "item"].map(|side| TowerFile::of(&model, side));
        let vectors = [&user, &item].map(|tower| tower.vectors(&rows, &model.signature));
        let biases = [&user, &item].map(|tower| tower.bias(&rows, &model.signature));
        let found: Vec<f32> = (0..rows.len())
            .map(|row| {
                let product: f32 = (0..VECTOR).map(|at| vectors[0][at][row] * vectors[1][at][row]).sum();
                1.0 / (1.0 + (-(product + biases[0][row] + biases[1][row])).exp())
            })
            .collect();
        assert!(distance(&found, &expected) < 1e-5, "{}", distance(&found, &expected));
        assert_eq!(external(&user.path) > 0, max_inline_bytes == 256);
        let beside = user.path.with_extension("onnx.data");
        assert!(!beside.exists(), "the tables are the model's");
    }
}

#[test]
fn a_tower_knows_its_own_side_alone() {
    let model = Exported::of_towers(MAX_INLINE_BYTES);
    let (mut rows, other) = (model.rows(50), model.rows(100));
    let [user, item] = ["user", "item"].map(|side| TowerFile::of(&model, side));
    let before = [&user, &item].map(|tower| tower.vectors(&rows, &model.signature));
    // The first row gets the item of another one: its columns are the genres, the item and the price.
    let of = |rows: &Rows, row: usize| match rows.columns()[0].values() {
        Values::I32(ids) => ids[row * 12..][..12].to_vec(),
        Values::F32(_) => panic!("ids are integers"),
    };
    let stranger = of(&other, 70);
    rows.resize(1);
    let first = of(&rows, 0);
    let item_columns = 1..7;
    rows.last_i32(0)[item_columns.clone()].copy_from_slice(&stranger[item_columns.clone()]);
    assert_ne!(first[item_columns.clone()], stranger[item_columns]);
    rows.last_f32(1).fill(1.75);
    let after = [&user, &item].map(|tower| tower.vectors(&rows, &model.signature));
    let changed =
        |side: usize| (0..VECTOR).any(|at| before[side][at][0].to_bits() != after[side][at][0].to_bits());
    assert_eq!((changed(0), changed(1)), (false, true));
    let inputs = |tower: &TowerFile| {
        let file = OnnxFile::read(&tower.path).expect("read");
        let graph = file.model().expect("a model").graph.expect("a graph");
        graph.input.iter().map(|input| input.name.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((inputs(&user), inputs(&item)), (vec!["ids".into()], vec!["ids".into(), "dense".into()]));
}

fn external(file: &Path) -> usize {
    let file = OnnxFile::read(file).expect("read");
    let graph = file.model().expect("a model").graph.expect("a graph");
    graph.initializer.iter().filter(|tensor| tensor.data_location() == DataLocation::External).count()
}
