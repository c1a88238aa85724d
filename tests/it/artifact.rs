//! Versions of a model as the trainer would publish them, small enough to be made in a millisecond.
//!
//! Each id has a weight, and the score of a row is the sigmoid of its ids' weights and the version's bias. So every
//! row has a score of its own, versions with other biases answer visibly other scores, and [`Artifact::score`] says
//! which without an engine.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use millrace::{
    codec::json,
    engine::{PairEngine, Side},
    features::{Catalogue, CategoricalSource, Encoder, FeatureKind, RawValue, Schema, Value, Vocabulary},
    repository::{
        Layout, ModelName, VersionNumber,
        golden::Golden,
        manifest::{Lineage, Manifest},
    },
    tensor::{Rows, Values},
};
use onnx_rs::ast::{
    Attribute, AttributeType, DataLocation, DataType, Dimension, Graph, Model, Node, OpType, OperatorSetId,
    StringStringEntry, TensorProto, TensorShape, TensorShapeDimension, TensorTypeProto, TypeProto, TypeValue,
    ValueInfo,
};
use tempfile::TempDir;
use time::OffsetDateTime;

/// The users whose ids the model knows.
pub(crate) const USERS: [&str; 4] = ["123", "456", "789", "17850"];
/// The items whose ids the model knows, one of which no integer can name.
pub(crate) const ITEMS: [&str; 4] = ["456", "22423", "85123A", "789"];
/// The tags that a model with lists knows.
pub(crate) const TAGS: [&str; 3] = ["new", "sale", "7"];
/// The most tags of a row.
const MOST_TAGS: u8 = 3;

/// The file of tables beside a model.
pub(crate) const TABLE: &str = "model.onnx.data";
/// Where the table starts in it.
const PAGE_BYTES: usize = 4096;

/// A model repository in a temporary folder.
pub(crate) struct Models {
    folder: TempDir,
}

impl Models {
    /// A repository without models.
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Publishes `artifact` as `version` of `model` the way the trainer does, and says in which folder.
    pub(crate) fn publish(&self, model: &str, version: u64, artifact: Artifact) -> PathBuf {
        let (model, version) = names(model, version);
        let layout = Layout::new(self.path());
        let stage = layout.stage(&model).expect("staged");
        artifact.write(stage.path(), &model, version, None);
        layout.publish(&model, version, stage).expect("a version that is not there yet")
    }

    /// The same with this file in place of its own.
    pub(crate) fn publish_with(&self, model: &str, version: u64, artifact: Artifact, file: (&str, &[u8])) {
        let (model, version) = names(model, version);
        let layout = Layout::new(self.path());
        let stage = layout.stage(&model).expect("staged");
        artifact.write(stage.path(), &model, version, Some(file));
        layout.publish(&model, version, stage).expect("a version that is not there yet");
    }

    /// Takes a published version out of the repository, as if it had never been.
    pub(crate) fn withdraw(&self, model: &str, version: u64) {
        let (there, aside) = self.places(model, version);
        fs::rename(there, aside).expect("a published version");
    }

    /// Puts a withdrawn version back.
    pub(crate) fn restore(&self, model: &str, version: u64) {
        let (there, aside) = self.places(model, version);
        fs::rename(aside, there).expect("a withdrawn version");
    }

    fn places(&self, model: &str, version: u64) -> (PathBuf, PathBuf) {
        let folder = self.path().join(model);
        (folder.join(version.to_string()), folder.join(format!(".withdrawn-{version}")))
    }
}

fn names(model: &str, version: u64) -> (ModelName, VersionNumber) {
    (model.parse().expect("a model's name"), version.try_into().expect("a version's number"))
}

/// What a version is made of.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a way in which versions differ")]
pub(crate) struct Artifact {
    bias: f32,
    golden_shift: f32,
    table_beside: bool,
    tags: bool,
    hashes: bool,
    catalogue: bool,
    towers: bool,
}

impl Artifact {
    /// A version whose scores rise with `bias`; between -2 and 2 they are far from both ends.
    pub(crate) fn with_bias(bias: f32) -> Self {
        Self {
            bias,
            golden_shift: 0.0,
            table_beside: false,
            tags: false,
            hashes: false,
            catalogue: false,
            towers: false,
        }
    }

    /// The same model with its weights in [`TABLE`], as large tables are, and beside them a file for other engines.
    pub(crate) fn with_table_beside(self) -> Self {
        Self { table_beside: true, ..self }
    }

    /// The same with a third feature, a list of tags, whose weights are added too.
    pub(crate) fn with_tags(self) -> Self {
        Self { tags: true, ..self }
    }

    /// The same with hashes in place of vocabularies, so that nothing of its encoding is fitted.
    pub(crate) fn with_hashes(self) -> Self {
        Self { hashes: true, ..self }
    }

