//! The repository and its watcher: what is published, withdrawn, damaged or asked for, and which version answers then.
//!
//! The watcher looks at the folders by itself once an hour here; tests have it look when they are ready.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    future::poll_fn,
    num::NonZeroUsize,
    path::Path,
    pin::pin,
    sync::Arc,
    task::Poll,
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use millrace::{
    batcher::{Priority, Terms},
    config::RawConfig,
    engine::{
        cuda::{Cuda, CudaOptions},
        tensorrt::TensorRt,
    },
    features::RawValue,
    metrics::Metrics,
    repository::{
        Layout, Live, Loader, ModelStatus, Policy, Reaper, Repository, Request, RequestError, Version,
        VersionNumber, VersionState, Watcher, manifest::Manifest,
    },
    tensor::Rows,
};

use crate::{
    artifact::{Artifact, Models},
    runtime,
};

/// A repository with the model `shop`, its watcher, and what is counted.
struct Shop {
    models: Models,
    repository: Option<Repository>,
    watcher: Option<JoinHandle<()>>,
    metrics: Arc<Metrics>,
}

impl Shop {
    /// A watched repository that holds `versions` of the model, numbered from 1.
    fn open(versions: &[Artifact]) -> Self {
        Self::with(Policy::Latest(1.try_into().expect("above zero")), versions)
    }

    fn with(policy: Policy, versions: &[Artifact]) -> Self {
        let models = Models::new();
        for (number, artifact) in (1..).zip(versions) {
            models.publish("shop", number, *artifact);
        }
        let raw = RawConfig {
            models_dir: Some(models.path().to_owned()),
            poll_interval_ms: Some(3_600_000),
            ..RawConfig::default()
        };
        let mut config = raw.parse().expect("a configuration");
        config.defaults.policy = policy;
        let metrics = Metrics::new("test");
        let (reaper, reaper_thread) = Reaper::new();
        thread::spawn(|| reaper_thread.run());
        let layout = Layout::new(models.path());
        let workers = NonZeroUsize::MIN;
        let cuda = Arc::new(Cuda::new(CudaOptions::default()));
        let tensorrt = Arc::new(TensorRt::new(None));
        let loader = Loader {
            layout,
            runtime: runtime(),
            cuda,
            tensorrt,
            metrics: Arc::clone(&metrics),
            reaper,
            workers,
        };
        let (repository, watcher) = Repository::new(&config, loader, BTreeMap::new());
        let watcher = Some(thread::spawn(|| watcher.run()));
        Self { models, repository: Some(repository), watcher, metrics }
    }

    fn repository(&self) -> &Repository {
        self.repository.as_ref().expect("taken in drop alone")
    }

    async fn ask(&self, request: Request) -> Result<ModelStatus, RequestError> {
        self.repository().request("shop".parse().expect("a name"), request).await
    }

    /// Has the watcher look at the folders. It does so after each request, and answers the next one after that.
    async fn look(&self) -> ModelStatus {
        for _ in 0..2 {
            let nobody = "nobody".parse().expect("a name");
            let answer = self.repository().request(nobody, Request::Promote(None)).await;
            assert!(matches!(answer, Err(RequestError::NoModel)), "{answer:?}");
        }
        let mut status = self.repository().status().expect("the watcher has looked");
        assert_eq!(status.len(), 1, "one model");
        status.remove(0)
    }

    fn live(&self) -> Arc<Live> {
        self.repository().live("shop").expect("a live version")
    }

    /// Fails unless requests are answered by version `number`, whose files are those of `artifact`.
    async fn assert_answers(&self, number: u64, artifact: Artifact) {
        let live = self.live();
        assert_eq!(u64::from(live.current.number()), number);
        assert_scores(&live.current, artifact).await;
        let gauge = self.count("model_current_version", "");
        assert_eq!(gauge, number);
    }

