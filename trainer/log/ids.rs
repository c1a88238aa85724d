//! A column of ids, each distinct one stored once.
//!
//! Ids are kept in the one spelling in which a request would carry them: an integer that a file stores as a float is
//! an integer again, and every other id is its text.

use std::collections::HashMap;

use millrace::features::Value;

/// A column of ids: a code a row, and the id of each code.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ids {
    codes: Vec<u32>,
    values: Vec<Value>,
}

impl Ids {
    /// The column that holds `texts`.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut interner = Interner::default();
        texts.into_iter().for_each(|text| interner.push(text));
        interner.finish()
    }

    /// The code of each row. Codes count from 0 in the order in which the file first names the ids.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// The id of each code.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The id of `row`.
    pub fn value(&self, row: usize) -> &Value {
        &self.values[self.codes[row] as usize]
    }

    /// The number of distinct ids.
    pub fn distinct(&self) -> usize {
        self.values.len()
    }

    /// Makes row `i` what row `order[i]` was.
    pub(super) fn reorder(&mut self, order: &[usize]) {
        super::reorder(&mut self.codes, order);
    }
}

/// Collects a column of ids.
#[derive(Debug, Default)]
pub struct Interner {
    codes_by_text: HashMap<String, u32>,
    missing: Option<u32>,
    ids: Ids,
}

impl Interner {
    /// Adds the id of the next row.
    pub fn push(&mut self, text: &str) {
        let code = self.code(text);
        self.ids.codes.push(code);
    }

    /// Adds [`Value::Missing`] for the next row.
    pub fn push_missing(&mut self) {
        let code = self.missing.unwrap_or_else(|| self.add(Value::Missing));
        self.missing = Some(code);
        self.ids.codes.push(code);
    }

    /// Adds a list of the ids `texts` for the next row.
    pub fn push_list<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        let texts: Vec<&str> = texts.into_iter().collect();
        // One text for each list, whatever is in its ids.
        let key = serde_json::to_string(&texts).expect("texts are JSON");
        let code = match self.codes_by_text.get(&key) {
            Some(&code) => code,
            None => self.add(Value::List(texts.into_iter().map(value).collect())),
        };
        self.codes_by_text.insert(key, code);
        self.ids.codes.push(code);
    }

    /// The column.
    pub fn finish(self) -> Ids {
        self.ids
    }

    fn code(&mut self, text: &str) -> u32 {
        if let Some(&code) = self.codes_by_text.get(text) {
            return code;
        }
        let code = self.add(value(text));
        self.codes_by_text.insert(text.to_owned(), code);
        code
    }

    fn add(&mut self, value: Value) -> u32 {
        let code = u32::try_from(self.ids.values.len()).expect("a log of fewer than four billion ids");
        self.ids.values.push(value);
        code
    }
}

/// The value that a request would carry for the id `text`.
fn value(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => Value::Int(number),
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ids_share_a_code_and_integers_become_integers() {
        let ids = Ids::of(["17850", "85123A", "17850", "007"]);
        assert_eq!(ids.codes(), [0, 1, 0, 2]);
        assert_eq!(
            ids.values(),
            [Value::Int(17850), Value::Text("85123A".into()), Value::Text("007".into())]
        );
        assert_eq!((ids.value(2), ids.distinct()), (&Value::Int(17850), 3));
    }

    #[test]
    fn equal_lists_share_a_code_and_different_ones_do_not() {
        let mut interner = Interner::default();
        for list in [&["a", "7"][..], &["a,7"], &[], &["a", "7"], &["7", "a"]] {
            interner.push_list(list.iter().copied());
        }
        let ids = interner.finish();
        assert_eq!(ids.codes(), [0, 1, 2, 0, 3]);
        assert_eq!(ids.value(3), &Value::List(vec![Value::Text("a".into()), Value::Int(7)]));
        assert_eq!(ids.value(2), &Value::List(Vec::new()));
    }

    #[test]
    fn what_is_missing_shares_a_code_too() {
        let mut interner = Interner::default();
        interner.push_missing();
        interner.push("?");
        interner.push_missing();
        let ids = interner.finish();
        assert_eq!(ids.codes(), [0, 1, 0]);
        assert_eq!(ids.values(), [Value::Missing, Value::Text("?".into())]);
    }
}
