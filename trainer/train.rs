//! The training loop: fit the features on a stretch of the log, then pass over its examples, drawn anew and in a new
//! order in each epoch.
//!
//! The number of epochs is chosen on the slice of time that follows the stretch. The final model is then trained for
//! as many on everything before the test period, the slice included: in a shop the latest weeks say the most.

use std::{fmt, ops::Range};

use millrace::{quality, tensor::Rows};

use crate::{
    checkpoint::{CheckpointError, Checkpoints, Position},
    config::{Architecture, Pipeline},
    examples::{self, Example},
    fit::{FitError, FittedFeatures},
    log::Log,
    model::{ModelShape, Targets, Towers, WideDeep},
    progress::{Progress, Step, Work},
    random::{Purpose, random},
    split::Split,
};

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The features could not be fitted.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// There is nothing to learn from.
    #[error("there are no training examples")]
    NoExamples,
    /// The loss is no number any more.
    #[error("the loss diverged in epoch {epoch}: lower the rates")]
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
    },
    /// The checkpoint cannot be used or kept.
    #[error("the checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// Somebody asked for an end.
    #[error("interrupted in epoch {epoch}; where a checkpoint is kept, the same command goes on")]
    Interrupted {
        /// The epoch, from 1.
        epoch: usize,
    },
}

/// A model and the features that it was trained with.
#[derive(Debug)]
pub struct Trained {
    /// The features.
    pub features: FittedFeatures,
    /// The model.
    pub model: WideDeep,
    /// Passes over the examples.
    pub epochs: usize,
}

impl Trained {
    /// The columns of users and those of items; `None` where some follow from both.
    pub fn sides(&self, pipeline: &Pipeline) -> Option<Towers> {
        sides(&self.features, pipeline)
    }

    /// The probability of each of `examples`.
    pub fn score(&self, log: &Log, examples: &[Example]) -> Result<Vec<f32>, TrainError> {
        Ok(self.model.score(&self.features.encode(log, examples)?))
    }
}

/// What one epoch came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Whether it belongs to the final model, or to the one that chooses the number of epochs.
    pub is_final: bool,
    /// The mean weighted loss over the training examples, in nats.
    pub loss: f64,
    /// The log loss on the validation slice, where there is one.
    pub validation_loss: Option<f64>,
}

impl fmt::Display for EpochReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purpose = if self.is_final { "training" } else { "choosing epochs" };
        write!(f, "{purpose}: epoch {}, loss {:.4}", self.epoch, self.loss)?;
        self.validation_loss.map_or(Ok(()), |loss| write!(f, ", validation loss {loss:.4}"))
    }
}

/// Trains the pipeline's model on everything before the test period, from where the checkpoint is.
pub fn train(
    log: &Log,
    split: &Split,
    pipeline: &Pipeline,
    checkpoints: &mut Checkpoints<'_>,
    progress: &mut dyn Progress,
) -> Result<Trained, TrainError> {
    let most = pipeline.model.epochs;
    let mut found = checkpoints.find()?;
    let start = Position::start(split.validation.is_empty().then_some(most), most);
    let position = found.as_ref().map_or(start, |found| found.position);
    let (epochs, mut position) = if let Some(epochs) = position.chosen {
        (epochs, position)
    } else {
        let mut course = Course::new(log, split.fit(), pipeline)?;
        if let Some(found) = found.take() {
            found.restore(&mut course.model)?;
        }
        let epochs = choose_epochs(course, split, position, checkpoints, progress)?;
        (epochs, Position::start(Some(epochs), most))
    };
    let mut course = Course::new(log, split.training(), pipeline)?;
    if let Some(found) = found {
        found.restore(&mut course.model)?;
    }
    while position.epoch <= epochs {
        let loss = course.epoch(&mut position, checkpoints, progress)?;
        progress.epoch(&EpochReport { epoch: position.epoch, is_final: true, loss, validation_loss: None });
        position = position.next_epoch();
        course.keep(&position, checkpoints)?;
    }
    Ok(Trained { features: course.features, model: course.model, epochs })
}

