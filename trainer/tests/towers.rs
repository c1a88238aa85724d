//! The files of both sides of a model: what they come to is what the model answers, and neither looks at the other's side.

use std::path::Path;

use millrace::{
    engine::{PairEngine, Side, TowerEngine, Vectors},
    tensor::{Rows, Values},
};
use millrace_trainer::onnx_file::{MAX_INLINE_BYTES, OnnxFile};
use onnx_rs::ast::DataLocation;

use crate::graphs::{Exported, distance};

/// Both architectures with both sides: tables within the files, and beside the model.
fn models(max_inline_bytes: u64) -> [Exported; 2] {
    [Exported::of_towers(max_inline_bytes), Exported::of_sides(max_inline_bytes)]
}

fn vectors(model: &Exported, side: Side, rows: &Rows) -> Vectors {
    let runtime = crate::runtime();
    let mut tower =
        TowerEngine::open(&runtime, model.folder(), side, &model.signature).expect("a tower that loads");
    let mut vectors = Vectors::default();
    tower.run(rows, &mut vectors).expect("vectors");
    assert_eq!(vectors.vectors.len(), rows.len() * tower.width());
    vectors
}

#[test]
fn what_both_sides_come_to_is_what_the_model_answers() {
    for max_inline_bytes in [MAX_INLINE_BYTES, 256] {
        for model in models(max_inline_bytes) {
            let rows = model.rows(300);
            let expected = model.score(&model.single(), &rows);
            let [users, items] = [Side::User, Side::Item].map(|side| vectors(&model, side, &rows));
            let width = users.vectors.len() / rows.len();
            let runtime = crate::runtime();
            let mut pairs = PairEngine::open(&runtime, model.folder(), width).expect("pairs");
            let (mut user, mut logits, mut found) = (Vectors::default(), Vec::new(), Vec::new());
            for row in 0..300 {
                user.choose(&users, &[row]);
                // The user of the row with the items of all of them, among which its own is one.
                pairs.run(&user, items.slice(0..rows.len()), &mut logits).expect("logits");
                found.push(1.0 / (1.0 + (-logits[row as usize]).exp()));
            }
            let distance = distance(&found, &expected);
            assert!(distance < 1e-5, "{}: {distance}", model.name);
            for file in [Side::User.file(), Side::Item.file()].map(|file| model.folder().join(file)) {
                assert_eq!(external(&file) > 0, max_inline_bytes == 256, "{}", model.name);
                assert!(!file.with_extension("onnx.data").exists(), "the tables are the model's");
            }
        }
    }
}

#[test]
fn a_tower_knows_its_own_side_alone() {
    for model in models(MAX_INLINE_BYTES) {
        let (mut rows, other) = (model.rows(50), model.rows(100));
        rows.resize(1);
        let before = [Side::User, Side::Item].map(|side| vectors(&model, side, &rows));
        // The first row gets the item of another one: its columns are the genres, the item and the price.
        let of = |rows: &Rows, row: usize| match rows.columns()[0].values() {
            Values::I32(ids) => ids[row * 12..][..12].to_vec(),
            Values::F32(_) => panic!("ids are integers"),
        };
        let (first, stranger) = (of(&rows, 0), of(&other, 70));
        let item_columns = 1..7;
        rows.last_i32(0)[item_columns.clone()].copy_from_slice(&stranger[item_columns.clone()]);
        assert_ne!(first[item_columns.clone()], stranger[item_columns]);
        rows.last_f32(1).fill(1.75);
        let after = [Side::User, Side::Item].map(|side| vectors(&model, side, &rows));
        assert_eq!((before[0] == after[0], before[1] == after[1]), (true, false), "{}", model.name);
        let inputs = |side: Side| {
            let file = OnnxFile::read(&model.folder().join(side.file())).expect("read");
            let graph = file.model().expect("a model").graph.expect("a graph");
            graph.input.iter().map(|input| input.name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            (inputs(Side::User), inputs(Side::Item)),
            (vec!["ids".into()], vec!["ids".into(), "dense".into()])
        );
    }
}

#[test]
fn a_model_that_looks_at_both_sides_together_has_no_files_of_them() {
    let model = Exported::of_lists(MAX_INLINE_BYTES);
    for file in [Side::User.file(), Side::Item.file(), PairEngine::FILE] {
        assert!(!model.folder().join(file).exists(), "{file}");
    }
}

fn external(file: &Path) -> usize {
    let file = OnnxFile::read(file).expect("read");
    let graph = file.model().expect("a model").graph.expect("a graph");
    graph.initializer.iter().filter(|tensor| tensor.data_location() == DataLocation::External).count()
}