    /// The same with all known items to recommend, the text among them first.
    pub(crate) fn with_catalogue(self) -> Self {
        Self { catalogue: true, ..self }
    }

    /// The same with its sides as files of their own.
    pub(crate) fn with_towers(self) -> Self {
        Self { towers: true, ..self }
    }

    /// The same files with golden rows that they do not answer, so that no server may serve it.
    pub(crate) fn unfit(self) -> Self {
        Self { golden_shift: 0.1, ..self }
    }

    /// The score of the row `[user, item]`, without tags.
    pub(crate) fn score(self, user: &str, item: &str) -> f32 {
        self.score_tagged(user, item, &[])
    }

    /// The score of the row `[user, item, tags]`.
    pub(crate) fn score_tagged(self, user: &str, item: &str, tags: &[&str]) -> f32 {
        let encoder = self.encoder();
        let mut rows = Rows::new(encoder.signature());
        let tags: Vec<Value> = tags.iter().map(|&tag| Value::Text(tag.into())).collect();
        let row = [RawValue::Text(user), RawValue::Text(item), RawValue::List(&tags)];
        let sent = if self.tags { 3 } else { 2 };
        encoder.encode(row.into_iter().take(sent), &mut rows).expect("a row");
        let Values::I32(ids) = rows.columns()[0].values() else { panic!("ids are integers") };
        let weights = weights(&encoder);
        let logit: f32 = ids.iter().map(|&id| weights[usize::try_from(id).expect("a table row")]).sum();
        1.0 / (1.0 + (-(logit + self.bias)).exp())
    }

    /// What a caller sends in binary for the rows of this body of JSON.
    pub(crate) fn binary(self, json: &str) -> Vec<u8> {
        let encoder = self.encoder();
        let mut rows = Rows::new(encoder.signature());
        json::decode(json.as_bytes(), &encoder, &mut rows, usize::MAX).expect("rows");
        let Values::I32(ids) = rows.columns()[0].values() else { panic!("ids are integers") };
        ids.iter().flat_map(|id| id.to_le_bytes()).collect()
    }

    /// Writes everything that a version's folder holds.
    fn write(self, folder: &Path, model: &ModelName, version: VersionNumber, file: Option<(&str, &[u8])>) {
        let encoder = self.encoder();
        encoder.write(&folder.join(Manifest::FEATURES)).expect("written");
        fs::write(folder.join(Manifest::MODEL), self.onnx(&encoder)).expect("written");
        if self.table_beside {
            let table = weights(&encoder).iter().flat_map(|weight| weight.to_le_bytes()).collect::<Vec<_>>();
            fs::write(folder.join(TABLE), [vec![0; PAGE_BYTES], table].concat()).expect("written");
            fs::write(folder.join("model.fp16.onnx"), "for an engine that is not here").expect("written");
        }
        self.golden().write(folder).expect("written");
        if self.towers {
            for (file, model) in self.sides(&encoder) {
                fs::write(folder.join(file), model).expect("written");
            }
        }
        if self.catalogue {
            let items = ["85123A", "456", "22423", "789"].map(|item| vec![id(item)]);
            let catalogue = Catalogue::new(&encoder, "item_id".into(), &["item_id".into()], items.into());
            catalogue.expect("different ids").write(folder, &encoder).expect("written");
        }
        if let Some((name, content)) = file {
            fs::write(folder.join(name), content).expect("written");
        }
        let manifest = Manifest {
            model: model.clone(),
            version,
            kind: "sum_of_weights".into(),
            created: OffsetDateTime::UNIX_EPOCH,
            parent: None,
            signature: encoder.signature().clone(),
            metrics: BTreeMap::from([("auc".into(), 0.75)]),
            lineage: Lineage::default(),
            files: Manifest::record_files(folder).expect("recorded"),
        };
        manifest.write(folder).expect("written");
    }

    fn golden(self) -> Golden {
        let rows = [("123", "456"), ("17850", "85123A"), ("nobody", "nothing")];
        Golden {
            tolerance: 1e-5,
            input: rows
                .map(|(user, item)| {
                    let tags = self.tags.then(|| Value::List(Vec::new()));
                    [id(user), id(item)].into_iter().chain(tags).collect()
                })
                .into(),
            output: rows.map(|(user, item)| self.score(user, item) + self.golden_shift).into(),
        }
    }