/// The epoch with the lowest loss on the validation slice; the search ends once two epochs have brought nothing.
fn choose_epochs(
    mut course: Course<'_>,
    split: &Split,
    mut position: Position,
    checkpoints: &mut Checkpoints<'_>,
    progress: &mut dyn Progress,
) -> Result<usize, TrainError> {
    const PATIENCE: usize = 2;
    let Course { log, pipeline, .. } = course;
    let mut draws = random(pipeline.seed, Purpose::Validation, 0);
    let examples =
        examples::held_out(log, split.fit(), split.validation.clone(), &pipeline.examples, &mut draws);
    let rows = course.features.encode(log, &examples)?;
    let labels: Vec<bool> = examples.iter().map(|example| example.label).collect();
    while position.epoch <= pipeline.model.epochs.min(position.best.1.saturating_add(PATIENCE)) {
        let epoch = position.epoch;
        let loss = course.epoch(&mut position, checkpoints, progress)?;
        let validation_loss = quality::log_loss(&course.model.score(&rows), &labels);
        progress.epoch(&EpochReport { epoch, is_final: false, loss, validation_loss });
        if let Some(loss) = validation_loss.filter(|&loss| loss < position.best.0) {
            position.best = (loss, epoch);
        }
        position = position.next_epoch();
        course.keep(&position, checkpoints)?;
    }
    Ok(position.best.1)
}

/// A model on its way through the epochs over one stretch of the log.
struct Course<'a> {
    log: &'a Log,
    rows: Range<usize>,
    pipeline: &'a Pipeline,
    features: FittedFeatures,
    model: WideDeep,
}

impl<'a> Course<'a> {
    fn new(log: &'a Log, rows: Range<usize>, pipeline: &'a Pipeline) -> Result<Self, TrainError> {
        let features = FittedFeatures::fit(log, rows.clone(), &pipeline.features, &pipeline.crosses)?;
        let windows = pipeline.examples.windows;
        let features = features.remembering(log, &rows, &pipeline.histories, windows)?;
        let mut draws = random(pipeline.seed, Purpose::Training, 0);
        let examples = examples::training(log, rows.clone(), &pipeline.examples, &mut draws);
        let base_rate = base_rate(&examples).ok_or(TrainError::NoExamples)?;
        let shape = shape(&features, pipeline);
        let mut draws = random(pipeline.seed, Purpose::Weights, 0);
        let model = WideDeep::new(shape, &pipeline.model, base_rate, &mut draws);
        Ok(Self { log, rows, pipeline, features, model })
    }

    /// The rest of a pass over freshly drawn examples; the mean weighted loss of the whole of it.
    fn epoch(
        &mut self,
        position: &mut Position,
        checkpoints: &mut Checkpoints<'_>,
        progress: &mut dyn Progress,
    ) -> Result<f64, TrainError> {
        let Pipeline { seed, examples: config, .. } = self.pipeline;
        let mut draws = random(*seed, Purpose::Training, position.epoch);
        let mut examples = examples::training(self.log, self.rows.clone(), config, &mut draws);
        examples::shuffle(&mut examples, &mut draws);
        let rows = self.features.encode_hiding(self.log, &examples, config.unknown_share, &mut draws)?;
        self.pass(&rows, &examples, position, checkpoints, progress)?;
        let loss = position.loss / examples.len() as f64;
        if loss.is_finite() { Ok(loss) } else { Err(TrainError::Diverged { epoch: position.epoch }) }
    }

    fn pass(
        &mut self,
        rows: &Rows,
        examples: &[Example],
        position: &mut Position,
        checkpoints: &mut Checkpoints<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), TrainError> {
        let labels: Vec<f32> = examples.iter().map(|example| f32::from(u8::from(example.label))).collect();
        let weights: Vec<f32> = examples.iter().map(|example| example.weight).collect();
        while position.done < examples.len() {
            let range = position.done..examples.len().min(position.done + self.pipeline.model.batch_rows);
            let targets = Targets { labels: &labels[range.clone()], weights: &weights[range.clone()] };
            position.done = range.end;
            position.loss += self.model.step(rows, range, targets);
            let (done, of) = (position.done as u64, Some(examples.len() as u64));
            progress.step(Step { work: Work::Epoch(position.epoch), done, of });
            if position.done < examples.len() && checkpoints.is_due() {
                self.keep(position, checkpoints)?;
            }
        }
        Ok(())
    }

    /// Writes the checkpoint down, and ends the training where somebody asked for it.
    fn keep(&mut self, position: &Position, checkpoints: &mut Checkpoints<'_>) -> Result<(), TrainError> {
        checkpoints.keep(position, &mut self.model)?;
        if checkpoints.is_stopped() { Err(TrainError::Interrupted { epoch: position.epoch }) } else { Ok(()) }
    }
}

/// The shape of the pipeline's model for its features.
fn shape(features: &FittedFeatures, pipeline: &Pipeline) -> ModelShape {
    let shape = ModelShape::of(features.encoder());
    if pipeline.model.architecture() != Architecture::TwoTower {
        return shape;
    }
    shape.with_towers(sides(features, pipeline).expect("what a pipeline of two towers is checked for"))
}

/// The columns of users and those of items; `None` where some follow from both.
fn sides(features: &FittedFeatures, pipeline: &Pipeline) -> Option<Towers> {
    Towers::of(features.encoder(), |name| {
        let config = pipeline.features.iter().find(|config| config.name == name);
        config.expect("every feature is the pipeline's").of
    })
}

