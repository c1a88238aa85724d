//! The one shape that nearly every body has, `{"input": [[user, item], ...]}` with plain values, read in one pass.
//!
//! It decides nothing: whatever it does not expect, a mistake or only a rarer way to write JSON, is left to the full
//! decoder in [`super::json`], which reads the body from its start and says what is wrong. What both take they take
//! alike.

use std::str;

use crate::{
    features::{Encoder, RawValue},
    tensor::Rows,
};

/// Appends the rows of `body` to `rows`, at most `limit` of them, or returns false and leaves `rows` as it was.
pub(super) fn decode(body: &[u8], encoder: &Encoder, rows: &mut Rows, limit: usize) -> bool {
    let before = rows.len();
    let done = read(Cursor { rest: body }, encoder, rows, limit).is_some();
    if !done {
        rows.resize(before);
    }
    done
}

fn read(mut body: Cursor<'_>, encoder: &Encoder, rows: &mut Rows, limit: usize) -> Option<()> {
    body.take(b'{')?;
    body.take(b'"')?;
    if body.text()? != "input" {
        return None;
    }
    body.take(b':')?;
    body.take(b'[')?;
    loop {
        body.take(b'[')?;
        if rows.len() == limit {
            return None;
        }
        rows.push_zeroed();
        for position in 0..encoder.width() {
            if position > 0 {
                body.take(b',')?;
            }
            encoder.set(rows, position, body.value()?).ok()?;
        }
        body.take(b']')?;
        encoder.finish(rows);
        match body.token()? {
            b',' => {}
            b']' => break,
            _ => return None,
        }
    }
    body.take(b'}')?;
    body.skip_space();
    body.rest.is_empty().then_some(())
}

/// What is left of a body.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// The next byte that is no space.
    fn token(&mut self) -> Option<u8> {
        self.skip_space();
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// Takes `byte`, which must be the next one that is no space.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.token()? == byte).then_some(())
    }

    fn value(&mut self) -> Option<RawValue<'a>> {
        self.skip_space();
        match self.rest.first()? {
            b'"' => {
                self.rest = &self.rest[1..];
                self.text().map(RawValue::Text)
            }
            b'n' => {
                self.rest = self.rest.strip_prefix(b"null")?;
                Some(RawValue::Missing)
            }
            _ => self.number(),
        }
    }

    /// The text up to the next quote, behind which it goes on. One with an escape is left to the full decoder.
    fn text(&mut self) -> Option<&'a str> {
        let end = self.rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.strip_prefix(b"\"")?;
        str::from_utf8(text).ok()
    }

    fn number(&mut self) -> Option<RawValue<'a>> {
        let whole = self.rest;
        let negative = self.rest[0] == b'-';
        if negative {
            self.rest = &self.rest[1..];
        }
        let leads_with_zero = self.rest.first() == Some(&b'0');
        let mut number = 0_i64;
        let digits = self.digits(|digit| number = number.wrapping_mul(10).wrapping_add(digit.into()))?;
        if digits > 1 && leads_with_zero {
            return None;
        }
        if !matches!(self.rest.first(), Some(b'.' | b'e' | b'E')) {
            // Minus zero is a float, and more digits may not fit.
            let fits = digits <= MOST_DIGITS && !(negative && number == 0);
            return fits.then_some(RawValue::Int(if negative { -number } else { number }));
        }
        if let Some(rest) = self.rest.strip_prefix(b".") {
            self.rest = rest;
            self.digits(|_| {})?;
        }
        if let [b'e' | b'E', rest @ ..] = self.rest {
            self.rest = rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"+")).unwrap_or(rest);
            self.digits(|_| {})?;
        }
        let text = str::from_utf8(&whole[..whole.len() - self.rest.len()]).ok()?;
        text.parse().ok().filter(|number: &f64| number.is_finite()).map(RawValue::Float)
    }

    /// Hands each digit to `visit`; how many there are, which must be one at least.
    fn digits(&mut self, mut visit: impl FnMut(u8)) -> Option<usize> {
        let mut digits = 0;
        while let [digit @ b'0'..=b'9', rest @ ..] = self.rest {
            visit(digit - b'0');
            digits += 1;
            self.rest = rest;
        }
        (digits > 0).then_some(digits)
    }
}

/// Digits of which every number fits into 64 bits with a sign.
const MOST_DIGITS: usize = 18;
