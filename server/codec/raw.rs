//! Rows of a body of the predict dialect as the caller wrote them, where [`super::json`] gives them as the model takes
//! them. For whoever looks at a few rows of a body that was answered: it builds a tree for each, and judges nothing.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::features::{Encoder, Value};

/// The values of the rows numbered `wanted`, ascending from 0, of `body`, each in the order of a positional row; fewer
/// where the body has not that many. Fails where it is no such body.
pub fn decode(
    body: &[u8],
    encoder: &Encoder,
    wanted: &[usize],
) -> Result<Vec<Vec<Value>>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let rows = json.deserialize_map(Body(wanted))?;
    Ok(rows.into_iter().map(|row| row.positional(encoder)).collect())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Positional(Vec<Value>),
    Named(HashMap<String, Value>),
}

impl Row {
    fn positional(self, encoder: &Encoder) -> Vec<Value> {
        match self {
            Self::Positional(values) => values,
            // What is left out is missing.
            Self::Named(mut values) => {
                encoder.sent().map(|feature| values.remove(&feature.name).unwrap_or(Value::Missing)).collect()
            }
        }
    }
}

struct Body<'a>(&'a [usize]);

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Vec<Row>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the key `input`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Row>, A::Error> {
        let mut rows = Vec::new();
        while map.next_key::<IgnoredAny>()?.is_some() {
            // There is no other key than `input`.
            rows = map.next_value_seed(Input(self.0))?;
        }
        Ok(rows)
    }
}

struct Input<'a>(&'a [usize]);

impl<'de> DeserializeSeed<'de> for Input<'_> {
    type Value = Vec<Row>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Row>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Input<'_> {
    type Value = Vec<Row>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Vec<Row>, A::Error> {
        let mut found = Vec::with_capacity(self.0.len());
        let mut number = 0;
        loop {
            let is_there = if self.0.get(found.len()) == Some(&number) {
                rows.next_element()?.map(|row| found.push(row)).is_some()
            } else {
                rows.next_element::<IgnoredAny>()?.is_some()
            };
            if !is_there {
                return Ok(found);
            }
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::json,
        features::{Schema, Vocabulary},
        tensor::Rows,
    };

    fn encoder() -> Encoder {
        let schema: Schema = toml::from_str(
            r#"feature = [
              { name = "user", kind = "categorical", source = "vocabulary" },
              { name = "price", kind = "numeric", mean = 0.0, std = 1.0, optional = true },
              { name = "tags", kind = "categorical", source = { hash = 9 }, values = { max = 2, pooling = "sum" } },
            ]"#,
        )
        .expect("a schema");
        Encoder::new(schema, |_| Ok(Vocabulary::new(["17"]).expect("an id"))).expect("a layout")
    }

    const BODY: &str =
        r#" {"input": [[17, 2.5, ["a"]], {"tags": [], "user": "\u0078"}, [18, null, [1, "b"]]]} "#;

    fn rows(wanted: &[usize]) -> String {
        let rows = decode(BODY.as_bytes(), &encoder(), wanted).expect("rows");
        serde_json::to_string(&rows).expect("JSON")
    }

    #[test]
    fn the_rows_that_are_wanted_come_as_they_were_sent_in_the_order_of_the_features() {
        assert_eq!(rows(&[0, 1, 2]), r#"[[17,2.5,["a"]],["x",null,[]],[18,null,[1,"b"]]]"#);
        assert_eq!(rows(&[1]), r#"[["x",null,[]]]"#);
        assert_eq!(rows(&[0, 2, 3]), r#"[[17,2.5,["a"]],[18,null,[1,"b"]]]"#);
        assert_eq!(rows(&[]), "[]");
    }

    #[test]
    fn what_is_looked_at_is_what_was_scored() {
        let encoder = encoder();
        for row in [
            r#"[17, 2.5, ["a", 3]]"#,
            r#"["17", -0, []]"#,
            "[9223372036854775807, 12345678901234567890, [-7]]",
            r#"["\u0031\u0037", 1e3, ["\ud83d\ude00"]]"#,
            r#"{"tags": ["a"], "user": "y"}"#,
        ] {
            let body = format!(r#"{{ "input" : [ [1, null, []], {row} ] }}"#);
            let [mut scored, mut seen] = [(); 2].map(|()| Rows::new(encoder.signature()));
            json::decode(body.as_bytes(), &encoder, &mut scored, 2).expect(row);
            for values in decode(body.as_bytes(), &encoder, &[0, 1]).expect(row) {
                encoder.encode(values.iter().map(Value::raw), &mut seen).expect(row);
            }
            assert_eq!(format!("{seen:?}"), format!("{scored:?}"), "{row}");
        }
    }

    #[test]
    fn what_is_no_body_is_an_error() {
        for body in ["", "[]", r#"{"input": 1}"#, r#"{"input": [1]}"#, r#"{"input": [[1]"#] {
            decode(body.as_bytes(), &encoder(), &[0]).expect_err(body);
        }
    }
}