/// The weighted share of positives; `None` without examples.
fn base_rate(examples: &[Example]) -> Option<f32> {
    let all: f32 = examples.iter().map(|example| example.weight).sum();
    let positive: f32 = examples.iter().filter(|example| example.label).map(|example| example.weight).sum();
    (all > 0.0).then(|| positive / all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::ModelConfig, log::FeatureColumn, log::Ids};

    const PIPELINE: &str = r#"
        seed = 7
        data = { path = "log.csv", user = "user_id", item = "item_id", time = "at", label = "clicked" }
        split = { test_fraction = 0.2 }
        publish = { repository = "models", model = "shop" }
        [features]
        columns = [
          { name = "user_id", column = "user_id", encoding = { vocabulary = { minimum_count = 1 } } },
          { name = "item_id", column = "item_id", encoding = { vocabulary = { minimum_count = 1 } }, of = "item" },
        ]
    "#;

    fn pipeline() -> Pipeline {
        let pipeline = Pipeline::parse(PIPELINE).expect("a pipeline");
        let model = ModelConfig {
            epochs: 6,
            batch_rows: 64,
            embedding_dimension: 4,
            hidden_units: vec![8],
            ..pipeline.model
        };
        Pipeline { model, ..pipeline }
    }

    /// Even users like even items and odd ones odd items; every row is a day.
    fn log(rows: i64) -> Log {
        let text = |modulus: i64, factor: i64| -> Vec<String> {
            (0..rows).map(|row| (row * factor % modulus).to_string()).collect()
        };
        let (users, items) = (text(10, 7), text(8, 3));
        let parity = |id: &String| id.parse::<i64>().expect("a number") % 2;
        let labels = users.iter().zip(&items).map(|(user, item)| parity(user) == parity(item)).collect();
        let ids = |texts: &[String]| Ids::of(texts.iter().map(String::as_str));
        Log {
            users: ids(&users),
            items: ids(&items),
            times: (0..rows).map(|row| row * 86_400).collect(),
            labels: Some(labels),
            features: vec![FeatureColumn::Ids(ids(&users)), FeatureColumn::Ids(ids(&items))],
            ..Log::default()
        }
    }

    #[derive(Default)]
    struct Epochs(Vec<EpochReport>);

    impl Progress for Epochs {
        fn say(&mut self, _: &str) {}

        fn epoch(&mut self, report: &EpochReport) {
            self.0.push(*report);
        }
    }

    fn run(log: &Log, split: &Split) -> (Trained, Vec<EpochReport>) {
        let (mut checkpoints, mut epochs) = (Checkpoints::none(), Epochs::default());
        let trained = train(log, split, &pipeline(), &mut checkpoints, &mut epochs).expect("a model");
        (trained, epochs.0)
    }

    fn all(log: &Log) -> Vec<Example> {
        let row = |row| Example { user_row: row, item_row: row, label: true, weight: 1.0 };
        (0..).take(log.len()).map(row).collect()
    }

    #[test]
    fn the_seed_alone_decides_the_model() {
        let log = log(400);
        let split = Split { validation: 240..320, test: 320..400 };
        let scores = || run(&log, &split).0.score(&log, &all(&log)).expect("scores");
        assert_eq!(scores(), scores());
    }

    #[test]
    fn nothing_in_the_test_period_reaches_the_model() {
        let log = log(400);
        let split = Split { validation: 240..320, test: 320..400 };
        let mut forged = log.clone();
        forged.labels.as_mut().expect("labelled")[320..].iter_mut().for_each(|label| *label = !*label);
        let scores = |log: &Log| run(log, &split).0.score(log, &all(log)).expect("scores");
        assert_eq!(scores(&log), scores(&forged));
    }

    #[test]
    fn the_final_model_is_trained_for_the_epochs_that_validation_chose() {
        let log = log(400);
        let (trained, reports) = run(&log, &Split { validation: 240..320, test: 320..400 });
        let (chosen, finals): (Vec<_>, Vec<_>) = reports.into_iter().partition(|report| !report.is_final);
        let best =
            chosen.iter().min_by(|a, b| a.validation_loss.partial_cmp(&b.validation_loss).expect("losses"));
        assert_eq!(best.expect("an epoch").epoch, trained.epochs);
        assert_eq!(finals.len(), trained.epochs);
    }

    #[test]
    fn without_a_validation_slice_every_epoch_is_run_once() {
        let (trained, reports) = run(&log(100), &Split { validation: 80..80, test: 80..100 });
        assert_eq!((trained.epochs, reports.len()), (6, 6));
        assert!(reports[5].loss < reports[0].loss);
    }
}
