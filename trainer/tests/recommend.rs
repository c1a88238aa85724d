//! Recommendations from a version as the trainer left it: whichever way its pairs are scored, the answer is what scoring
//! every pair by the model comes to.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use millrace::{
    engine::{Engine, OnnxEngine, Side},
    features::{Catalogue, Encoder},
    metrics::{Metrics, VersionFacts},
    recommend::{OpenError, Query, Recommender, Room, Scored, Source},
    repository::{golden::Golden, manifest::Manifest},
    tensor::Rows,
};
use millrace_trainer::config::{Architecture, Pipeline};

use crate::shop::{Shop, with_run};

/// A trained version, and every way to ask it.
struct Listed {
    encoder: Arc<Encoder>,
    golden: Golden,
    engine: OnnxEngine,
    recommender: Recommender,
    _shop: Shop,
}

impl Listed {
    fn of(pipeline: impl FnOnce(&Shop) -> Pipeline) -> Self {
        let shop = Shop::open();
        let pipeline = pipeline(&shop);
        let artifact = with_run(&shop, &pipeline, &mut Vec::new(), |run| run.train(&shop.artifact()));
        let folder = artifact.expect("trained").version();
        let encoder = Arc::new(Encoder::read(&folder.join(Manifest::FEATURES)).expect("features"));
        let golden = Golden::read(&folder).expect("golden rows");
        let recommender = recommender(&folder, &encoder, &golden, (1 << 20, || true)).expect("a recommender");
        let model = folder.join(Manifest::MODEL);
        let engine = OnnxEngine::open(&crate::runtime(), &model, encoder.signature()).expect("a model");
        Self { encoder, golden, engine, recommender, _shop: shop }
    }

    /// The score of `user` with each item, by the model.
    fn every_pair(&mut self, user: &Rows) -> Vec<f32> {
        let (catalogue, mut rows) = (self.recommender.catalogue(), Rows::new(self.encoder.signature()));
        catalogue.encode(&self.encoder, user, 0..catalogue.count(), &mut rows);
        let mut scores = Vec::new();
        self.engine.run(&rows, &mut scores).expect("scores");
        scores
    }

