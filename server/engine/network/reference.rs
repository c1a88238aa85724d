//! A network's scores in double precision, row by row: what engines are held against. Far too slow to serve.

use std::io;

use super::{Field, Layer, LayerKind, Network, Pooling, Table};
use crate::tensor::{Column, Rows, Values};

impl Network {
    /// A score for each of `rows`, whose ids must lie within the tables.
    ///
    /// # Errors
    /// When a table cannot be read.
    ///
    /// # Panics
    /// When an id lies outside of its table, or the rows are of another signature.
    pub fn score(&self, rows: &Rows) -> io::Result<Vec<f64>> {
        (0..rows.len()).map(|row| self.score_row(ids(rows, row), dense(rows, row))).collect()
    }

    fn score_row(&self, ids: &[i32], dense: &[f32]) -> io::Result<f64> {
        let mut first = Vec::with_capacity(self.input_width());
        for field in &self.fields {
            first.extend(self.embedding(field, ids)?);
        }
        first.extend(dense.iter().copied().map(f64::from));
        let hidden = self.layers.iter().fold(first.clone(), |input, layer| layer.output(&first, &input));
        let deep: f64 = hidden.iter().zip(&self.last).map(|(unit, &weight)| unit * f64::from(weight)).sum();
        let mut logit = deep;
        for &id in ids {
            logit += row_of(&self.wide, id)?[0];
        }
        Ok(1.0 / (1.0 + (-logit).exp()))
    }

    fn embedding(&self, field: &Field, ids: &[i32]) -> io::Result<Vec<f64>> {
        let ids = &ids[field.first_column..][..field.columns];
        let mut sums = vec![0.0; self.embeddings.dimension()];
        for &id in ids {
            let embedding = row_of(&self.embeddings, id)?;
            sums.iter_mut().zip(embedding).for_each(|(sum, number)| *sum += number);
        }
        if let Pooling::Mean { padding } = field.pooling {
            let there = ids.iter().filter(|&&id| id > padding).count().max(1) as f64;
            for sum in &mut sums {
                *sum /= there;
            }
        }
        Ok(sums)
    }
}

impl Layer {
    fn output(&self, first: &[f64], input: &[f64]) -> Vec<f64> {
        let mut sums: Vec<f64> = self.bias.iter().copied().map(f64::from).collect();
        for (number, weights) in input.iter().zip(self.weights.chunks_exact(self.outputs)) {
            sums.iter_mut().zip(weights).for_each(|(sum, &weight)| *sum += number * f64::from(weight));
        }
        match self.kind {
            LayerKind::Relu => sums.iter_mut().for_each(|sum| *sum = sum.max(0.0)),
            LayerKind::Cross => {
                let others = first.iter().zip(input);
                sums.iter_mut().zip(others).for_each(|(sum, (first, input))| *sum = first * *sum + input);
            }
        }
        sums
    }
}

fn row_of(table: &Table, id: i32) -> io::Result<Vec<f64>> {
    let row = usize::try_from(id).expect("an id within its table");
    let mut numbers = Vec::new();
    table.read(row, 1, &mut numbers)?;
    Ok(numbers.into_iter().map(f64::from).collect())
}

fn ids(rows: &Rows, row: usize) -> &[i32] {
    match rows.columns() {
        [ids, ..] => match ids.values() {
            Values::I32(values) => of_row(ids, values, row),
            Values::F32(_) => panic!("the first input is ids"),
        },
        [] => panic!("the first input is ids"),
    }
}

fn dense(rows: &Rows, row: usize) -> &[f32] {
    match rows.columns() {
        [_, dense] => match dense.values() {
            Values::F32(values) => of_row(dense, values, row),
            Values::I32(_) => panic!("the second input is dense values"),
        },
        _ => &[],
    }
}

fn of_row<'v, T>(column: &Column, values: &'v [T], row: usize) -> &'v [T] {
    &values[row * column.width()..][..column.width()]
}
