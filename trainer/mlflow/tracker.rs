//! One run as the tracking server sees it.
//!
//! What goes wrong at the start ends the run, before anything was spent on it. Later a run is worth more than what is
//! told of it: the failure is said, and the rest goes untold, but for the end, which is tried once more.

use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use millrace::repository::{ModelName, VersionNumber};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    client::{Client, ClientError, patiently},
    parameters::{fitting_key, fitting_value, parameters},
    settings::Settings,
};
use crate::{
    artifact::{Artifact, REPORT_HTML, REPORT_JSON, SUMMARY},
    config::Pipeline,
    gate::Verdict,
    progress::{Progress, Step},
    train::EpochReport,
    whole_file,
};

/// Why a run cannot be tracked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// The server is not there, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The experiment was deleted.
    #[error("the experiment `{0}` is deleted: restore it, or name another one with MLFLOW_EXPERIMENT_NAME")]
    Deleted(String),
    /// Only what the server itself stores can be sent to it.
    #[error(
        "the server keeps artifacts at {0}, and does not take them itself: start it with --serve-artifacts"
    )]
    Artifacts(String),
    /// The note of the run in the artifact's folder.
    #[error("{file}: cannot be read or written")]
    Note {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It did what it was to do; a version that the gates refuse is no failure.
    Finished,
    /// It failed.
    Failed,
    /// It was interrupted.
    Killed,
}

/// Passes everything on to who else hears of a run, and tells the server of it.
pub struct Tracker<'a> {
    inner: &'a mut dyn Progress,
    client: Client,
    experiment: String,
    pipeline: &'a Pipeline,
    text: &'a str,
    /// There is none before the run begins.
    run: Option<TrackedRun>,
    /// Whether telling failed.
    is_lost: bool,
}

/// The run on the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TrackedRun {
    tracking_uri: String,
    run_id: String,
    /// Where the server keeps the run's artifacts, below all of them.
    artifacts: String,
    /// Whether the server has the artifact's figures.
    has_figures: bool,
}

impl<'a> Tracker<'a> {
    /// Will tell the server of the run of `pipeline`, which was read from `text`.
    pub fn new(
        settings: Settings,
        pipeline: &'a Pipeline,
        text: &'a str,
        inner: &'a mut dyn Progress,
    ) -> Self {
        let experiment = settings.experiment.clone();
        let experiment = experiment.unwrap_or_else(|| pipeline.publish.model.to_string());
        let client = Client::new(settings);
        Self { inner, client, experiment, pipeline, text, run: None, is_lost: false }
    }

    /// Tells how the run ended, if it began.
    pub fn end(self, end: End) {
        let Some(run) = &self.run else { return };
        let status = match end {
            End::Finished => "FINISHED",
            End::Failed => "FAILED",
            End::Killed => "KILLED",
        };
        let body = json!({ "run_id": run.run_id, "status": status, "end_time": now() });
        let told = self.client.post("runs/update", &body);
        if let (Err(error), false) = (told, self.is_lost) {
            let error = anyhow::Error::new(error);
            self.inner.say(&format!("MLflow: {error:#}; the end of this run is not tracked"));
        }
    }

    fn begin(&mut self, folder: &Path, goes_on: bool) -> Result<(), TrackError> {
        // First, so that no run is left on the server which cannot be noted here.
        fs::create_dir_all(folder)
            .map_err(|source| TrackError::Note { file: folder.to_path_buf(), source })?;
        let known = if goes_on { TrackedRun::find(&self.client, folder)? } else { None };
        let run = match known {
            Some(run) => run,
            None => begin(&self.client, &self.experiment, self.pipeline, self.text)?,
        };
        run.note(folder)?;
        self.inner.say(&format!("MLflow: run {} at {}", run.run_id, self.client.uri()));
        self.run = Some(run);
        Ok(())
    }

    /// Does `telling`, unless that failed before; where it fails, that is said, and nothing more is told.
    fn tell(&mut self, telling: impl FnOnce(&Client, &mut TrackedRun) -> Result<(), TrackError>) {
        let Some(run) = self.run.as_mut().filter(|_| !self.is_lost) else { return };
        if let Err(error) = telling(&self.client, run) {
            self.is_lost = true;
            let error = anyhow::Error::new(error);
            self.inner.say(&format!("MLflow: {error:#}; the rest of this run is not tracked"));
        }
    }
}

