//! Which columns of a row each of two towers sees: the user's, or the item's. What follows from both belongs to neither.

use millrace::features::{Encoder, Place};

use crate::config::Owner;

/// The columns of one side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TowerColumns {
    /// Columns of ids that have an embedding.
    pub ids: Vec<usize>,
    /// Columns of ids that have none: crosses.
    pub crosses: Vec<usize>,
    /// Dense values.
    pub dense: Vec<usize>,
}

/// The columns of both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Towers {
    /// The user's.
    pub user: TowerColumns,
    /// The item's.
    pub item: TowerColumns,
}

impl Towers {
    /// The columns of `encoder` by the owner of the features that they follow from; `None` where one follows from features
    /// of both, which in a pipeline of two towers none does.
    pub fn of(encoder: &Encoder, owner: impl Fn(&str) -> Owner) -> Option<Self> {
        let mut towers = Self::default();
        for columns in encoder.columns() {
            let mut owners = columns.of.iter().map(|name| owner(name));
            let first = owners.next().expect("a column follows from something");
            if owners.any(|owner| owner != first) {
                return None;
            }
            let side = match first {
                Owner::User => &mut towers.user,
                Owner::Item => &mut towers.item,
            };
            match columns.place {
                Place::Ids(ids) if ids.start < encoder.deep_columns() => side.ids.extend(ids),
                Place::Ids(crosses) => side.crosses.extend(crosses),
                Place::Dense(dense) => side.dense.extend(dense),
            }
        }
        Some(towers)
    }
}

impl TowerColumns {
    /// All columns of ids, which ascend.
    pub fn wide(&self) -> Vec<usize> {
        self.ids.iter().chain(&self.crosses).copied().collect()
    }
}
