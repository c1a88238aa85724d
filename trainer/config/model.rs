//! What a pipeline says of the model: what it is, how large, and how it learns.

use serde::Deserialize;

use super::ConfigError;

/// The model and its optimisers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// What the deep part is; without it, `cross_layers` says.
    pub architecture: Option<Architecture>,
    /// Numbers in the embedding of an id; 1 to 4096.
    pub embedding_dimension: usize,
    /// Cross layers of DCN-v2 before the hidden ones; none makes it Wide & Deep, and 16 are the most.
    pub cross_layers: usize,
    /// Units of each hidden layer, in both towers where there are two; 1 to 65536 each, in at most 16 layers.
    pub hidden_units: Vec<usize>,
    /// Numbers in the vector of a user and of an item, where there are two towers; 1 to 4096, and 32 without it.
    pub output_dimension: Option<usize>,
    /// Rows in an update; 1 to 1048576.
    pub batch_rows: usize,
    /// The most passes over the examples; the validation slice may choose fewer. 1 to 1000.
    pub epochs: usize,
    /// Adam's rate, for the layers.
    pub mlp_rate: f32,
    /// What the embeddings learn by.
    pub embedding_optimizer: EmbeddingOptimizer,
    /// Its rate. Adam wants a smaller one than Adagrad, whose steps become smaller by themselves.
    pub embedding_rate: f32,
    /// The penalty on an embedding's square, for each example that it occurs in.
    pub embedding_l2: f32,
    /// FTRL's alpha, for the wide part.
    pub wide_rate: f32,
    /// FTRL's penalty on a weight's size.
    pub wide_l1: f32,
    /// FTRL's penalty on a weight's square.
    pub wide_l2: f32,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            architecture: None,
            embedding_dimension: 16,
            cross_layers: 0,
            hidden_units: vec![64, 32],
            output_dimension: None,
            batch_rows: 4096,
            epochs: 20,
            mlp_rate: 0.001,
            embedding_optimizer: EmbeddingOptimizer::Adagrad,
            embedding_rate: 0.05,
            embedding_l2: 0.0,
            wide_rate: 0.05,
            wide_l1: 0.0,
            wide_l2: 0.0,
        }
    }
}

/// What the deep part of a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Layers that see everything.
    WideAndDeep,
    /// The same, with cross layers before them.
    DcnV2,
    /// A network for the user and one for the item, whose vectors are multiplied.
    TwoTower,
}

/// What embeddings learn by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingOptimizer {
    /// Row-wise Adagrad, which keeps a number for each row.
    #[default]
    Adagrad,
    /// Lazy Adam, which keeps two for each weight: the table takes three times its memory.
    Adam,
}

impl ModelConfig {
    /// What the deep part is.
    pub fn architecture(&self) -> Architecture {
        let by_layers = if self.cross_layers > 0 { Architecture::DcnV2 } else { Architecture::WideAndDeep };
        self.architecture.unwrap_or(by_layers)
    }

    /// What the model is called, as its manifest says it.
    pub fn kind(&self) -> &'static str {
        match self.architecture() {
            Architecture::WideAndDeep => "wide_and_deep",
            Architecture::DcnV2 => "dcn_v2",
            Architecture::TwoTower => "two_tower",
        }
    }

    /// Numbers in the vector of a user and of an item.
    pub fn output_dimension(&self) -> usize {
        self.output_dimension.unwrap_or(32)
    }
}

/// Whether the model can be made and learn.
pub(super) fn check_model(model: &ModelConfig) -> Result<(), ConfigError> {
    check_architecture(model)?;
    check_sizes(model)?;
    let rates = [model.mlp_rate, model.embedding_rate, model.wide_rate];
    let penalties = [model.embedding_l2, model.wide_l1, model.wide_l2];
    let sound = rates.iter().all(|&rate| rate > 0.0 && rate.is_finite())
        && penalties.iter().all(|&penalty| penalty >= 0.0 && penalty.is_finite());
    if sound {
        Ok(())
    } else {
        Err(ConfigError::Invalid("model: rates must be above 0, penalties not below, all of them finite"))
    }
}

/// Bounds that no useful model meets, so that a slip is told before a log is read for it.
fn check_sizes(model: &ModelConfig) -> Result<(), ConfigError> {
    let units = model.hidden_units.iter().map(|&units| ("model.hidden_units", units, 1, MOST_UNITS));
    let sizes = [
        ("model.embedding_dimension", model.embedding_dimension, 1, MOST_NUMBERS),
        ("model.output_dimension", model.output_dimension(), 1, MOST_NUMBERS),
        ("model.cross_layers", model.cross_layers, 0, MOST_LAYERS),
        ("model.batch_rows", model.batch_rows, 1, MOST_BATCH_ROWS),
        ("model.epochs", model.epochs, 1, MOST_EPOCHS),
    ];
    for (key, size, least, most) in sizes.into_iter().chain(units) {
        if !(least..=most).contains(&size) {
            return Err(ConfigError::Bounds { key, least, most });
        }
    }
    if model.hidden_units.len() > MOST_LAYERS {
        return Err(ConfigError::Invalid("model.hidden_units: at most 16 layers"));
    }
    Ok(())
}

fn check_architecture(model: &ModelConfig) -> Result<(), ConfigError> {
    let fault = match (model.architecture(), model.cross_layers) {
        (Architecture::WideAndDeep, 1..) => "model.cross_layers: wide_and_deep has none; dcn_v2 has",
        (Architecture::DcnV2, 0) => "model.architecture: dcn_v2 needs cross_layers",
        (Architecture::TwoTower, 1..) => "model.cross_layers: two_tower has none",
        (Architecture::TwoTower, 0) => return Ok(()),
        _ if model.output_dimension.is_some() => "model.output_dimension: is for two_tower",
        _ => return Ok(()),
    };
    Err(ConfigError::Invalid(fault))
}

/// Numbers in an embedding, and in the vector of a tower.
const MOST_NUMBERS: usize = 4096;
/// Units of a hidden layer.
const MOST_UNITS: usize = 65_536;
/// Hidden layers, and cross layers.
const MOST_LAYERS: usize = 16;
const MOST_BATCH_ROWS: usize = 1 << 20;
const MOST_EPOCHS: usize = 1000;