impl Progress for Tracker<'_> {
    fn say(&mut self, line: &str) {
        self.inner.say(line);
    }

    fn step(&mut self, step: Step) {
        self.inner.step(step);
    }

    fn begins(&mut self, folder: &Path, goes_on: bool) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.inner.begins(folder, goes_on)?;
        if self.run.is_none() { Ok(self.begin(folder, goes_on)?) } else { Ok(()) }
    }

    fn epoch(&mut self, report: &EpochReport) {
        self.inner.epoch(report);
        let loss = if report.is_final { "epoch_loss" } else { "choosing_epoch_loss" };
        let validation = report.validation_loss.map(|loss| ("validation_loss", loss));
        let metrics = [(loss, report.loss)].into_iter().chain(validation);
        let metrics: Vec<_> = metrics.filter_map(|(name, value)| metric(name, value, report.epoch)).collect();
        self.tell(|client, run| log(client, run, "metrics", &metrics));
    }

    fn trained(&mut self, artifact: &Artifact) {
        self.inner.trained(artifact);
        self.tell(|client, run| {
            send_figures(client, run, artifact)?;
            send_reports(client, run, artifact)
        });
    }

    fn judged(&mut self, verdicts: &[Verdict]) {
        self.inner.judged(verdicts);
        let verdicts: Vec<_> = verdicts
            .iter()
            .map(|verdict| {
                let outcome = if verdict.passed { "passed" } else { "refused" };
                tag(&format!("gate.{}", verdict.gate), &format!("{outcome}: {}", verdict.reason))
            })
            .collect();
        self.tell(|client, run| log(client, run, "tags", &verdicts));
    }

    fn published(&mut self, artifact: &Artifact, version: VersionNumber, folder: &Path) {
        self.inner.published(artifact, version, folder);
        let model = &self.pipeline.publish.model;
        self.tell(|client, run| {
            if !run.has_figures {
                send_figures(client, run, artifact)?;
            }
            // Other forms of the model may have been added since they were sent.
            send_reports(client, run, artifact)?;
            let place = format!("version-{version}");
            let files = files(folder, &place)
                .map_err(|source| ClientError::File { file: folder.to_path_buf(), source })?;
            send(client, run, files)?;
            register(client, run, model, version, &place)
        });
    }
}

impl TrackedRun {
    /// The run that is noted in `folder`, if it is of this server, which still has it.
    fn find(client: &Client, folder: &Path) -> Result<Option<Self>, TrackError> {
        let file = folder.join(NOTE);
        let failed = |source| TrackError::Note { file: file.clone(), source };
        let text = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(failed)?,
        };
        // A note that is damaged, as one is without space for it, is none.
        let run: Option<Self> = serde_json::from_slice(&text).ok();
        let Some(run) = run.filter(|run| run.tracking_uri == client.uri()) else { return Ok(None) };
        let body = json!({ "run_id": run.run_id, "status": "RUNNING" });
        match client.post("runs/update", &body) {
            // Somebody deleted it, from view or altogether.
            Err(error) if error.is("RESOURCE_DOES_NOT_EXIST") || error.is("INVALID_PARAMETER_VALUE") => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Some(run)),
        }
    }

    /// Notes it in `folder`, for the next command there.
    fn note(&self, folder: &Path) -> Result<(), TrackError> {
        let file = folder.join(NOTE);
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        let written = text.and_then(|text| whole_file::write(&file, |mut note| note.write_all(&text)));
        written.map_err(|source| TrackError::Note { file, source })
    }
}