    /// `ids` -> Gather -> `ReduceSum` -> Add bias -> Sigmoid.
    fn onnx(self, encoder: &Encoder) -> Vec<u8> {
        let weights = weights(encoder);
        let rows = i64::try_from(weights.len()).expect("a few");
        let (offset, length) = (PAGE_BYTES.to_string(), (weights.len() * 4).to_string());
        let weights = if self.table_beside {
            let entries = [("location", TABLE), ("offset", &*offset), ("length", &*length)];
            TensorProto::from_raw("weights", vec![rows], DataType::Float, &[])
                .with_data_location(DataLocation::External)
                .with_external_data(entries.map(|(key, value)| StringStringEntry { key, value }).into())
        } else {
            TensorProto::from_f32("weights", vec![rows], weights)
        };
        let graph = Graph {
            name: "sum_of_weights",
            node: vec![
                node(OpType::Gather, vec!["weights", "ids"], "gathered"),
                node(OpType::ReduceSum, vec!["gathered", "axis"], "sum"),
                node(OpType::Add, vec!["sum", "bias"], "logit"),
                node(OpType::Sigmoid, vec!["logit"], "probability"),
            ],
            initializer: vec![
                weights,
                TensorProto::from_i64("axis", vec![1], vec![1]),
                TensorProto::from_f32("bias", vec![1], vec![self.bias]),
            ],
            input: vec![rows_of(
                "ids",
                DataType::Int32,
                if self.tags { 2 + i64::from(MOST_TAGS) } else { 2 },
            )],
            output: vec![rows_of("probability", DataType::Float, 1)],
            ..Graph::default()
        };
        model(graph)
    }

    /// Both towers, whose vectors are the weight of the user and a 1 for each item, and the graph that goes on from them.
    fn sides(self, encoder: &Encoder) -> [(&'static str, Vec<u8>); 3] {
        let tower = |side: Side, column: i64| {
            let [vector, bias] = side.outputs();
            // The user's weight is in its vector, the item's in its bias.
            let (weight, other) = if side == Side::User { (vector, bias) } else { (bias, vector) };
            let number = if side == Side::User { self.bias } else { 1.0 };
            let weights = weights(encoder);
            let rows = i64::try_from(weights.len()).expect("a few");
            let graph = Graph {
                name: "tower",
                node: vec![
                    Node {
                        attribute: vec![Attribute {
                            name: "axis",
                            r#type: AttributeType::Int,
                            i: 1,
                            ..Attribute::default()
                        }],
                        ..node(OpType::Gather, vec!["ids", "column"], "own")
                    },
                    node(OpType::Gather, vec!["weights", "own"], weight),
                    node(OpType::Sub, vec![weight, weight], "zero"),
                    node(OpType::Add, vec!["zero", "number"], other),
                ],
                initializer: vec![
                    TensorProto::from_f32("weights", vec![rows], weights),
                    TensorProto::from_i64("column", vec![1], vec![column]),
                    TensorProto::from_f32("number", vec![1], vec![number]),
                ],
                input: vec![rows_of("ids", DataType::Int32, 2)],
                output: [vector, bias].map(|name| rows_of(name, DataType::Float, 1)).into(),
                ..Graph::default()
            };
            (side.file(), model(graph))
        };
        [tower(Side::User, 0), tower(Side::Item, 1), (PairEngine::FILE, pairs())]
    }

    fn encoder(self) -> Encoder {
        let mut schema: Schema = toml::from_str(&format!(
            r#"
            feature = [
              {{ name = "user_id", kind = "categorical", source = "vocabulary" }},
              {{ name = "item_id", kind = "categorical", source = "vocabulary" }},
              {{ name = "tags", values = {{ max = {MOST_TAGS}, pooling = "sum" }}, kind = "categorical", source = "vocabulary" }},
            ]
            "#
        ))
        .expect("a schema");
        if !self.tags {
            schema.features.truncate(2);
        }
        if self.hashes {
            let hash = |rows| FeatureKind::Categorical { source: CategoricalSource::Hash(rows) };
            schema.features.iter_mut().for_each(|feature| feature.kind = hash(5));
        }
        Encoder::new(schema, |feature| {
            let ids = match feature.name.as_str() {
                "user_id" => &USERS[..],
                "item_id" => &ITEMS,
                _ => &TAGS,
            };
            Ok(Vocabulary::new(ids.iter().copied()).expect("different ids"))
        })
        .expect("a layout")
    }
}

/// An id as a caller would send it.
fn id(text: &str) -> Value {
    text.parse().map_or_else(|_| Value::Text(text.into()), Value::Int)
}

/// The logits of a user with items, of vectors of one number.
fn pairs() -> Vec<u8> {
    let [user_vector, user_bias, item_vector, item_bias] = PairEngine::INPUTS;
    let input = |name, rows| {
        let mut value = rows_of(name, DataType::Float, 1);
        if let (Some(TypeValue::Tensor(tensor)), Some(rows)) =
            (value.r#type.as_mut().and_then(|kind| kind.value.as_mut()), rows)
        {
            tensor.shape.as_mut().expect("a shape").dim[0].value = Dimension::Value(rows);
        }
        value
    };
    model(Graph {
        name: "pairs",
        node: vec![
            node(OpType::Mul, vec![item_vector, user_vector], "product"),
            node(OpType::Add, vec![item_bias, user_bias], "biases"),
            node(OpType::Add, vec!["product", "biases"], PairEngine::OUTPUT),
        ],
        input: vec![
            input(user_vector, Some(1)),
            input(user_bias, Some(1)),
            input(item_vector, None),
            input(item_bias, None),
        ],
        output: vec![rows_of(PairEngine::OUTPUT, DataType::Float, 1)],
        ..Graph::default()
    })
}

fn node<'a>(op_type: OpType<'a>, input: Vec<&'a str>, output: &'a str) -> Node<'a> {
    Node { op_type, input, output: vec![output], ..Node::default() }
}