    /// The value of the one series of `millrace_<family>` for the model that has `label`.
    fn count(&self, family: &str, label: &str) -> u64 {
        let text = self.metrics.render();
        let start = format!("millrace_{family}{{model=\"shop\"");
        let line = text.lines().find(|line| line.starts_with(&start) && line.contains(label));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("{family} with {label} in {text}"))
    }

    /// How often another version began to answer.
    fn swaps(&self) -> u64 {
        self.count("model_swaps_total", "")
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        drop(self.repository.take());
        let ended = self.watcher.take().expect("taken here alone").join();
        assert!(ended.is_ok() || thread::panicking(), "the watcher panicked");
    }
}

async fn assert_scores(version: &Version, artifact: Artifact) {
    let asked = [("123", "456"), ("789", "85123A"), ("a stranger", "nothing")];
    let mut rows = Rows::new(version.encoder().signature());
    for (user, item) in asked {
        let row = [RawValue::Text(user), RawValue::Text(item)];
        version.encoder().encode(row.into_iter(), &mut rows).expect("two ids");
    }
    let terms = Terms { deadline: Instant::now() + Duration::from_hours(1), priority: Priority::Normal };
    let scores = version.batcher().score(&rows, terms).await.expect("scores");
    let expected = asked.map(|(user, item)| artifact.score(user, item));
    let close = scores.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
    assert!(close && scores.len() == expected.len(), "{:?} {expected:?}", &*scores);
}

fn number(number: u64) -> VersionNumber {
    number.try_into().expect("from 1")
}

fn states(status: &ModelStatus) -> Vec<(u64, VersionState)> {
    status.versions.iter().map(|version| (version.version.into(), version.state)).collect()
}

/// Makes a file look as if it had been written later than it was.
fn touch(path: &Path) {
    let later = SystemTime::now() + Duration::from_mins(1);
    File::options().append(true).open(path).and_then(|file| file.set_modified(later)).expect("touched");
}

const OLD: f32 = -1.0;
const NEW: f32 = 0.5;
const NEWEST: f32 = 1.5;

fn artifact(bias: f32) -> Artifact {
    Artifact::with_bias(bias)
}

#[tokio::test]
async fn a_newer_version_takes_the_place_of_the_one_that_answers() {
    let shop = Shop::open(&[artifact(OLD)]);
    assert_eq!(states(&shop.look().await), [(1, VersionState::Ready)]);
    shop.assert_answers(1, artifact(OLD)).await;
    shop.models.publish("shop", 2, artifact(NEW));
    let status = shop.look().await;
    assert_eq!(states(&status), [(1, VersionState::Available), (2, VersionState::Ready)]);
    assert_eq!((status.current, status.pinned, status.unloaded), (Some(number(2)), None, false));
    shop.assert_answers(2, artifact(NEW)).await;
    assert_eq!(shop.swaps(), 2);
    shop.look().await;
    assert_eq!((shop.swaps(), shop.count("model_loads_total", "ok")), (2, 2), "at rest");
}

#[tokio::test]
async fn a_request_that_began_before_a_swap_is_answered_by_the_version_that_it_found() {
    let shop = Shop::open(&[artifact(OLD)]);
    shop.look().await;
    let found = shop.live();
    shop.models.publish("shop", 2, artifact(NEW));
    shop.look().await;
    shop.assert_answers(2, artifact(NEW)).await;
    assert_scores(&found.current, artifact(OLD)).await;
    let old = Arc::downgrade(&found.current);
    drop(found);
    assert!(old.upgrade().is_none(), "with its last request the old version ends");
}

#[tokio::test]
async fn a_version_that_fails_its_golden_rows_never_answers_and_says_why() {
    let shop = Shop::open(&[artifact(OLD)]);
    shop.look().await;
    shop.models.publish("shop", 2, artifact(NEW).unfit());
    let status = shop.look().await;
    assert_eq!(states(&status), [(1, VersionState::Ready), (2, VersionState::Failed)]);
    let reason = status.versions[1].reason.as_deref().expect("a reason");
    assert!(reason.starts_with("golden row 0: scored"), "{reason}");
    shop.assert_answers(1, artifact(OLD)).await;
    assert_eq!((shop.swaps(), shop.count("model_loads_total", "failed")), (1, 1));
    let answer = shop.ask(Request::Load).await;
    let told = matches!(&answer, Err(RequestError::Load { version, .. }) if *version == number(2));
    assert!(told, "{answer:?}");
    shop.assert_answers(1, artifact(OLD)).await;
}

