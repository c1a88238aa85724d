//! A table without users, items and times: the census extract Adult, where the data is there.

use millrace_trainer::{
    checkpoint::CheckpointOptions,
    config::{GatesConfig, ModelConfig, Pipeline},
    pipeline::Run,
};
use time::OffsetDateTime;

#[test]
fn a_table_is_learnt_and_published_without_users_items_and_times() {
    let root = crate::workspace();
    let table = root.join("../shared/data/adult_train.csv");
    if !table.exists() {
        eprintln!("skipped: {} is not there", table.display());
        return;
    }
    let mut pipeline = Pipeline::read(&root.join("trainer/pipelines/adult.toml")).expect("the pipeline");
    let repository = tempfile::tempdir().expect("a temporary folder");
    pipeline.publish.repository = repository.path().to_path_buf();
    pipeline.split.validation_share = 0.0;
    pipeline.gates = GatesConfig { accuracy: 0.84, ..pipeline.gates };
    pipeline.model = ModelConfig { epochs: 1, ..pipeline.model };
    let (folder, runtime) = (repository.path().join("artifact"), crate::runtime());
    let checkpoints = CheckpointOptions::default();
    let mut run = Run { pipeline: &pipeline, log: &table, runtime: &runtime, checkpoints, say: &mut |_| {} };
    let artifact = run.train(&folder).expect("trained");
    let publication = run.publish(&artifact, OffsetDateTime::UNIX_EPOCH).expect("judged");
    // Every row of both files counts, those with missing values among them.
    assert_eq!((artifact.summary.lineage.rows, artifact.holdout.label.len()), (32_561, 16_281));
    assert_eq!(
        artifact.holdout.input[0].len(),
        pipeline.features.iter().filter(|f| f.from.is_none()).count()
    );
    let metrics = artifact.summary.metrics;
    assert!((metrics["majority"] - 0.7638).abs() < 1e-4, "{metrics:#?}");
    assert!(metrics["auc"] > 0.89 && metrics["accuracy"] > 0.84, "{metrics:#?}");
    assert!(!metrics.keys().any(|name| name.contains("recall")), "there is nothing to rank: {metrics:#?}");
    assert!(publication.published.is_some(), "{:?}", publication.verdicts);
}