    fn ask(&self, query: &Query) -> Vec<Scored> {
        let deadline = Instant::now() + Duration::from_mins(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(self.recommender.ask(query.clone(), deadline)).expect("items")
    }

    /// Fails unless `query` is answered with the best items that it leaves.
    fn assert_best(&mut self, query: &Query) {
        let scores = self.every_pair(&query.user);
        let is_left = |item: &u32| {
            let chosen = query.candidates.as_ref().is_none_or(|chosen| chosen.contains(item));
            chosen && !query.excluded.contains(item)
        };
        let mut left: Vec<f32> = (0..self.recommender.catalogue().count())
            .filter(is_left)
            .map(|item| scores[item as usize])
            .collect();
        left.sort_by(|a, b| b.total_cmp(a));
        left.truncate(query.k);
        let best = self.ask(query);
        assert_eq!(best.len(), left.len());
        for (found, expected) in best.iter().zip(left) {
            assert!(is_left(&found.item), "{found:?} is not wanted");
            assert!((found.score - expected).abs() < 1e-5, "{found:?} where {expected} was the best left");
            assert!((found.score - scores[found.item as usize]).abs() < 1e-5, "{found:?}");
        }
    }

    fn assert_method(mut self, method: &str) {
        assert_eq!(self.recommender.method(), method);
        let count = self.recommender.catalogue().count();
        assert!(count > 300, "{count} of 500 items were shown");
        for row in self.golden.input.clone().into_iter().take(5) {
            let user = self.recommender.catalogue().user(&self.encoder, &row).expect("a user");
            let query = |k| Query { user: user.clone(), k, excluded: Vec::new(), candidates: None };
            self.assert_best(&query(1));
            self.assert_best(&query(1000));
            let best = self.ask(&query(10));
            let mut excluded: Vec<u32> = best.iter().map(|scored| scored.item).collect();
            excluded.sort_unstable();
            self.assert_best(&Query { excluded, ..query(10) });
            let candidates = Some((0..count).step_by(7).collect());
            self.assert_best(&Query { candidates, excluded: vec![0, 14], ..query(10) });
            self.assert_best(&Query { candidates: Some(Vec::new()), ..query(10) });
        }
    }
}

/// The recommender of a version's folder, whose threads run.
fn recommender(
    folder: &Path,
    encoder: &Arc<Encoder>,
    golden: &Golden,
    (max_bytes, between): (usize, fn() -> bool),
) -> Result<Recommender, OpenError> {
    let runtime = crate::runtime();
    let source = Source {
        runtime: &runtime,
        gpu: None,
        folder,
        encoder,
        rows: &golden.input,
        tolerance: golden.tolerance,
        batch_rows: 100,
        max_bytes,
    };
    let catalogue = Catalogue::read(folder, encoder).expect("a catalogue").expect("there");
    let open = || -> Result<Box<dyn Engine>, OpenError> {
        let model = folder.join(Manifest::MODEL);
        Ok(Box::new(OnnxEngine::open(&runtime, &model, encoder.signature())?))
    };
    let room = Room { threads: 2, queue: 1 };
    let (recommender, threads) = Recommender::open(source, Arc::new(catalogue), room, open, between)?;
    for searching in threads {
        thread::spawn(move || {
            searching.run(&Metrics::new("test").version("shop", 1, VersionFacts::default()));
        });
    }
    Ok(recommender)
}

#[test]
fn towers_of_another_model_and_vectors_that_take_too_much_are_refused() {
    let shop = Shop::open();
    let version = |seed| {
        let pipeline = Pipeline { seed, ..shop.labelled() };
        let artifact = with_run(&shop, &pipeline, &mut Vec::new(), |run| run.train(&shop.artifact()));
        artifact.expect("trained").version()
    };
    let other = std::fs::read(version(8).join(Side::Item.file())).expect("a tower");
    let folder = version(7);
    let encoder = Arc::new(Encoder::read(&folder.join(Manifest::FEATURES)).expect("features"));
    let golden = Golden::read(&folder).expect("golden rows");
    let opened = |room| recommender(&folder, &encoder, &golden, room).map(|_| ());
    let open = |max_bytes| opened((max_bytes, || true));
    open(1 << 20).expect("its own towers");
    let stopped = opened((1 << 20, || false));
    assert!(matches!(stopped, Err(OpenError::Stopped)), "{stopped:?}");
    let refused = open(1000);
    assert!(matches!(refused, Err(OpenError::TooLarge { width: 16, limit: 1000, .. })), "{refused:?}");
    std::fs::write(folder.join(Side::Item.file()), other).expect("written");
    let refused = open(1 << 20);
    assert!(matches!(refused, Err(OpenError::Differs { .. })), "{refused:?}");
}

#[test]
fn wide_and_deep_is_taken_apart_at_its_first_layer() {
    Listed::of(Shop::labelled).assert_method("towers");
}

#[test]
fn two_towers_multiply_the_vectors_of_a_user_and_of_items() {
    let pipeline = |shop: &Shop| {
        let mut pipeline = shop.labelled();
        pipeline.model.architecture = Some(Architecture::TwoTower);
        pipeline
    };
    Listed::of(pipeline).assert_method("towers");
}

#[test]
fn cross_layers_look_at_whole_rows() {
    let pipeline = |shop: &Shop| {
        let mut pipeline = shop.labelled();
        pipeline.model.cross_layers = 2;
        pipeline
    };
    Listed::of(pipeline).assert_method("rows");
}

#[test]
fn what_the_past_says_of_pairs_needs_whole_rows() {
    Listed::of(Shop::remembering).assert_method("rows");
}