fn model(graph: Graph<'_>) -> Vec<u8> {
    onnx_rs::encode(&Model {
        ir_version: 8,
        opset_import: vec![OperatorSetId { domain: "", version: 17 }],
        graph: Some(graph),
        ..Model::default()
    })
}

/// A tensor `[batch, width]` at the graph's edge.
fn rows_of(name: &str, elem_type: DataType, width: i64) -> ValueInfo<'_> {
    let dimension = |value| TensorShapeDimension { value, ..TensorShapeDimension::default() };
    let dim = vec![dimension(Dimension::Param("batch")), dimension(Dimension::Value(width))];
    let tensor = TensorTypeProto { elem_type, shape: Some(TensorShape { dim }) };
    let kind = TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() };
    ValueInfo { name, r#type: Some(kind), ..ValueInfo::default() }
}

/// A weight for each row of the table, such that no two pairs of a user and an item have the same sum.
fn weights(encoder: &Encoder) -> Vec<f32> {
    let users = (0..=USERS.len()).map(|row| 0.05 * row as f32);
    let items = (0..=ITEMS.len()).map(|row| 0.3 * row as f32);
    // The first row stands where there is no tag, and the second one for tags that are not known.
    let tags = (0..TAGS.len() + 2).map(|row| 0.007 * row as f32);
    let weights: Vec<f32> = users.chain(items).chain(tags).take(encoder.wide_rows()).collect();
    assert_eq!(weights.len(), encoder.wide_rows(), "a weight for each row");
    weights
}

mod tests {
    use millrace::engine::{Engine, OnnxEngine};

    use super::*;
    use crate::runtime;

    #[test]
    fn the_files_answer_what_the_artifact_says_they_will() {
        let models = Models::new();
        for (version, bias) in [(1, -1.0), (2, 1.5)] {
            let artifact = Artifact::with_bias(bias);
            let folder = models.publish("shop", version, artifact);
            let encoder = Encoder::read(&folder.join(Manifest::FEATURES)).expect("features");
            let model = folder.join(Manifest::MODEL);
            let mut engine =
                OnnxEngine::open(&runtime(), &model, encoder.signature()).expect("a model that loads");
            let mut rows = Rows::new(encoder.signature());
            let mut expected = Vec::new();
            for (user, item) in USERS.into_iter().zip(ITEMS).chain([("a stranger", "nothing")]) {
                encoder.encode([user, item].map(RawValue::Text).into_iter(), &mut rows).expect("two ids");
                expected.push(artifact.score(user, item));
            }
            let mut scores = Vec::new();
            engine.run(&rows, &mut scores).expect("scores");
            let close = scores.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
            assert!(close && scores.len() == expected.len(), "{scores:?} {expected:?}");
        }
    }

    #[test]
    fn the_golden_rows_are_answered_unless_the_version_is_unfit() {
        let models = Models::new();
        let check = |folder: &Path| {
            let encoder = Encoder::read(&folder.join(Manifest::FEATURES)).expect("features");
            let model = folder.join(Manifest::MODEL);
            let mut engine = OnnxEngine::open(&runtime(), &model, encoder.signature()).expect("it loads");
            let golden = Golden::read(folder).expect("golden rows");
            let rows = golden.encode(&encoder).expect("rows that encode");
            golden.check(&mut engine, &rows)
        };
        let artifact = Artifact::with_bias(0.5);
        check(&models.publish("shop", 1, artifact)).expect("answered");
        check(&models.publish("shop", 2, artifact.unfit())).expect_err("not answered");
    }

    #[test]
    fn no_two_rows_and_no_two_biases_have_the_same_score() {
        let scores = |artifact: Artifact| -> Vec<f32> {
            USERS.iter().flat_map(|user| ITEMS.map(|item| artifact.score(user, item))).collect()
        };
        let mut all = [-1.0, -0.37, 0.29].map(|bias| scores(Artifact::with_bias(bias))).concat();
        all.sort_by(f32::total_cmp);
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] > 1e-4), "{all:?}");
    }
}
