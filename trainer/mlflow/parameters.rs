//! A pipeline as the parameters of a run: one for each key of its file, by its path.

use toml::{Table, Value};

/// The keys and values of `pipeline`, as its file says them: `model.embedding_dimension` is `16`. The tables of a list
/// go by their `name` where they have one, and else by their place, from 0.
pub(super) fn parameters(pipeline: &Table) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (key, value) in pipeline {
        collect(value, key.clone(), &mut found);
    }
    found
}

fn collect(value: &Value, path: String, found: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                collect(value, format!("{path}.{key}"), found);
            }
        }
        Value::Array(values) if values.first().is_some_and(Value::is_table) => {
            for (place, value) in values.iter().enumerate() {
                let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
                collect(value, format!("{path}.{}", name.unwrap_or_else(|| place.to_string())), found);
            }
        }
        Value::String(text) => found.push((path, text.clone())),
        _ => found.push((path, value.to_string())),
    }
}

/// `key` in the characters and the length that every store of a tracking server takes.
pub(super) fn fitting_key(key: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-./ ".contains(c);
    key.chars().map(|c| if allowed(c) { c } else { '_' }).take(MAX_KEY).collect()
}

/// `value` cut to the length that a tracking server takes.
pub(super) fn fitting_value(value: &str) -> String {
    value.chars().take(MAX_VALUE).collect()
}

/// Characters of a key.
const MAX_KEY: usize = 250;
/// Characters of a value: of a parameter it may be 6,000, of a tag 8,000 or 5,000.
const MAX_VALUE: usize = 5000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_goes_by_its_path() {
        let text = r#"
            seed = 7
            [model]
            hidden_units = [64, 32]
            architecture = "dcn_v2"
            [[features.columns]]
            name = "user_id"
            role = "categorical"
            [[features.crosses]]
            size = 100
        "#;
        let table: Table = text.parse().expect("TOML");
        let mut found = parameters(&table);
        found.sort();
        let expected = [
            ("features.columns.user_id.name", "user_id"),
            ("features.columns.user_id.role", "categorical"),
            ("features.crosses.0.size", "100"),
            ("model.architecture", "dcn_v2"),
            ("model.hidden_units", "[64, 32]"),
            ("seed", "7"),
        ];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn keys_and_values_are_made_to_fit() {
        assert_eq!(fitting_key("features.größe (cm)"), "features.gr__e _cm_");
        assert_eq!(fitting_key(&"k".repeat(300)).len(), 250);
        assert_eq!(fitting_value(&"ü".repeat(6000)).chars().count(), 5000);
    }
}
