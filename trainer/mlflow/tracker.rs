//! One run as the tracking server sees it.
//!
//! What goes wrong at the start ends the run, before anything was spent on it. Later a run is worth more than what is
//! told of it: the failure is said, and the rest goes untold.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use millrace::repository::{ModelName, manifest::Manifest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    client::{Client, ClientError},
    parameters::{fitting_key, fitting_value, parameters},
    settings::Settings,
};
use crate::{
    artifact::{Artifact, REPORT_HTML, REPORT_JSON, SUMMARY, VERSION},
    config::Pipeline,
    progress::{Progress, Step},
    publish::Publication,
    train::EpochReport,
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

/// What is tracked.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// The text that it was read from.
    pub text: &'a str,
    /// The artifact's folder, where the run is noted.
    pub folder: &'a Path,
    /// Whether the run that is noted there goes on, if there is one, and not a new one begins.
    pub goes_on: bool,
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
    model: ModelName,
    /// What the artifact's figures belong to; `None` once telling failed.
    run: Option<TrackedRun>,
}

/// The run on the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TrackedRun {
    tracking_uri: String,
    run_id: String,
    /// Where the server keeps the run's artifacts, below all of them.
    artifacts: String,
    /// Whether the server has the artifact.
    has_artifact: bool,
}

impl<'a> Tracker<'a> {
    /// Begins a run on the server, or goes on with one.
    pub fn start(
        settings: Settings,
        subject: Subject<'_>,
        inner: &'a mut dyn Progress,
    ) -> Result<Self, TrackError> {
        let experiment = settings.experiment.clone();
        let client = Client::new(settings);
        let model = subject.pipeline.publish.model.clone();
        let known = if subject.goes_on { TrackedRun::find(&client, subject.folder)? } else { None };
        let run = match known {
            Some(run) => run,
            None => begin(&client, experiment.as_deref().unwrap_or(model.as_str()), subject)?,
        };
        run.note(subject.folder)?;
        inner.say(&format!("MLflow: run {} at {}", run.run_id, client.uri()));
        Ok(Self { inner, client, model, run: Some(run) })
    }

    /// Tells how the run ended.
    pub fn end(mut self, end: End) {
        let status = match end {
            End::Finished => "FINISHED",
            End::Failed => "FAILED",
            End::Killed => "KILLED",
        };
        self.tell(|client, run| {
            let body = json!({ "run_id": run.run_id, "status": status, "end_time": now() });
            client.post("runs/update", &body)?;
            Ok(())
        });
    }

    /// Does `telling`, unless that failed before; where it fails, that is said, and nothing more is told.
    fn tell(&mut self, telling: impl FnOnce(&Client, &mut TrackedRun) -> Result<(), TrackError>) {
        let Some(run) = &mut self.run else { return };
        if let Err(error) = telling(&self.client, run) {
            self.run = None;
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
        self.tell(|client, run| send_artifact(client, run, artifact));
    }

    fn published(&mut self, artifact: &Artifact, publication: &Publication) {
        self.inner.published(artifact, publication);
        let model = self.model.clone();
        self.tell(|client, run| {
            if !run.has_artifact {
                send_artifact(client, run, artifact)?;
            }
            let verdicts = publication.verdicts.iter().map(|verdict| {
                let outcome = if verdict.passed { "passed" } else { "refused" };
                tag(&format!("gate.{}", verdict.gate), &format!("{outcome}: {}", verdict.reason))
            });
            log(client, run, "tags", &verdicts.collect::<Vec<_>>())?;
            let Some((version, folder)) = &publication.published else { return Ok(()) };
            let manifest = folder.join(Manifest::FILE);
            client.put(&format!("{}/{VERSION}/{}", run.artifacts, Manifest::FILE), &manifest)?;
            register(client, run, &model, &version.to_string())
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
        let run: Self = serde_json::from_slice(&text).map_err(io::Error::from).map_err(failed)?;
        if run.tracking_uri != client.uri() {
            return Ok(None);
        }
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
        let write = || {
            fs::create_dir_all(folder)?;
            fs::write(&file, serde_json::to_vec(self)?)
        };
        write().map_err(|source| TrackError::Note { file: file.clone(), source })
    }
}

/// Begins a run in the experiment.
fn begin(client: &Client, experiment: &str, subject: Subject<'_>) -> Result<TrackedRun, TrackError> {
    let Subject { pipeline, text, .. } = subject;
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
        has_artifact: false,
    };
    let parameters = of_run(pipeline, parameters(&text.parse().unwrap_or_default()));
    let parameters: Vec<_> = parameters.iter().map(|(key, value)| pair(key, value)).collect();
    log(client, &run, "params", &parameters)?;
    Ok(run)
}

/// The `parameters` of a pipeline's file with what the command line changed.
fn of_run(pipeline: &Pipeline, mut parameters: Vec<(String, String)>) -> Vec<(String, String)> {
    let changed = [
        ("seed", pipeline.seed.to_string()),
        ("publish.repository", pipeline.publish.repository.display().to_string()),
    ];
    let is_used = |history: &str| {
        let mut used = pipeline.histories.iter();
        used.any(|used| history.strip_prefix(&*used.name).is_some_and(|rest| rest.starts_with('.')))
    };
    parameters.retain(|(key, _)| {
        changed.iter().all(|(changed, _)| changed != key)
            && key.strip_prefix("features.history.").is_none_or(is_used)
    });
    parameters.extend(changed.map(|(key, value)| (key.to_owned(), value)));
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

/// Sends the figures, what the model came from, and the files, but for the held-out rows, which are users'.
fn send_artifact(client: &Client, run: &mut TrackedRun, artifact: &Artifact) -> Result<(), TrackError> {
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
    let version = artifact.version();
    let mut files = vec![];
    list(&version, VERSION, &mut files).map_err(|source| ClientError::File { file: version, source })?;
    let reports =
        [SUMMARY, REPORT_HTML, REPORT_JSON].map(|name| (name.to_owned(), artifact.folder.join(name)));
    // An artifact of another time may lack a report.
    files.extend(reports.into_iter().filter(|(_, file)| file.exists()));
    for (path, file) in files {
        client.put(&format!("{}/{path}", run.artifacts), &file)?;
    }
    run.has_artifact = true;
    run.note(&artifact.folder)
}

/// The files below `folder`, by their paths below `path`.
fn list(folder: &Path, path: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &path, files)?;
        } else {
            files.push((path, entry.path()));
        }
    }
    Ok(())
}

/// Makes what the repository has as `version` a version of the registered model.
fn register(client: &Client, run: &TrackedRun, model: &ModelName, version: &str) -> Result<(), TrackError> {
    match client.create("registered-models/create", &json!({ "name": model.as_str() })) {
        Err(error) if error.is("RESOURCE_ALREADY_EXISTS") => {}
        made => drop(made?),
    }
    let body = json!({
        "name": model.as_str(),
        "source": format!("mlflow-artifacts:/{}/{VERSION}", run.artifacts),
        "run_id": run.run_id,
        "description": format!("Version {version} in the model repository."),
        "tags": [tag("version", version)],
    });
    client.create("model-versions/create", &body)?;
    log(client, run, "tags", &[tag("version", version)])
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