/// Begins a run in the experiment.
fn begin(
    client: &Client,
    experiment: &str,
    pipeline: &Pipeline,
    text: &str,
) -> Result<TrackedRun, TrackError> {
    let tags = [
        ("mlflow.source.name", "millrace-trainer"),
        ("mlflow.source.type", "LOCAL"),
        ("mlflow.source.git.commit", millrace::REVISION),
    ];
    let answer = client.create(
        "runs/create",
        &json!({
            "experiment_id": find_experiment(client, experiment)?,
            "run_name": format!("{}, seed {}", pipeline.publish.model, pipeline.seed),
            "start_time": now(),
            "tags": tags.iter().map(|(key, value)| pair(key, value)).collect::<Vec<_>>(),
        }),
    )?;
    let uri = answer.text(&["run", "info", "artifact_uri"])?;
    let artifacts = served(uri).ok_or_else(|| TrackError::Artifacts(uri.to_owned()))?;
    let run_id = answer.text(&["run", "info", "run_id"])?.to_owned();
    let run = TrackedRun {
        tracking_uri: client.uri().to_owned(),
        run_id,
        artifacts: artifacts.to_owned(),
        has_figures: false,
    };
    let table = text.parse().expect("the pipeline was read from it");
    let parameters = of_run(pipeline, parameters(&table));
    let parameters: Vec<_> = parameters.iter().map(|(key, value)| pair(key, value)).collect();
    log(client, &run, "params", &parameters)?;
    Ok(run)
}

/// The `parameters` of a pipeline's file that say how its model comes about, with what the command line changed. The gates
/// and the repository are a publication's, and may be others then.
fn of_run(pipeline: &Pipeline, mut parameters: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_used = |history: &str| {
        let mut used = pipeline.histories.iter();
        used.any(|used| history.strip_prefix(&*used.name).is_some_and(|rest| rest.starts_with('.')))
    };
    let of_publication = |key: &str| key.starts_with("publish.") || key.starts_with("gates.");
    parameters.retain(|(key, _)| {
        key != "seed" && !of_publication(key) && key.strip_prefix("features.history.").is_none_or(is_used)
    });
    parameters.push(("seed".into(), pipeline.seed.to_string()));
    parameters
}

/// The id of the experiment, which is made where there is none.
fn find_experiment(client: &Client, name: &str) -> Result<String, TrackError> {
    let find = || client.get("experiments/get-by-name", ("experiment_name", name));
    let found = match find() {
        Err(error) if error.is("RESOURCE_DOES_NOT_EXIST") => {
            match client.create("experiments/create", &json!({ "name": name })) {
                // Somebody else was quicker.
                Err(error) if error.is("RESOURCE_ALREADY_EXISTS") => find()?,
                made => return Ok(made?.text(&["experiment_id"])?.to_owned()),
            }
        }
        found => found?,
    };
    if found.text(&["experiment", "lifecycle_stage"])? != "active" {
        return Err(TrackError::Deleted(name.to_owned()));
    }
    Ok(found.text(&["experiment", "experiment_id"])?.to_owned())
}

/// The path of a run's artifacts below all that the server keeps itself; `None` where it does not.
fn served(artifact_uri: &str) -> Option<&str> {
    let path = artifact_uri.strip_prefix("mlflow-artifacts:")?;
    let path = match path.strip_prefix("//") {
        Some(with_host) => with_host.split_once('/')?.1,
        None => path,
    };
    Some(path.trim_matches('/'))
}

/// Sends the figures and what the model came from.
fn send_figures(client: &Client, run: &mut TrackedRun, artifact: &Artifact) -> Result<(), TrackError> {
    let summary = &artifact.summary;
    let metrics = summary.metrics.iter().filter_map(|(name, &value)| metric(name, value, summary.epochs));
    log(client, run, "metrics", &metrics.collect::<Vec<_>>())?;
    let lineage = &summary.lineage;
    let tags = [
        ("kind", &summary.kind),
        ("source", &lineage.source),
        ("source_sha256", &lineage.source_sha256),
        ("rows", &lineage.rows.to_string()),
        ("from", &lineage.from),
        ("to", &lineage.to),
    ];
    let libraries = lineage.libraries.iter().map(|(name, version)| tag(&format!("library.{name}"), version));
    let tags = tags.into_iter().map(|(key, value)| tag(key, value)).chain(libraries);
    log(client, run, "tags", &tags.collect::<Vec<_>>())?;
    run.has_figures = true;
    run.note(&artifact.folder)
}

