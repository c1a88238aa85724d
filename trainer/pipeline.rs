//! The whole way from a log to a published version, as the composition of the other modules: read, split, fit, train,
//! evaluate, export, check; then gate and publish.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use millrace::{
    engine::OnnxRuntime,
    features::CatalogueError,
    repository::{
        golden::Golden,
        manifest::{self, Lineage, Manifest},
        reference,
    },
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::{
    artifact::{self, Artifact, ArtifactError, Holdout, REPORT_HTML, REPORT_JSON, Summary},
    calendar,
    check::{self, CheckError, Opened},
    checkpoint::{CheckpointError, CheckpointOptions, Checkpoints},
    config::Pipeline,
    evaluate::{self, EvaluateError, EvaluateOptions, RowFigures},
    examples::{self, Example},
    fit::FitError,
    log::{self, Feedback, Log, LogError, LogFile},
    onnx::{self, ExportError},
    popularity::Popularity,
    precision::{self, PrecisionError},
    progress::{Progress, Step, Work},
    publish::{self, Judgement, Publication, PublishError},
    purchases::Purchases,
    random::{Purpose, random},
    ranking::{BothFigures, RankingTask},
    reference::TrainingSample,
    split::{EmptySplit, Split},
    train::{self, TrainError, Trained},
};

