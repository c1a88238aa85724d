//! Scores on the GPU that has the model and the catalogue's items: a question over the whole catalogue sends the user there,
//! and the best come back. This is for models that our own engine serves, whose columns are each the user's or the item's.
//!
//! What is asked of candidates alone is scored as whole rows, by the same engine.

use std::sync::Arc;

use super::{
    OpenError, Query, RecommendError, Source,
    best::Scored,
    rows::WholeRows,
    search::{Block, GoOn, Pairs},
};
use crate::{
    engine::cuda::{CudaItems, CudaModel, CudaSearch, Items, Search, Searched},
    features::{Catalogue, Encoder, Value},
    tensor::Rows,
};

/// A search on a GPU.
pub(super) struct OnGpu {
    rows: WholeRows<CudaSearch>,
}

/// The items of `catalogue` beside the model, for so many searches, encoded with one of the users; `None` where a column follows from user and item
/// together, so that no item can be there without a user. After each block of them `between` says whether to go on.
pub(super) fn items(
    model: &CudaModel,
    (encoder, users): (&Encoder, &[Vec<Value>]),
    (catalogue, searches): (&Catalogue, usize),
    mut between: impl FnMut() -> bool,
) -> Result<Option<CudaItems>, OpenError> {
    let Some(is_items) = catalogue.item_columns(encoder) else { return Ok(None) };
    let user = users.first().map_or(&[][..], Vec::as_slice);
    let user = catalogue.user(encoder, user).map_err(OpenError::User)?;
    let items = Items { count: catalogue.count(), is_items: &is_items, searches };
    let held = model.hold_items(items, |range, rows| {
        catalogue.encode(encoder, &user, range, rows);
        between()
    })?;
    held.ok_or(OpenError::Stopped).map(Some)
}

impl OnGpu {
    /// A search of `items`, which are those of the catalogue.
    pub(super) fn open(
        source: Source<'_>,
        catalogue: &Arc<Catalogue>,
        items: &CudaItems,
    ) -> Result<Self, OpenError> {
        Ok(Self { rows: WholeRows::new(source.encoder, catalogue, items.open()?, source.batch_rows) })
    }
}

impl Pairs for OnGpu {
    fn begin(&mut self, user: &Rows) -> Result<(), RecommendError> {
        self.rows.begin(user)
    }

    fn score(&mut self, block: &Block<'_>, scores: &mut Vec<f32>) -> Result<(), RecommendError> {
        self.rows.score(block, scores)
    }

    fn best(&mut self, query: &Query, go_on: &mut GoOn<'_>) -> Option<Result<Vec<Scored>, RecommendError>> {
        let takes = self.rows.engine().takes(query.k, query.excluded.len());
        if query.candidates.is_some() || !takes {
            return None;
        }
        let mut stopped = None;
        let mut go_on = || {
            stopped = go_on().err();
            stopped.is_none()
        };
        // Any item does, for what the row says of it is not looked at; and there is one.
        let user = self.rows.pair(0).clone();
        let search = Search { user: &user, k: query.k, excluded: &query.excluded };
        let searched = self.rows.engine().best(search, &mut go_on);
        Some(match searched {
            Ok(Searched::Best(best)) => {
                Ok(best.into_iter().map(|(item, score)| Scored { item, score }).collect())
            }
            Ok(Searched::NotFinite) => Err(RecommendError::NotFinite),
            Ok(Searched::Stopped) => Err(stopped.unwrap_or(RecommendError::Cancelled)),
            Err(error) => Err(error.into()),
        })
    }

    fn block_items(&self) -> usize {
        self.rows.block_items()
    }

    fn probability(&self, score: f32) -> f32 {
        self.rows.probability(score)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::{
        engine::cuda::{Cuda, CudaModelOptions, Precision, sample},
        features::{Schema, Vocabulary},
    };

    /// Whether items can be held beside a model with a cross of these two.
    fn are_held(cross: &str) -> bool {
        let schema = format!(
            r#"
            feature = [
              {{ name = "user", kind = "categorical", source = {{ hash = 5 }} }},
              {{ name = "item", kind = "categorical", source = {{ hash = 5 }} }},
              {{ name = "brand", kind = "categorical", source = {{ hash = 5 }} }},
              {{ name = "price", kind = "numeric", mean = 0.0, std = 1.0 }},
              {{ name = "age", kind = "numeric", mean = 0.0, std = 1.0 }},
            ]
            cross = [{{ features = {cross}, buckets = 5 }}]
            "#
        );
        let schema: Schema = toml::from_str(&schema).expect("a schema");
        let encoder = Encoder::new(schema, |_| Ok(Vocabulary::default())).expect("a layout");
        let item = |id| vec![Value::Int(id), Value::Int(id % 2), Value::Float(0.5)];
        let features = ["item", "brand", "price"].map(String::from);
        let catalogue = Catalogue::new(&encoder, "item".into(), &features, (0..9).map(item).collect());
        let catalogue = catalogue.expect("items");
        let (cuda, _device) = Cuda::on_a_fake();
        let max_rows = NonZeroUsize::new(4).expect("not zero");
        let options = CudaModelOptions {
            precision: Precision::Single,
            max_rows,
            slots: NonZeroUsize::MIN,
            direct_bytes: CudaModelOptions::DIRECT_BYTES,
        };
        let network = sample::wide_and_deep();
        let model = cuda.load_network(&network, &sample::signature(&network), options).expect("loaded");
        let users = [vec![Value::Int(1), Value::Missing, Value::Missing, Value::Missing, Value::Float(0.5)]];
        let held = items(&model, (&encoder, &users), (&catalogue, 1), || true);
        let stopped = items(&model, (&encoder, &users), (&catalogue, 1), || false);
        let held = held.expect("room for them");
        assert!(held.is_none() || matches!(stopped, Err(OpenError::Stopped)));
        held.is_some()
    }

    #[test]
    fn items_are_held_where_nothing_follows_from_user_and_item_together() {
        assert!(are_held(r#"["item", "brand"]"#));
        assert!(!are_held(r#"["user", "item"]"#));
    }
}