#[tokio::test]
async fn the_newest_version_that_is_fit_answers() {
    let shop = Shop::open(&[artifact(OLD), artifact(NEW), artifact(NEWEST).unfit()]);
    let status = shop.look().await;
    let expected = [(1, VersionState::Available), (2, VersionState::Ready), (3, VersionState::Failed)];
    assert_eq!(states(&status), expected);
    shop.assert_answers(2, artifact(NEW)).await;
}

#[tokio::test]
async fn a_failed_version_is_tried_again_once_its_manifest_changes() {
    let shop = Shop::open(&[artifact(OLD)]);
    let folder = shop.models.publish("shop", 2, artifact(NEW));
    let (vocabulary, aside) = (folder.join("features/user_id.vocabulary"), folder.join("aside"));
    fs::rename(&vocabulary, &aside).expect("moved");
    let status = shop.look().await;
    assert_eq!(states(&status), [(1, VersionState::Ready), (2, VersionState::Failed)]);
    let reason = status.versions[1].reason.as_deref().expect("a reason");
    assert!(reason.starts_with("features/user_id.vocabulary: cannot be read: "), "{reason}");

    fs::rename(&aside, &vocabulary).expect("moved back");
    shop.look().await;
    assert_eq!(shop.count("model_loads_total", "failed"), 1, "the manifest is still the same");
    touch(&folder.join(Manifest::FILE));
    assert_eq!(states(&shop.look().await)[1], (2, VersionState::Ready));
    shop.assert_answers(2, artifact(NEW)).await;
}

#[tokio::test]
async fn a_failed_version_is_tried_again_when_an_operator_asks() {
    let shop = Shop::open(&[artifact(OLD)]);
    let folder = shop.models.publish("shop", 2, artifact(NEW));
    let (model, aside) = (folder.join(Manifest::MODEL), folder.join("aside"));
    fs::rename(&model, &aside).expect("moved");
    let answer = shop.ask(Request::Load).await;
    assert!(matches!(answer, Err(RequestError::Load { .. })), "{answer:?}");
    fs::rename(&aside, &model).expect("moved back");
    let status = shop.ask(Request::Load).await.expect("fit again");
    assert_eq!((status.current, states(&status)[1]), (Some(number(2)), (2, VersionState::Ready)));
    assert_eq!(status.versions[1].reason, None);
    shop.assert_answers(2, artifact(NEW)).await;
}

#[tokio::test]
async fn an_unloaded_model_is_not_served_until_it_is_loaded_again() {
    let shop = Shop::open(&[artifact(OLD)]);
    let status = shop.ask(Request::Unload).await.expect("unloaded");
    assert_eq!((status.current, status.unloaded), (None, true));
    assert_eq!(states(&status), [(1, VersionState::Available)]);
    assert_eq!(shop.count("model_current_version", ""), 0);
    shop.models.publish("shop", 2, artifact(NEW));
    assert!(shop.look().await.unloaded);
    assert!(shop.repository().live("shop").is_none(), "not even by a newer version");
    let status = shop.ask(Request::Load).await.expect("loaded");
    assert_eq!((status.current, status.unloaded), (Some(number(2)), false));
    shop.assert_answers(2, artifact(NEW)).await;
}

/// Unloading such a model once did what it was asked and answered that there was no such model.
#[tokio::test]
async fn a_model_whose_folder_is_gone_is_served_until_it_is_unloaded() {
    let shop = Shop::open(&[artifact(OLD)]);
    shop.look().await;
    fs::remove_dir_all(shop.models.path().join("shop")).expect("removed");
    assert_eq!(states(&shop.look().await), [(1, VersionState::Ready)]);
    shop.assert_answers(1, artifact(OLD)).await;
    let status = shop.ask(Request::Unload).await.expect("unloaded");
    assert_eq!((status.current, status.unloaded, status.versions), (None, true, vec![]));
    assert!(shop.repository().live("shop").is_none());
    let answer = shop.ask(Request::Load).await;
    assert!(matches!(answer, Err(RequestError::NoModel)), "{answer:?}");
}