/// Which step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Reading the log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Hashing the log.
    #[error("the log {file}: cannot be read")]
    Hash {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Splitting it.
    #[error(transparent)]
    Split(#[from] EmptySplit),
    /// Finding an earlier training's checkpoint, or removing it.
    #[error("the checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// Training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Evaluating.
    #[error(
        "the rows of the test period are all positive or all negative, and nothing can be judged by them: move \
         the split, or draw negatives"
    )]
    OneLabel,
    /// Exporting the model.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Writing the artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The items of the log are no catalogue.
    #[error("the items to recommend")]
    Catalogue(#[source] CatalogueError),
    /// Writing the features.
    #[error("the features cannot be written")]
    Features(#[source] io::Error),
    /// Measuring the training rows.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// Writing what the training rows look like.
    #[error("reference.json cannot be written")]
    Reference(#[source] io::Error),
    /// Checking what was exported.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// Adding half precision.
    #[error(transparent)]
    Precision(#[from] PrecisionError),
    /// Reporting on what was trained.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Telling somebody of the run.
    #[error("the run cannot be tracked; without MLFLOW_TRACKING_URI it goes on untracked")]
    Progress(#[source] Box<dyn Error + Send + Sync>),
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Somebody asked for an end before the gates were asked.
    #[error("interrupted; nothing is published")]
    Interrupted,
}

/// One run of a pipeline.
pub struct Run<'a> {
    /// What to do.
    pub pipeline: &'a Pipeline,
    /// The log, in place of the path that the pipeline names.
    pub log: &'a Path,
    /// What the exported model is checked with.
    pub runtime: &'a OnnxRuntime,
    /// How a training that is killed goes on.
    pub checkpoints: CheckpointOptions<'a>,
    /// Hears what is being done.
    pub progress: &'a mut dyn Progress,
}

impl Run<'_> {
    /// Trains a version, judges it and leaves it in `folder`. Where an earlier call was killed there, it goes on.
    pub fn train(&mut self, folder: &Path) -> Result<Artifact, PipelineError> {
        let feedback = self.feedback()?;
        let sources = self.sources(feedback.as_ref())?;
        let mut checkpoints = Checkpoints::new(folder, self.training(&sources), self.checkpoints)?;
        let found = checkpoints.find()?.map(|found| found.position);
        let (LogFile { log, dropped }, split) = self.read(feedback.as_ref())?;
        self.tell(format_args!("read {} rows, dropped {dropped}", log.len()));
        self.tell(describe(&log, &split));
        let examples = self.held_out(&log, &split)?;
        self.go_on()?;
        self.progress.begins(folder, found.is_some()).map_err(PipelineError::Progress)?;
        if let Some(position) = found {
            self.tell(format_args!("going on with {position}"));
        }
        let trained = self.fit(&log, &split, &mut checkpoints)?;
        let holdout = hold_out(&log, &examples, &trained);
        let scores = trained.score(&log, &examples)?;
        let metrics = self.evaluate(&log, &split, &trained, (&scores, &holdout.label))?;
        let version = artifact::prepare(folder)?;
        self.export(&trained, &version, &holdout, &scores)?;
        self.list(&trained, &log, &split, &version)?;
        self.refer(&log, &split, &trained, &version)?;
        let lineage = self.lineage(&log, &split, &sources);
        let kind = self.pipeline.model.kind().to_owned();
        let summary = Summary { kind, metrics, lineage, epochs: trained.epochs };
        let mut artifact = Artifact { folder: folder.to_path_buf(), summary, holdout };
        let export = self.pipeline.export;
        if export.fp16 {
            self.tell(precision::add_half(&mut artifact, self.runtime, export.max_inline_bytes)?);
        }
        self.report(&artifact)?;
        artifact.write()?;
        checkpoints.finish()?;
        self.progress.trained(&artifact);
        Ok(artifact)
    }

    /// Judges the artifact and publishes it, if the gates let it.
    pub fn publish(
        &mut self,
        artifact: &Artifact,
        now: OffsetDateTime,
    ) -> Result<Publication, PipelineError> {
        self.go_on()?;
        self.progress.begins(&artifact.folder, true).map_err(PipelineError::Progress)?;
        let judgement = self.ask(artifact)?;
        self.go_on()?;
        let publication = publish::publish(artifact, &self.pipeline.publish, judgement, now)?;
        match &publication.published {
            Some((version, folder)) => self.progress.published(artifact, *version, folder),
            None => self.tell("not published"),
        }
        Ok(publication)
    }

    /// Judges the artifact as [`Run::publish`] would, and changes nothing. Whether it would be published.
    pub fn judge(&mut self, artifact: &Artifact) -> Result<bool, PipelineError> {
        self.go_on()?;
        let judgement = self.ask(artifact)?;
        self.tell(if judgement.passed() { "would be published" } else { "would not be published" });
        Ok(judgement.passed())
    }

    /// Fails where a version could not be published, whatever it is like. Nothing is left behind.
    pub fn check_repository(&self) -> Result<(), PipelineError> {
        Ok(publish::check_repository(&self.pipeline.publish)?)
    }

    /// Asks the gates.
    fn ask(&mut self, artifact: &Artifact) -> Result<Judgement, PipelineError> {
        let Pipeline { publish: config, gates, .. } = self.pipeline;
        let judgement = publish::judge(artifact, config, gates, self.runtime)?;
        self.progress.judged(&judgement.verdicts);
        Ok(judgement)
    }

    /// Fails where somebody asked for an end.
    fn go_on(&self) -> Result<(), PipelineError> {
        if self.checkpoints.stop.load(Ordering::Relaxed) { Err(PipelineError::Interrupted) } else { Ok(()) }
    }

    fn tell(&mut self, line: impl std::fmt::Display) {
        self.progress.say(&line.to_string());
    }

    fn read(&mut self, feedback: Option<&Feedback>) -> Result<(LogFile, Split), PipelineError> {
        let Pipeline { data, features, seed, .. } = self.pipeline;
        if let Some(test) = &data.test_path {
            let test = self.log.with_file_name("").join(test);
            let (file, training) = log::read_table((self.log, &test), data, features, *seed, self.progress)?;
            let split = Split::of_table(training, file.log.len() - training, &self.pipeline.split)?;
            return Ok((file, split));
        }
        let measured = self.pipeline.measured();
        let file = log::read_with(self.log, feedback, data, features, &measured, self.progress)?;
        let split = Split::new(&file.log.times, &self.pipeline.split)?;
        Ok((file, split))
    }

    fn fit(
        &mut self,
        log: &Log,
        split: &Split,
        checkpoints: &mut Checkpoints<'_>,
    ) -> Result<Trained, PipelineError> {
        let trained = train::train(log, split, self.pipeline, checkpoints, self.progress)?;
        let shape = trained.model.shape();
        self.tell(format_args!(
            "trained for {} epochs: {} table rows, {} of them with an embedding",
            trained.epochs, shape.wide_rows, shape.deep_rows
        ));
        Ok(trained)
    }

    /// The examples of the test period, which must be of both kinds.
    fn held_out(&self, log: &Log, split: &Split) -> Result<Vec<Example>, PipelineError> {
        let mut draws = random(self.pipeline.seed, Purpose::Test, 0);
        let (training, test) = (split.training(), split.test.clone());
        let examples = examples::held_out(log, training, test, &self.pipeline.examples, &mut draws);
        let positives = examples.iter().filter(|example| example.label).count();
        if (1..examples.len()).contains(&positives) { Ok(examples) } else { Err(PipelineError::OneLabel) }
    }

    fn evaluate(
        &mut self,
        log: &Log,
        split: &Split,
        trained: &Trained,
        (scores, labels): (&[f32], &[bool]),
    ) -> Result<BTreeMap<String, f64>, PipelineError> {
        let figures = RowFigures::of(scores, labels).ok_or(PipelineError::OneLabel)?;
        self.tell(figures);
        let mut metrics = figures.metrics();
        if log.labels.is_none() {
            metrics.extend(self.rank(log, split, trained)?);
        }
        Ok(metrics)
    }

    /// Ranks every item for every customer, by the model and by the baselines.
    fn rank(
        &mut self,
        log: &Log,
        split: &Split,
        trained: &Trained,
    ) -> Result<BTreeMap<String, f64>, PipelineError> {
        let (training, test) = (split.training(), split.test.clone());
        let task = RankingTask::new(log, training.clone(), test, self.pipeline.seed);
        self.tell(format_args!("ranking {} items for {} customers", task.items(), task.customers()));
        let known = Purchases::of(log, training.clone());
        let (mut done, of) = (0, Some(task.customers() as u64));
        let model = task.judge(|user, items| {
            done += 1;
            self.progress.step(Step { work: Work::Ranking, done, of });
            trained.score(log, &candidates(&known, user, items))
        })?;
        let year = Popularity::of(log, training.clone());
        let month = Popularity::of_last_days(log, training, RECENT_DAYS);
        let judge = |baseline: Popularity| task.judge(|_, items| Ok::<_, TrainError>(baseline.score(items)));
        let mut metrics = BTreeMap::new();
        for (prefix, figures) in
            [("", model), ("popularity_", judge(year)?), ("recent_popularity_", judge(month)?)]
        {
            let name = if prefix.is_empty() { "model_" } else { prefix };
            self.tell(format_args!("{name:<18} {figures}"));
            metrics.extend(named(prefix, &figures));
        }
        Ok(metrics)
    }

    /// Writes the version's files and proves that they answer what the trainer computed.
    fn export(
        &mut self,
        trained: &Trained,
        version: &Path,
        holdout: &Holdout,
        scores: &[f32],
    ) -> Result<(), PipelineError> {
        let sides = trained.sides(self.pipeline);
        onnx::export(&trained.model, sides.as_ref(), version, self.pipeline.export.max_inline_bytes)?;
        let features = version.join(Manifest::FEATURES);
        trained.features.encoder().write(&features).map_err(PipelineError::Features)?;
        let mut opened = Opened::open(self.runtime, version)?;
        let largest = opened.compare(holdout, scores)?;
        let sent: Vec<_> = trained.features.encoder().sent().map(|feature| feature.kind.raw()).collect();
        let input = check::golden_input(holdout, &sent);
        let mut golden = Golden { tolerance: check::TOLERANCE, input, output: Vec::new() };
        let rows = golden.encode(trained.features.encoder()).map_err(CheckError::from)?;
        golden.output = trained.model.score(&rows);
        check::write_golden(&mut opened, version, &golden)?;
        self.tell(format_args!(
            "exported; ONNX Runtime agrees on {} rows within {largest:.1e}",
            holdout.label.len()
        ));
        Ok(())
    }

    /// Writes down what the version can recommend, where the log says what was there.
    fn list(
        &mut self,
        trained: &Trained,
        log: &Log,
        split: &Split,
        version: &Path,
    ) -> Result<(), PipelineError> {
        let item = self.pipeline.data.item.as_deref();
        let catalogue = trained.features.catalogue(log, split.training(), item);
        let Some(catalogue) = catalogue.map_err(PipelineError::Catalogue)? else { return Ok(()) };
        catalogue.write(version, trained.features.encoder()).map_err(PipelineError::Features)?;
        let (listed, all) = (catalogue.len(), Purchases::of(log, split.training()).items().len());
        self.tell(format_args!("listed {listed} of {all} items to recommend"));
        Ok(())
    }

    /// What servers exported, where the pipeline asks for it.
    fn feedback(&self) -> Result<Option<Feedback>, PipelineError> {
        let Pipeline { data, publish, .. } = self.pipeline;
        let folder = data.feedback.as_ref().map(|folder| self.log.with_file_name("").join(folder));
        Ok(folder.map(|folder| Feedback::find(&folder, publish.model.as_str())).transpose()?)
    }

    /// The SHA-256 of each file that is read, the log first.
    fn sources(&self, feedback: Option<&Feedback>) -> Result<Vec<String>, PipelineError> {
        let test = self.pipeline.data.test_path.as_ref().map(|test| self.log.with_file_name("").join(test));
        let feedback = feedback.map(|feedback| feedback.files.clone()).unwrap_or_default();
        let files = [self.log.to_path_buf()].into_iter().chain(test).chain(feedback);
        let hash = |file: PathBuf| sha256(&file).map_err(|source| PipelineError::Hash { file, source });
        files.map(hash).collect()
    }

    /// What decides the model: the same for the same pipeline, files and build of the trainer.
    fn training(&self, sources: &[String]) -> [u8; 32] {
        let Pipeline { seed, data, split, examples, features, crosses, histories, model, .. } = self.pipeline;
        let pipeline = format!("{:?}", (seed, data, split, examples, features, crosses, histories, model));
        let build = [env!("CARGO_PKG_VERSION"), millrace::REVISION];
        let mut hasher = Sha256::new();
        for part in [pipeline.as_str()].into_iter().chain(build).chain(sources.iter().map(String::as_str)) {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// Writes what the training rows look like, and how the exported model scores them.
    fn refer(
        &self,
        log: &Log,
        split: &Split,
        trained: &Trained,
        version: &Path,
    ) -> Result<(), PipelineError> {
        let sample = TrainingSample::draw(log, split.training(), self.pipeline, trained)?;
        let mut opened = Opened::open(self.runtime, version)?;
        let scores = artifact::score(&mut opened.engine, sample.rows()).map_err(CheckError::from)?;
        let reference = sample.reference(&scores, trained).map_err(CheckError::from)?;
        reference::write(&reference, version).map_err(PipelineError::Reference)
    }

    /// Leaves a report in the artifact.
    fn report(&mut self, artifact: &Artifact) -> Result<(), PipelineError> {
        let options = EvaluateOptions::new(OffsetDateTime::now_utc());
        let report = evaluate::evaluate(artifact, None, &options, self.runtime)?;
        let [html, json] = [REPORT_HTML, REPORT_JSON].map(|file| artifact.folder.join(file));
        evaluate::write(&report, &html, &json)?;
        self.tell(format_args!("wrote {REPORT_HTML} and {REPORT_JSON} into the artifact"));
        Ok(())
    }

    fn lineage(&self, log: &Log, split: &Split, sources: &[String]) -> Lineage {
        let training = log.times.get(split.training()).unwrap_or_default();
        let moment = |time: Option<&i64>| time.map(|&time| calendar::format(time)).unwrap_or_default();
        Lineage {
            source: self.log.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            source_sha256: sources[0].clone(),
            rows: split.training().len() as u64,
            from: moment(training.first()),
            to: moment(training.last()),
            seed: self.pipeline.seed,
            revision: millrace::REVISION.to_owned(),
            libraries: libraries(self.runtime),
        }
    }
}

/// The versions of what decides the numbers of a model.
fn libraries(runtime: &OnnxRuntime) -> BTreeMap<String, String> {
    let linked = env!("MILLRACE_LIBRARIES").split_whitespace().filter_map(|library| library.split_once('='));
    let all = [("millrace-trainer", env!("CARGO_PKG_VERSION")), ("onnxruntime", runtime.revision())];
    all.into_iter().chain(linked).map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

/// The held-out `examples` as raw rows.
fn hold_out(log: &Log, examples: &[Example], trained: &Trained) -> Holdout {
    let input = examples.iter().map(|example| trained.features.raw_row(log, example)).collect();
    let label = examples.iter().map(|example| example.label).collect();
    // A table has no users.
    let user = |example: &Example| log.users.codes().get(example.user_row as usize).copied();
    let user = examples.iter().filter_map(user).collect();
    Holdout { input, label, user }
}

/// The log that a pipeline names, looked for in `data` where that is given.
pub fn log_path(pipeline: &Pipeline, data: Option<&Path>) -> PathBuf {
    data.map_or_else(|| pipeline.data.path.clone(), |folder| folder.join(&pipeline.data.path))
}

/// The pairs of `user` with each of `items`, with the values that training last saw of both.
fn candidates(known: &Purchases, user: u32, items: &[u32]) -> Vec<Example> {
    let user_row = known.last_row_of_user(user).expect("only customers of the training rows are ranked for");
    let row = |item| known.last_row_of_item(item).expect("only items of the training rows are ranked");
    let example = |&item| Example { user_row, item_row: row(item), label: false, weight: 1.0 };
    items.iter().map(example).collect()
}

/// The figures by name, `new_` and `all_` apart.
fn named(prefix: &str, figures: &BothFigures) -> BTreeMap<String, f64> {
    let both = [("new", figures.new), ("all", figures.all)];
    let names = both.into_iter().flat_map(|(pairs, figures)| {
        [
            (format!("{prefix}{pairs}_auc"), figures.auc),
            (format!("{prefix}{pairs}_recall_at_20"), figures.recall_at_20),
            (format!("{prefix}{pairs}_hit_at_10"), figures.hit_at_10),
            (format!("{prefix}{pairs}_ndcg_at_10"), figures.ndcg_at_10),
        ]
    });
    names.collect()
}

fn describe(log: &Log, split: &Split) -> String {
    let from = |row: usize| {
        log.times.get(row).map_or_else(String::new, |&time| format!(" from {}", calendar::format(time)))
    };
    format!(
        "training on {} rows{}, validating on {} of them{}, testing on {}{}",
        split.training().len(),
        from(0),
        split.validation.len(),
        from(split.validation.start),
        split.test.len(),
        from(split.test.start)
    )
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(manifest::hex(&hasher.finalize()))
}

/// Lets a hash be written to.
struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The stretch of the second baseline.
const RECENT_DAYS: i64 = 30;
