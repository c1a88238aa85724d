//! Whole runs: what they are worth, what they leave behind, and that they repeat.

use millrace::repository::{golden::Golden, manifest::Manifest};
use millrace_trainer::config::{Architecture, EmbeddingOptimizer};

use crate::shop::{Shop, contents, run, with_run};

#[test]
fn a_labelled_log_is_learnt_far_better_than_its_majority() {
    let shop = Shop::open();
    let mut said = Vec::new();
    let artifact = with_run(&shop, &shop.labelled(), &mut said, |run| run.train(&shop.artifact()));
    let metrics = artifact.expect("trained").summary.metrics;
    assert!(metrics["accuracy"] > metrics["majority"] + 0.1, "{metrics:#?}");
    assert!(metrics["auc"] > 0.85, "{metrics:#?}");
}

#[test]
fn embeddings_learn_by_adam_as_well() {
    let shop = Shop::open();
    let mut pipeline = shop.labelled();
    pipeline.model.embedding_optimizer = EmbeddingOptimizer::Adam;
    pipeline.model.embedding_rate = 0.005;
    let mut said = Vec::new();
    let artifact = with_run(&shop, &pipeline, &mut said, |run| run.train(&shop.artifact()));
    let metrics = artifact.expect("trained").summary.metrics;
    assert!(metrics["auc"] > 0.85, "{metrics:#?}");
}

#[test]
fn a_log_of_purchases_is_ranked_beside_popularity() {
    let shop = Shop::open();
    let mut said = Vec::new();
    let artifact = with_run(&shop, &shop.purchases(), &mut said, |run| run.train(&shop.artifact()));
    let metrics = artifact.expect("trained").summary.metrics;
    assert!((metrics["majority"] - 0.8).abs() < 0.01, "four negatives beside each purchase: {metrics:#?}");
    for name in
        ["popularity_new_auc", "recent_popularity_all_recall_at_20", "all_hit_at_10", "new_ndcg_at_10"]
    {
        assert!(metrics[name] > 0.0 && metrics[name] < 1.0, "{name}: {metrics:#?}");
    }
    assert!(metrics["new_auc"] > metrics["popularity_new_auc"], "{metrics:#?}");
}

#[test]
fn what_the_past_says_is_learnt_served_and_published_with_its_tables() {
    let shop = Shop::open();
    let (publication, said) = run(&shop, &shop.remembering());
    let (_, folder) = publication.expect("a run").published.expect("published");
    for file in ["item_id.history", "user_id.item_id.history", "alike.affinity"] {
        assert!(folder.join(Manifest::FEATURES).join(file).is_file(), "{file}");
    }
    // The proof compares scores of raw rows, encoded with the tables as read back, with the trainer's own.
    assert!(said.iter().any(|line| line.contains("ONNX Runtime agrees")), "{said:#?}");
    let manifest = std::fs::read_to_string(folder.join(Manifest::FILE)).expect("a manifest");
    assert!(manifest.contains("features/alike.affinity"), "{manifest}");
}

#[test]
fn cross_layers_make_it_another_kind_of_model() {
    let shop = Shop::open();
    let mut pipeline = shop.labelled();
    pipeline.model.cross_layers = 1;
    let (publication, said) = run(&shop, &pipeline);
    let (_, folder) = publication.expect("a run").published.expect("published");
    assert!(said.iter().any(|line| line.contains("ONNX Runtime agrees")), "{said:#?}");
    let manifest = std::fs::read_to_string(folder.join(Manifest::FILE)).expect("a manifest");
    assert!(manifest.contains("kind = \"dcn_v2\""), "{manifest}");
}

#[test]
fn two_towers_are_learnt_ranked_and_published() {
    let shop = Shop::open();
    let mut pipeline = shop.purchases();
    pipeline.model.architecture = Some(Architecture::TwoTower);
    pipeline.model.output_dimension = Some(8);
    let (publication, said) = run(&shop, &pipeline);
    let (version, folder) = publication.expect("a run").published.expect("published");
    assert!(said.iter().any(|line| line.contains("ONNX Runtime agrees")), "{said:#?}");
    let manifest = Manifest::read(&folder, &pipeline.publish.model, version).expect("a manifest");
    assert_eq!(manifest.kind, "two_tower");
    let metrics = &manifest.metrics;
    assert!(metrics["new_auc"] > metrics["popularity_new_auc"] + 0.02, "{metrics:#?}");
    for file in ["user_tower.onnx", "item_tower.onnx"] {
        assert!(manifest.files.contains_key(file), "{file}");
    }
}

#[test]
fn a_seed_gives_the_same_version_byte_for_byte() {
    let version = || {
        let shop = Shop::open();
        let mut said = Vec::new();
        let artifact = with_run(&shop, &shop.labelled(), &mut said, |run| run.train(&shop.artifact()));
        let folder = artifact.expect("trained").version();
        let files = contents(&folder).into_iter();
        let relative = |(path, bytes): (std::path::PathBuf, Vec<u8>)| {
            (path.strip_prefix(&folder).expect("below the folder").to_path_buf(), bytes)
        };
        files.map(relative).collect::<Vec<_>>()
    };
    assert!(version() == version(), "two runs of one seed differ");
}

#[test]
fn golden_rows_hold_real_ids_and_a_stranger() {
    let shop = Shop::open();
    let (publication, said) = run(&shop, &shop.labelled());
    let (_, folder) = publication.expect("a run").published.expect("published");
    let golden = Golden::read(&folder).expect("golden rows");
    assert!(golden.input.len() >= 16 && golden.tolerance > 0.0);
    let encoder = millrace::features::Encoder::read(&folder.join(Manifest::FEATURES)).expect("features");
    let rows = golden.encode(&encoder).expect("rows");
    let millrace::tensor::Values::I32(ids) = rows.columns()[0].values() else { panic!("ids are integers") };
    assert_eq!(ids.chunks_exact(2).filter(|row| row[0] == 0).count(), 1, "{ids:?}");
    assert!(said.iter().any(|line| line.contains("ONNX Runtime agrees on 4800 rows")), "{said:#?}");
}