/// Sends what says how good the artifact is. The held-out rows stay: they are users'.
fn send_reports(client: &Client, run: &TrackedRun, artifact: &Artifact) -> Result<(), TrackError> {
    let reports =
        [SUMMARY, REPORT_HTML, REPORT_JSON].map(|name| (name.to_owned(), artifact.folder.join(name)));
    // An artifact of another time may lack one.
    send(client, run, reports.into_iter().filter(|(_, file)| file.exists()))
}

/// Sends files, each to its path among the run's artifacts.
fn send(
    client: &Client,
    run: &TrackedRun,
    files: impl IntoIterator<Item = (String, PathBuf)>,
) -> Result<(), TrackError> {
    for (path, file) in files {
        client.put(&format!("{}/{path}", run.artifacts), &file)?;
    }
    Ok(())
}

/// The files below `folder`, by their paths below `path`.
fn files(folder: &Path, path: &str) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path(), &path)?);
        } else {
            found.push((path, entry.path()));
        }
    }
    Ok(found)
}

/// Makes what the repository has as `version` a version of the registered model, whose files lie at `place`.
fn register(
    client: &Client,
    run: &TrackedRun,
    model: &ModelName,
    version: VersionNumber,
    place: &str,
) -> Result<(), TrackError> {
    match client.post("registered-models/create", &json!({ "name": model.as_str() })) {
        Err(error) if error.is("RESOURCE_ALREADY_EXISTS") => {}
        made => drop(made?),
    }
    let source = format!("mlflow-artifacts:/{}/{place}", run.artifacts);
    let body = json!({
        "name": model.as_str(),
        "source": source,
        "run_id": run.run_id,
        "description": format!("Version {version} in the model repository."),
        "tags": [tag("version", &version.to_string())],
    });
    patiently(|| {
        // An answer that got lost may have been a good one.
        let of_run = format!("run_id='{}'", run.run_id);
        let known = client.get("model-versions/search", ("filter", &of_run))?;
        let mut known = known.body()["model_versions"].as_array().into_iter().flatten();
        if known.any(|known| known["source"] == *source) {
            return Ok(());
        }
        client.create("model-versions/create", &body).map(drop)
    })?;
    log(client, run, "tags", &[tag("version", &version.to_string())])
}

/// Logs `entries`, which are all `params`, `metrics` or `tags`.
fn log(client: &Client, run: &TrackedRun, kind: &str, entries: &[Value]) -> Result<(), TrackError> {
    for entries in entries.chunks(MAX_ENTRIES) {
        client.post("runs/log-batch", &json!({ "run_id": run.run_id, kind: entries }))?;
    }
    Ok(())
}

/// A figure at `step`; `None` where it is no number.
fn metric(name: &str, value: f64, step: usize) -> Option<Value> {
    let metric = || json!({ "key": name, "value": value, "timestamp": now(), "step": step });
    value.is_finite().then(metric)
}

fn tag(key: &str, value: &str) -> Value {
    pair(&format!("millrace.{key}"), value)
}

fn pair(key: &str, value: &str) -> Value {
    json!({ "key": fitting_key(key), "value": fitting_value(value) })
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The file in an artifact's folder that says which run is its own.
const NOTE: &str = "mlflow.json";
/// Entries of one call: a server takes 100 parameters or tags.
const MAX_ENTRIES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_are_sent_where_the_server_takes_them() {
        assert_eq!(served("mlflow-artifacts:/1/abc/artifacts"), Some("1/abc/artifacts"));
        assert_eq!(served("mlflow-artifacts://host:5000/1/abc/artifacts"), Some("1/abc/artifacts"));
        assert_eq!(served("s3://bucket/1/abc/artifacts"), None);
        assert_eq!(served("/srv/mlruns/1/abc/artifacts"), None);
    }

    #[test]
    fn what_is_no_number_is_no_metric() {
        assert_eq!(metric("loss", f64::NAN, 1), None);
        assert_eq!(metric("loss", 0.5, 3).expect("a number")["step"], 3);
    }
}
