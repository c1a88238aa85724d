//! Rows as the engine takes them, for callers that score thousands at once: the inputs of the model's signature one
//! after the other, each all of its rows, row-major, in elements of four bytes, little-endian. How many rows there are
//! follows from the length. Scores go back as they are, in the same byte order.
//!
//! Nothing is encoded here: indices are rows of the model's table, and numbers are standardised already. So every
//! element is held against what the encoder could have written in its column.

use std::ops::Range;

use crate::{
    features::Encoder,
    tensor::{Rows, TensorSpec, Values},
};

/// Why a body holds no rows that a model could score.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body does not end where a row does.
    #[error("the body has {bytes} bytes, which is no multiple of the {row_bytes} bytes of a row")]
    Length {
        /// The length of the body.
        bytes: usize,
        /// What one row takes over all inputs.
        row_bytes: usize,
    },
    /// The body is empty.
    #[error("the body holds no rows")]
    Empty,
    /// There are more rows than a request may carry.
    #[error("the body holds more than {limit} rows")]
    TooManyRows {
        /// Rows that a request may carry.
        limit: usize,
    },
    /// An index that its column cannot have.
    #[error("row {row}, input `{input}`, column {column}: expected an index from {first} to {last}")]
    Index {
        /// The row, from 0.
        row: usize,
        /// The input.
        input: String,
        /// The column of the input, from 0.
        column: usize,
        /// The least index of the column.
        first: i32,
        /// The largest one.
        last: i32,
    },
    /// A number that is none, or is infinite.
    #[error("row {row}, input `{input}`, column {column}: expected a finite number")]
    NotFinite {
        /// The row, from 0.
        row: usize,
        /// The input.
        input: String,
        /// The column of the input, from 0.
        column: usize,
    },
}

/// Appends the rows of `body` to `rows`, at most `limit` of them. On an error `rows` may hold rows that no engine may
/// see.
pub fn decode(body: &[u8], encoder: &Encoder, rows: &mut Rows, limit: usize) -> Result<(), DecodeError> {
    let (bytes, row_bytes) = (body.len(), encoder.signature().bytes_per_row());
    let row_bytes = row_bytes.expect("a row of a model that was loaded fits into memory");
    if !bytes.is_multiple_of(row_bytes) {
        return Err(DecodeError::Length { bytes, row_bytes });
    }
    let (before, count) = (rows.len(), bytes / row_bytes);
    if count == 0 {
        return Err(DecodeError::Empty);
    }
    if count > limit {
        return Err(DecodeError::TooManyRows { limit });
    }
    copy(body, rows, count);
    check(encoder, rows, before)
}

/// Appends the scores to `body`.
pub fn encode(scores: &[f32], body: &mut Vec<u8>) {
    let before = body.len();
    body.resize(before + size_of_val(scores), 0);
    let (places, _) = body[before..].as_chunks_mut();
    for (place, score) in places.iter_mut().zip(scores) {
        *place = score.to_le_bytes();
    }
}

/// Appends the `count` rows of `body`, which has as many bytes as they take.
fn copy(body: &[u8], rows: &mut Rows, count: usize) {
    let mut rest = body;
    rows.append(count, |width, values| {
        let (elements, after) = rest.as_chunks().0.split_at(count * width);
        rest = after.as_flattened();
        // On a little-endian host both are plain copies.
        match values {
            Values::F32(values) => values.extend(elements.iter().map(|&bytes| f32::from_le_bytes(bytes))),
            Values::I32(values) => values.extend(elements.iter().map(|&bytes| i32::from_le_bytes(bytes))),
        }
    });
}

/// Judges every element of `rows` from the row `before` on.
fn check(encoder: &Encoder, rows: &Rows, before: usize) -> Result<(), DecodeError> {
    let mut inputs = encoder.signature().inputs.iter().zip(rows.columns());
    inputs.try_for_each(|(input, column)| {
        let start = before * input.width;
        match column.values() {
            Values::I32(indices) => check_indices(&indices[start..], input, encoder.id_ranges()),
            Values::F32(numbers) => check_numbers(&numbers[start..], input),
        }
    })
}

