//! The gates, with real versions in a real repository.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use millrace::repository::{Layout, VersionNumber, manifest::Manifest};
use millrace_trainer::{
    artifact::Artifact,
    config::{GatesConfig, Pipeline},
};
use time::OffsetDateTime;

use crate::shop::{Shop, contents, run, with_run};

#[test]
fn a_published_version_verifies_and_names_its_parent() {
    let shop = Shop::open();
    let pipeline = shop.labelled();
    let (first, said) = run(&shop, &pipeline);
    assert!(first.expect("a run").published.is_some(), "{said:#?}");
    let (second, said) = run(&shop, &pipeline);
    let (version, folder) = second.expect("a run").published.expect("published");
    assert_eq!(u64::from(version), 2);
    assert!(
        said.iter().any(|line| line.contains("live version 1 has") && line.contains("same rows")),
        "{said:#?}"
    );
    let manifest = Manifest::read(&folder, &pipeline.publish.model, version).expect("a manifest");
    manifest.verify(&folder).expect("every file as published");
    assert_eq!(manifest.parent, Some(VersionNumber::FIRST));
    assert_eq!(manifest.lineage.rows, 19_200);
    assert_eq!(manifest.kind, "wide_and_deep");
    for library in ["millrace-trainer", "onnxruntime", "ndarray", "parquet", "rand_xoshiro"] {
        assert!(manifest.lineage.libraries.contains_key(library), "{library}: {:?}", manifest.lineage);
    }
    for name in ["accuracy", "auc", "log_loss", "majority", "calibration_error"] {
        assert!(manifest.metrics.contains_key(name), "{name}");
    }
    for file in
        ["model.onnx", "golden.json", "reference.json", "features/schema.toml", "features/user_id.vocabulary"]
    {
        assert!(manifest.files.contains_key(file), "{file}");
    }
}

#[test]
fn files_that_two_versions_have_in_common_are_on_the_disk_once() {
    const FILE: &str = "model.onnx";
    let shop = Shop::open();
    let pipeline = shop.labelled();
    let publish = || run(&shop, &pipeline).0.expect("a run").published.expect("published");
    let inode = |version: &Path, file: &str| fs::metadata(version.join(file)).expect("there").ino();
    let ((_, first), (_, second)) = (publish(), publish());
    assert_eq!(inode(&first, FILE), inode(&second, FILE));
    for file in [Manifest::FILE, "golden.json"] {
        assert_ne!(inode(&first, file), inode(&second, file), "{file} is not worth it");
    }

    fs::remove_file(second.join(FILE)).expect("removed");
    let mut damaged = fs::read(first.join(FILE)).expect("read");
    damaged[1_000] ^= 1;
    fs::write(second.join(FILE), damaged).expect("written");
    let (version, third) = publish();
    assert_ne!(inode(&second, FILE), inode(&third, FILE));
    let manifest = Manifest::read(&third, &pipeline.publish.model, version).expect("a manifest");
    manifest.verify(&third).expect("what was damaged was not handed on");
}

#[test]
fn a_refused_version_leaves_no_trace_in_the_repository() {
    let shop = Shop::open();
    let mut pipeline = shop.labelled();
    pipeline.gates = GatesConfig { accuracy: 0.99, ..pipeline.gates };
    let (publication, said) = run(&shop, &pipeline);
    assert_eq!(publication.expect("a run").published, None);
    assert!(said.iter().any(|line| line.starts_with("gate accuracy refused")), "{said:#?}");
    assert!(!shop.repository().exists(), "not even a folder");
}

#[test]
fn a_version_that_is_worse_than_the_live_one_is_refused_and_the_live_one_stays_as_it_is() {
    let shop = Shop::open();
    run(&shop, &shop.labelled()).0.expect("a run").published.expect("published");
    let before = contents(&shop.repository());
    let (publication, said) = run(&shop, &shop.poor());
    assert_eq!(publication.expect("a run").published, None, "{said:#?}");
    assert!(said.iter().any(|line| line.starts_with("gate auc refused")), "{said:#?}");
    assert!(contents(&shop.repository()) == before, "the repository changed");
}

#[test]
fn a_dry_run_asks_the_gates_and_writes_nothing() {
    let shop = Shop::open();
    let pipeline = shop.labelled();
    let mut said = Vec::new();
    let passed = with_run(&shop, &pipeline, &mut said, |run| {
        let artifact = run.train(&shop.artifact()).expect("trained");
        run.judge(&artifact).expect("judged")
    });
    assert!(passed, "{said:#?}");
    for gate in ["golden", "accuracy", "auc", "calibration", "latency", "size"] {
        assert!(
            said.iter().any(|line| line.starts_with(&format!("gate {gate} passed"))),
            "{gate}: {said:#?}"
        );
    }
    assert_eq!(said.last().map(String::as_str), Some("would be published"));
    assert!(!shop.repository().exists(), "not even a folder");
}

#[test]
fn a_repository_that_cannot_be_written_to_is_found_before_anything_is_trained() {
    let shop = Shop::open();
    let mut pipeline = shop.labelled();
    let check =
        |pipeline: &Pipeline| with_run(&shop, pipeline, &mut Vec::new(), |run| run.check_repository());
    check(&pipeline).expect("it would be made");
    assert!(!shop.repository().exists(), "not even a folder");
    pipeline.publish.repository = shop.log().join("models");
    let error = check(&pipeline).expect_err("a file is no folder").to_string();
    assert!(error.contains("log.parquet/models"), "{error}");
}

#[test]
fn a_live_version_that_cannot_be_run_is_compared_by_its_manifest() {
    let shop = Shop::open();
    let pipeline = shop.labelled();
    let (_, folder) = run(&shop, &pipeline).0.expect("a run").published.expect("published");
    fs::remove_file(folder.join(Manifest::MODEL)).expect("removed");
    let mut said = Vec::new();
    let publication = with_run(&shop, &pipeline, &mut said, |run| {
        let artifact = Artifact::read(&shop.artifact()).expect("what training left");
        run.publish(&artifact, OffsetDateTime::UNIX_EPOCH)
    });
    let (version, _) = publication.expect("a run").published.expect("published");
    assert_eq!(u64::from(version), 2);
    assert!(said.iter().any(|line| line.contains("by its manifest")), "{said:#?}");
}

#[test]
fn a_candidate_whose_files_were_damaged_after_training_is_not_published() {
    let shop = Shop::open();
    let pipeline = shop.labelled();
    let mut said = Vec::new();
    let publication = with_run(&shop, &pipeline, &mut said, |run| {
        let artifact = run.train(&shop.artifact()).expect("trained");
        let vocabulary = artifact.version().join("features/item_id.vocabulary");
        let mut ids: Vec<String> =
            fs::read_to_string(&vocabulary).expect("there").lines().map(str::to_owned).collect();
        ids.reverse();
        fs::write(&vocabulary, ids.join("\n")).expect("written");
        run.publish(&artifact, OffsetDateTime::UNIX_EPOCH)
    });
    assert_eq!(publication.expect("judged").published, None, "{said:#?}");
    assert!(said.iter().any(|line| line.starts_with("gate golden refused: golden row 0")), "{said:#?}");
    let model = &pipeline.publish.model;
    assert_eq!(Layout::new(shop.repository()).versions(model).expect("listed"), []);
}
