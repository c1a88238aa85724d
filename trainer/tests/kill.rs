//! Kills the program itself, with the signal that nothing can catch, in the middle of training and of publishing.

use std::{fs, process::Command, thread, time::Duration};

use millrace::repository::{Layout, ModelName, manifest::Manifest};
use millrace_trainer::random::{Purpose, random};
use rand::Rng;

use crate::site::{Site, finish, kill, pipeline, runs_until};

/// How often each of the two is killed.
const KILLS: usize = 100;

#[test]
fn a_training_that_is_killed_again_and_again_ends_with_the_model_of_an_undisturbed_one() {
    let site = Site::new();
    finish(site.train("undisturbed"));
    let expected = site.version("undisturbed");
    assert!(expected.iter().any(|(path, _)| path.ends_with("model.onnx")));
    let mut random = random(7, Purpose::Training, 0);
    let checkpoint = site.path("killed").join("checkpoint");
    let written = || fs::metadata(&checkpoint).and_then(|file| file.modified()).ok();
    let (mut kills, mut ends) = (0, 0);
    loop {
        let before = written();
        let mut child = site.train("killed");
        // Once it has gone on from where it was, it is killed at any moment of what follows.
        let goes_on = runs_until(&mut child, || written() != before);
        thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        if goes_on && kills < KILLS && checkpoint.exists() {
            kill(child);
            kills += 1;
            continue;
        }
        let said = finish(child);
        assert!(before.is_none() || said.contains("going on with"), "{said}");
        assert!(site.version("killed") == expected, "after {kills} kills it is another model");
        assert!(!checkpoint.exists(), "nothing is left to go on with");
        ends += 1;
        if kills == KILLS {
            break;
        }
    }
    eprintln!("{kills} kills in {ends} trainings");
}

#[test]
fn a_publisher_that_is_killed_leaves_whole_versions_or_none() {
    let site = Site::new();
    finish(site.train("artifact"));
    let (layout, model) = (Layout::new(site.path("models")), "shop".parse::<ModelName>().expect("a name"));
    let folder = layout.root().join("shop");
    let staged = || {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).any(|name| name == ".stage")
    };
    let mut random = random(7, Purpose::Training, 0);
    let (mut kills, mut halves) = (0, 0);
    while kills < KILLS {
        let mut child = site.start("publish", "artifact", &[]);
        // What an earlier one left goes first.
        let left = staged();
        let begins = (!left || runs_until(&mut child, || !staged())) && runs_until(&mut child, staged);
        thread::sleep(Duration::from_micros(random.random_range(0..3_000)));
        if begins && child.try_wait().expect("a child").is_none() {
            kill(child);
            kills += 1;
            halves += usize::from(staged());
        } else {
            finish(child);
        }
        for version in layout.versions(&model).expect("listed") {
            let folder = layout.version(&model, version);
            let manifest = Manifest::read(&folder, &model, version).expect("a whole manifest");
            manifest.verify(&folder).expect("every file as published");
        }
    }
    assert!(halves >= KILLS / 10, "{halves} publishers were killed at their work");
    let before = layout.versions(&model).expect("listed").len();
    finish(site.start("publish", "artifact", &[]));
    assert_eq!(layout.versions(&model).expect("listed").len(), before + 1);
    assert!(!staged(), "the next one clears up");
    eprintln!("{kills} kills, {halves} with half a version on the disk, {before} versions");
}

#[test]
fn a_checkpoint_of_another_training_or_a_damaged_one_is_refused_by_name() {
    let site = Site::new();
    let checkpoint = site.path("artifact").join("checkpoint");
    let mut child = site.train("artifact");
    assert!(runs_until(&mut child, || checkpoint.exists()));
    kill(child);
    let refusal = || {
        let output = site.train("artifact").wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let other = pipeline().replace("seed = 7", "seed = 8");
    fs::write(site.path("pipeline.toml"), other).expect("written");
    let said = refusal();
    assert!(said.contains("is of another pipeline") && said.contains("--restart"), "{said}");
    fs::write(site.path("pipeline.toml"), pipeline()).expect("written");
    let mut bytes = fs::read(&checkpoint).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&checkpoint, &bytes).expect("written");
    let said = refusal();
    assert!(said.contains("is damaged"), "{said}");
    fs::write(&checkpoint, &bytes[..middle]).expect("written");
    let said = refusal();
    assert!(said.contains("is damaged"), "{said}");
    finish(site.start("train", "artifact", &["--restart"]));
}

#[cfg(unix)]
#[test]
fn an_interrupted_training_says_so_and_goes_on() {
    let site = Site::new();
    finish(site.train("undisturbed"));
    let checkpoint = site.path("artifact").join("checkpoint");
    let mut child = site.start("train", "artifact", &[]);
    assert!(runs_until(&mut child, || checkpoint.exists()));
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // The signal may come when the last epoch is done.
    if output.status.code() == Some(130) {
        assert!(said.contains("the same command goes on"), "{said}");
        assert!(finish(site.start("train", "artifact", &[])).contains("going on with"));
    }
    assert!(site.version("artifact") == site.version("undisturbed"), "{said}");
}