fn check_indices(indices: &[i32], input: &TensorSpec, ranges: &[Range<i32>]) -> Result<(), DecodeError> {
    let outside = first(indices, input.width, |row| {
        row.iter().zip(ranges).map(|(index, range)| !range.contains(index))
    });
    let Some((row, column)) = outside else { return Ok(()) };
    let Range { start, end } = ranges[column];
    Err(DecodeError::Index { row, input: input.name.clone(), column, first: start, last: end - 1 })
}

fn check_numbers(numbers: &[f32], input: &TensorSpec) -> Result<(), DecodeError> {
    let strange = first(numbers, input.width, |row| row.iter().map(|number| !number.is_finite()));
    let Some((row, column)) = strange else { return Ok(()) };
    Err(DecodeError::NotFinite { row, input: input.name.clone(), column })
}

/// The row and the column of the first element that is wrong, where `wrong` says of each in a row whether it is.
fn first<'a, T, W>(elements: &'a [T], width: usize, wrong: impl Fn(&'a [T]) -> W) -> Option<(usize, usize)>
where
    W: Iterator<Item = bool>,
{
    // An input without columns has no elements either.
    let mut rows = elements.chunks_exact(width.max(1));
    // No branch within a row, so that a wide one is judged by vector instructions.
    let row = rows.clone().position(|row| wrong(row).fold(false, |any, wrong| any | wrong))?;
    let column = wrong(rows.nth(row)?).position(|wrong| wrong)?;
    Some((row, column))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        codec::json,
        features::{Schema, Vocabulary},
    };

    /// Every kind of column: of ids the user's (0 to 2), the hour's (3 to 27), three of a list (28 to 31), the hash's
    /// (32 to 38) and a cross's (39 to 43); of numbers the price.
    const FEATURES: &str = r#"
        feature = [
          { name = "user", kind = "categorical", source = "vocabulary" },
          { name = "at", optional = true, kind = "categorical", source = "hour_of_day" },
          { name = "price", kind = "numeric", mean = 1.0, std = 2.0 },
          { name = "tags", values = { max = 3, pooling = "sum" }, kind = "categorical", source = "vocabulary" },
          { name = "hashed", from = "user", kind = "categorical", source = { hash = 7 } },
        ]
        cross = [{ features = ["user", "hashed"], buckets = 5 }]
    "#;

    /// Bytes that a row of these takes.
    const ROW_BYTES: usize = 4 * (7 + 1);

    fn encoder() -> Encoder {
        encoder_of(FEATURES)
    }

    fn encoder_of(schema: &str) -> Encoder {
        let schema: Schema = toml::from_str(schema).expect("a schema");
        Encoder::new(schema, |_| Ok(Vocabulary::new(["17", "x"]).expect("two ids"))).expect("a layout")
    }

    fn rows_of(encoder: &Encoder, json: &str) -> Rows {
        let mut rows = Rows::new(encoder.signature());
        json::decode(json.as_bytes(), encoder, &mut rows, 100).expect("rows");
        rows
    }

    /// What a caller sends for these rows.
    fn body(rows: &Rows) -> Vec<u8> {
        let bytes = |values: &Values| -> Vec<u8> {
            match values {
                Values::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                Values::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            }
        };
        rows.columns().iter().flat_map(|column| bytes(column.values())).collect()
    }

    fn read(body: &[u8]) -> Result<Rows, DecodeError> {
        let encoder = encoder();
        let mut rows = Rows::new(encoder.signature());
        decode(body, &encoder, &mut rows, 4).map(|()| rows)
    }

    /// Three good rows.
    fn three() -> Vec<u8> {
        let json = r#"{"input": [[17, 0, 1.5, ["x", 17]], ["x", null, 7, []], ["?", 82800, -2, ["x"]]]}"#;
        body(&rows_of(&encoder(), json))
    }

    /// The three rows with another element in `place`, counted in elements over all inputs.
    fn three_with(place: usize, element: [u8; 4]) -> Vec<u8> {
        let mut body = three();
        body[4 * place..4 * place + 4].copy_from_slice(&element);
        body
    }

    #[test]
    fn a_body_is_one_input_after_the_other_in_little_endian_elements() {
        let encoder = encoder_of(
            r#"feature = [
              { name = "a", kind = "categorical", source = { hash = 300 } },
              { name = "b", kind = "categorical", source = { hash = 300 } },
              { name = "x", kind = "numeric", mean = 0.0, std = 1.0 },
            ]"#,
        );
        let body = [
            [1, 0, 0, 0],
            [44, 1, 0, 0],
            [43, 1, 0, 0],
            [0x57, 2, 0, 0], // Two rows of `ids`,
            [0, 0, 0x80, 0x3f],
            [0, 0, 0, 0xc0], // and two of `dense`.
        ];
        let mut rows = Rows::new(encoder.signature());
        decode(body.as_flattened(), &encoder, &mut rows, 2).expect("two rows");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.columns()[0].values(), &Values::I32(vec![1, 300, 299, 599]));
        assert_eq!(rows.columns()[1].values(), &Values::F32(vec![1.0, -2.0]));
    }

    #[test]
    fn rows_are_added_behind_those_that_are_there() {
        let encoder = encoder();
        let mut rows = rows_of(&encoder, r#"{"input": [["x", 3600, 1, 17]]}"#);
        let mut expected = rows.clone();
        decode(&three(), &encoder, &mut rows, 3).expect("three rows");
        let three = read(&three()).expect("three rows");
        expected.extend_from(&three, 0..3);
        assert_eq!(rows, expected);
        // A mistake is counted from the body's first row.
        let error = decode(&three_with(0, (-1_i32).to_le_bytes()), &encoder, &mut rows, 3).expect_err("-1");
        assert!(matches!(error, DecodeError::Index { row: 0, column: 0, .. }), "{error}");
        let error = decode(&three_with(23, f32::NAN.to_le_bytes()), &encoder, &mut rows, 3).expect_err("NaN");
        assert!(matches!(error, DecodeError::NotFinite { row: 2, column: 0, .. }), "{error}");
    }

    #[test]
    fn an_index_is_held_against_the_range_of_its_own_column() {
        let ranges: [(i32, i32); 7] = [(0, 2), (3, 27), (28, 31), (28, 31), (28, 31), (32, 38), (39, 43)];
        for (place, row, column) in (0..21).map(|place| (place, place / 7, place % 7)) {
            let (first, last) = ranges[column];
            for good in [first, last] {
                read(&three_with(place, good.to_le_bytes())).expect("an index of the column");
            }
            for bad in [first - 1, last + 1, i32::MIN, i32::MAX] {
                let error = read(&three_with(place, bad.to_le_bytes())).expect_err("of another column");
                let expected = DecodeError::Index { row, input: "ids".into(), column, first, last };
                assert_eq!(error, expected, "{bad}");
            }
        }
        // Of an even number of mistakes in a row, the first is named.
        let error = read(&[0; ROW_BYTES]).expect_err("six of another column");
        assert_eq!(error, DecodeError::Index { row: 0, input: "ids".into(), column: 1, first: 3, last: 27 });
        assert_eq!(
            read(&three_with(8, 2_i32.to_le_bytes())).expect_err("the user's").to_string(),
            "row 1, input `ids`, column 1: expected an index from 3 to 27"
        );
    }

    #[test]
    fn a_number_must_be_finite_and_is_nothing_else() {
        for good in [0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE / 2.0] {
            read(&three_with(22, good.to_le_bytes())).expect("a number");
        }
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for row in 0..3 {
                let error = read(&three_with(21 + row, bad.to_le_bytes())).expect_err("no number");
                assert_eq!(error, DecodeError::NotFinite { row, input: "dense".into(), column: 0 });
            }
        }
        assert_eq!(
            read(&three_with(22, f32::NAN.to_le_bytes())).expect_err("NaN").to_string(),
            "row 1, input `dense`, column 0: expected a finite number"
        );
    }

    #[test]
    fn a_body_ends_where_a_row_does() {
        for bytes in [1, 4, ROW_BYTES - 1, ROW_BYTES + 1, 3 * ROW_BYTES - 4] {
            let error = read(&vec![0; bytes]).expect_err("no rows");
            assert_eq!(error, DecodeError::Length { bytes, row_bytes: ROW_BYTES });
        }
        assert_eq!(
            read(&[0; 33]).expect_err("no rows").to_string(),
            "the body has 33 bytes, which is no multiple of the 32 bytes of a row"
        );
    }

    #[test]
    fn no_rows_and_too_many_rows_are_refused() {
        assert_eq!(read(&[]), Err(DecodeError::Empty));
        let five = rows_of(&encoder(), &format!(r#"{{"input": [{}]}}"#, ["[17, 0, 1, []]"; 5].join(",")));
        assert_eq!(read(&body(&five)), Err(DecodeError::TooManyRows { limit: 4 }));
        let mut four = five.clone();
        four.resize(4);
        assert_eq!(read(&body(&four)), Ok(four));
    }

    #[test]
    fn a_model_of_numbers_alone_takes_them() {
        let encoder = encoder_of(r#"feature = [{ name = "x", kind = "numeric", mean = 0.0, std = 1.0 }]"#);
        let expected = rows_of(&encoder, r#"{"input": [[1], [2.5]]}"#);
        let mut rows = Rows::new(encoder.signature());
        decode(&body(&expected), &encoder, &mut rows, 2).expect("two numbers");
        assert_eq!(rows, expected);
    }

    #[test]
    fn scores_are_written_behind_what_is_there_in_little_endian_bytes() {
        let mut body = vec![7];
        encode(&[1.0, -0.0], &mut body);
        assert_eq!(body, [7, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x80]);
        encode(&[], &mut body);
        assert_eq!(body.len(), 9);
    }

    /// A row as a caller of JSON might send it, known and unknown ids among them.
    fn row() -> impl Strategy<Value = String> {
        let id = || prop_oneof![Just("17".to_owned()), Just("\"x\"".to_owned()), "[1-9][0-9]{0,5}"];
        let tags = prop::collection::vec(id(), 0..=3);
        (id(), prop::option::of(any::<i32>()), -1e6_f32..1e6, tags).prop_map(|(user, at, price, tags)| {
            let at = at.map_or("null".to_owned(), |at| at.to_string());
            format!("[{user}, {at}, {price}, [{}]]", tags.join(", "))
        })
    }

    proptest! {
        #[test]
        fn encoded_rows_are_those_that_json_says(rows in prop::collection::vec(row(), 1..20)) {
            let encoder = encoder();
            let expected = rows_of(&encoder, &format!(r#"{{"input": [{}]}}"#, rows.join(", ")));
            let mut found = Rows::new(encoder.signature());
            prop_assert_eq!(decode(&body(&expected), &encoder, &mut found, rows.len()), Ok(()));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn whatever_is_taken_is_within_the_model(
            elements in prop::collection::vec((0..24_usize, -2..46_i32), 0..3),
            length in prop_oneof![4 => Just(3 * ROW_BYTES), 1 => 0..3 * ROW_BYTES],
        ) {
            let mut body = three();
            for (place, element) in elements {
                body[4 * place..4 * place + 4].copy_from_slice(&element.to_le_bytes());
            }
            body.truncate(length);
            if let Ok(rows) = read(&body) {
                prop_assert_eq!(rows.len() * ROW_BYTES, body.len());
                let Values::I32(ids) = rows.columns()[0].values() else { panic!("ids are indices") };
                for row in ids.chunks(7) {
                    prop_assert!(row.iter().zip(encoder().id_ranges()).all(|(id, range)| range.contains(id)));
                }
            }
        }

        #[test]
        fn a_written_score_is_read_back_to_the_bit(bits in prop::collection::vec(any::<u32>(), 0..20)) {
            let scores: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
            let mut body = Vec::new();
            encode(&scores, &mut body);
            let read: Vec<u32> = body.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
            prop_assert_eq!(read, bits);
        }
    }
}