#[tokio::test]
async fn a_version_that_is_taken_away_answers_until_an_older_one_is_ready() {
    let shop = Shop::open(&[artifact(OLD), artifact(NEW)]);
    shop.look().await;
    shop.models.withdraw("shop", 2);
    assert_eq!(states(&shop.look().await), [(1, VersionState::Ready)]);
    shop.assert_answers(1, artifact(OLD)).await;
    assert_eq!(shop.swaps(), 2);
}

#[tokio::test]
async fn a_rollback_holds_against_newer_versions_until_the_policy_is_followed_again() {
    let shop = Shop::open(&[artifact(OLD), artifact(NEW)]);
    let status = shop.ask(Request::Rollback).await.expect("there is an older one");
    assert_eq!((status.current, status.pinned), (Some(number(1)), Some(number(1))));
    shop.assert_answers(1, artifact(OLD)).await;
    shop.models.publish("shop", 3, artifact(NEWEST));
    shop.look().await;
    shop.assert_answers(1, artifact(OLD)).await;
    let answer = shop.ask(Request::Rollback).await;
    assert!(matches!(answer, Err(RequestError::NothingOlder)), "{answer:?}");
    shop.assert_answers(1, artifact(OLD)).await;
    let status = shop.ask(Request::Promote(None)).await.expect("followed");
    assert_eq!((status.current, status.pinned), (Some(number(3)), None));
    shop.assert_answers(3, artifact(NEWEST)).await;
}

#[tokio::test]
async fn a_rollback_skips_versions_that_failed() {
    let shop = Shop::open(&[artifact(OLD), artifact(NEW).unfit(), artifact(NEWEST)]);
    shop.look().await;
    let answer = shop.ask(Request::Rollback).await;
    assert!(matches!(answer, Err(RequestError::Load { .. })), "{answer:?}");
    shop.assert_answers(3, artifact(NEWEST)).await;
    shop.ask(Request::Rollback).await.expect("version 2 is known to be unfit now");
    shop.assert_answers(1, artifact(OLD)).await;
}

#[tokio::test]
async fn a_promoted_version_answers_although_it_is_not_the_newest_and_the_model_was_unloaded() {
    let shop = Shop::open(&[artifact(OLD), artifact(NEW), artifact(NEWEST)]);
    shop.ask(Request::Unload).await.expect("unloaded");
    let status = shop.ask(Request::Promote(Some(number(2)))).await.expect("promoted");
    assert_eq!((status.current, status.pinned, status.unloaded), (Some(number(2)), Some(number(2)), false));
    shop.assert_answers(2, artifact(NEW)).await;
}

#[tokio::test]
async fn what_is_not_there_cannot_be_promoted() {
    let shop = Shop::open(&[artifact(OLD)]);
    shop.look().await;
    let answer = shop.ask(Request::Promote(Some(number(7)))).await;
    assert!(matches!(answer, Err(RequestError::NoVersion(version)) if version == number(7)), "{answer:?}");
    let status = shop.look().await;
    assert_eq!((status.current, status.pinned), (Some(number(1)), None));
    for request in [Request::Load, Request::Unload, Request::Rollback, Request::Promote(Some(number(1)))] {
        let nobody = "nobody".parse().expect("a name");
        let answer = shop.repository().request(nobody, request).await;
        assert!(matches!(answer, Err(RequestError::NoModel)), "{answer:?}");
    }
}

/// The old pin was once given up before the new version was tried: until that was loaded, and for good where it was
/// refused, the version answered that the operator had rolled back from.
#[tokio::test]
async fn a_promotion_takes_one_swap_and_a_refused_one_takes_none() {
    let shop = Shop::open(&[artifact(OLD), artifact(NEW), artifact(0.9).unfit(), artifact(NEWEST)]);
    shop.ask(Request::Promote(Some(number(1)))).await.expect("promoted");
    let before = shop.swaps();

    let answer = shop.ask(Request::Promote(Some(number(3)))).await;
    assert!(matches!(answer, Err(RequestError::Load { .. })), "{answer:?}");
    let status = shop.look().await;
    assert_eq!((status.current, status.pinned), (Some(number(1)), Some(number(1))));
    assert_eq!(shop.swaps(), before);

    shop.ask(Request::Promote(Some(number(2)))).await.expect("promoted");
    shop.assert_answers(2, artifact(NEW)).await;
    assert_eq!(shop.swaps(), before + 1);
}

