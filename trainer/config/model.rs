//! What a pipeline says of the model: what it is, how large, and how it learns.

use serde::Deserialize;

use super::ConfigError;

/// The model and its optimisers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// What the deep part is; without it, `cross_layers` says.
    pub architecture: Option<Architecture>,
    /// Numbers in the embedding of an id.
    pub embedding_dimension: usize,
    /// Cross layers of DCN-v2 before the hidden ones; none makes it Wide & Deep.
    pub cross_layers: usize,
    /// Units of each hidden layer, in both towers where there are two.
    pub hidden_units: Vec<usize>,
    /// Numbers in the vector of a user and of an item, where there are two towers; 32 without it.
    pub output_dimension: Option<usize>,
    /// Rows in an update.
    pub batch_rows: usize,
    /// The most passes over the examples; the validation slice may choose fewer.
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
    let sizes = [model.embedding_dimension, model.batch_rows, model.epochs, model.output_dimension()];
    if sizes.iter().chain(&model.hidden_units).any(|&size| size == 0) {
        return Err(ConfigError::Invalid("model: dimensions, units, batch_rows and epochs must be above 0"));
    }
    let rates = [model.mlp_rate, model.embedding_rate, model.wide_rate];
    let penalties = [model.embedding_l2, model.wide_l1, model.wide_l2];
    let sound = rates.iter().all(|&rate| rate > 0.0) && penalties.iter().all(|&penalty| penalty >= 0.0);
    if sound {
        Ok(())
    } else {
        Err(ConfigError::Invalid("model: rates must be above 0, penalties not below"))
    }
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
