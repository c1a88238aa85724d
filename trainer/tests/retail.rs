//! The definitions against the reference figures of the retail data, where the data is there.

use std::convert::Infallible;

use millrace_trainer::{
    config::Pipeline,
    log,
    popularity::Popularity,
    purchases::Purchases,
    ranking::{RankingFigures, RankingTask},
    split::Split,
};

fn near(found: RankingFigures, expected: [f64; 4]) {
    let RankingFigures { auc, recall_at_20, hit_at_10, ndcg_at_10 } = found;
    for (found, expected) in [auc, recall_at_20, hit_at_10, ndcg_at_10].into_iter().zip(expected) {
        // Other draws for the AUC and other orders of equally popular items are worth this much.
        assert!((found - expected).abs() < 0.004, "{found} is not {expected}");
    }
}

#[test]
fn popularity_reproduces_the_reference_figures() {
    let root = crate::workspace();
    let path = root.join("../shared/data/online_retail_2009_2010.parquet");
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return;
    }
    let pipeline = Pipeline::read(&root.join("trainer/pipelines/retail.toml")).expect("the pipeline");
    let log =
        log::read(&path, &pipeline.data, &pipeline.features, &pipeline.measured()).expect("the log").log;
    assert_eq!((log.len(), log.users.distinct(), log.items.distinct()), (407_664, 4_312, 4_017));
    assert_eq!(log.users.values()[0], millrace::features::Value::Int(13_085), "no fraction in an id");
    let split = Split::new(&log.times, &pipeline.split).expect("a split");
    let (training, test) = (split.training(), split.test);
    let known = Purchases::of(&log, training.clone());
    let pairs: usize = known.users().map(|user| known.basket(user).len()).sum();
    assert_eq!((pairs, known.items().len()), (230_892, 3_950));
    let task = RankingTask::new(&log, training.clone(), test, pipeline.seed);
    assert_eq!(task.customers(), 1_463);
    let judge = |baseline: Popularity| {
        let judged = task.judge(|_, items| Ok::<_, Infallible>(baseline.score(items)));
        judged.expect("never fails")
    };
    let year = judge(Popularity::of(&log, training.clone()));
    near(year.new, [0.7759, 0.0478, 0.2661, 0.0408]);
    near(year.all, [0.8255, 0.1056, 0.5625, 0.1194]);
    let month = judge(Popularity::of_last_days(&log, training, 30));
    near(month.new, [0.8371, 0.0977, 0.4050, 0.0770]);
    near(month.all, [0.8603, 0.1438, 0.6124, 0.1467]);
}