#[tokio::test]
async fn an_unloaded_model_stays_unloaded_when_a_promotion_is_refused() {
    let shop = Shop::open(&[artifact(OLD), artifact(NEW).unfit()]);
    shop.ask(Request::Unload).await.expect("unloaded");
    let answer = shop.ask(Request::Promote(Some(number(2)))).await;
    assert!(matches!(answer, Err(RequestError::Load { .. })), "{answer:?}");
    assert!(shop.look().await.unloaded);
    assert!(shop.repository().live("shop").is_none());
}

#[tokio::test]
async fn a_policy_of_several_versions_keeps_them_live_by_number() {
    let versions = [artifact(OLD), artifact(NEW), artifact(NEWEST)];
    let shop = Shop::with(Policy::Latest(2.try_into().expect("above zero")), &versions);
    shop.look().await;
    let live = shop.live();
    assert!(live.version(number(1)).is_none());
    for (version, artifact) in (1..).zip(versions).skip(1) {
        assert_scores(live.version(number(version)).expect("live"), artifact).await;
    }
    shop.assert_answers(3, artifact(NEWEST)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_versions_are_swapped_each_request_is_answered_by_the_one_that_it_found() {
    let versions = [artifact(OLD), artifact(NEW)];
    let shop = Arc::new(Shop::with(Policy::All, &versions));
    shop.look().await;
    let asking = tokio::spawn({
        let shop = Arc::clone(&shop);
        async move {
            for _ in 0..300 {
                let version = Arc::clone(&shop.live().current);
                let index = usize::try_from(u64::from(version.number()) - 1).expect("1 or 2");
                assert_scores(&version, versions[index]).await;
                tokio::task::yield_now().await;
            }
        }
    });
    loop {
        for version in [1, 2] {
            shop.ask(Request::Promote(Some(number(version)))).await.expect("promoted");
            assert_eq!(shop.live().current.number(), number(version), "from the next request on");
        }
        if asking.is_finished() {
            break;
        }
    }
    asking.await.expect("every answer as expected");
}

/// A repository whose watcher nobody runs yet.
fn unwatched(models: &Models) -> (Repository, Watcher) {
    let config = RawConfig { models_dir: Some(models.path().to_owned()), ..RawConfig::default() };
    let loader = Loader {
        layout: Layout::new(models.path()),
        runtime: runtime(),
        cuda: Arc::new(Cuda::new(CudaOptions::default())),
        tensorrt: Arc::new(TensorRt::new(None)),
        metrics: Metrics::new("test"),
        reaper: Reaper::new().0,
        workers: NonZeroUsize::MIN,
    };
    Repository::new(&config.parse().expect("a configuration"), loader, BTreeMap::new())
}

#[tokio::test]
async fn requests_are_refused_once_the_watcher_has_ended() {
    let models = Models::new();
    let (repository, watcher) = unwatched(&models);
    assert!(repository.status().is_none(), "nobody has looked yet");
    drop(watcher);
    let answer = repository.request("shop".parse().expect("a name"), Request::Load).await;
    assert!(matches!(answer, Err(RequestError::Stopping)), "{answer:?}");
}

/// Whoever asked a watcher that was busy loading was once told that the server was stopping.
#[tokio::test]
async fn more_requests_than_may_wait_are_refused_and_the_watcher_is_only_busy() {
    let models = Models::new();
    let (repository, _watcher) = unwatched(&models);
    let mut waiting = 0;
    let refused = loop {
        let mut request = pin!(repository.request("shop".parse().expect("a name"), Request::Load));
        match poll_fn(|context| Poll::Ready(request.as_mut().poll(context))).await {
            Poll::Pending => waiting += 1,
            Poll::Ready(answer) => break answer,
        }
    };
    assert!(matches!(refused, Err(RequestError::Busy)), "{refused:?}");
    assert_eq!(waiting, 64);
}
