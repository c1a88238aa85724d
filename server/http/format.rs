//! How a body is written, the request's and the answer's, each by a header of the request. What is in it is the codec's
//! and the dialect's.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Response,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
};

use super::error::HttpError;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/json`, which is meant where nothing is said.
    Json,
    /// `application/octet-stream`: numbers as they lie in memory.
    Binary,
}

impl Format {
    /// That of the request's body, which must not be compressed.
    pub(super) fn of_body(headers: &HeaderMap) -> Result<Self, HttpError> {
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(HttpError::ContentEncoding);
        }
        headers.get(CONTENT_TYPE).map_or(Ok(Self::Json), |content_type| {
            Self::of_media_type(content_type.as_bytes()).ok_or(HttpError::ContentType)
        })
    }

    /// That of the answer: the first that the client accepts by its name. Weights are not read, and who accepts neither
    /// by its name gets JSON.
    pub(super) fn of_answer(headers: &HeaderMap) -> Self {
        let mut accepted =
            headers.get_all(ACCEPT).iter().flat_map(|value| value.as_bytes().split(|&b| b == b','));
        accepted.find_map(Self::of_media_type).unwrap_or(Self::Json)
    }

    fn of_media_type(text: &[u8]) -> Option<Self> {
        let media_type = text.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
        let formats = [Self::Json, Self::Binary];
        formats.into_iter().find(|format| media_type.eq_ignore_ascii_case(format.media_type().as_bytes()))
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Binary => "application/octet-stream",
        }
    }

    /// An answer with a body in this format.
    pub(super) fn response(self, body: Vec<u8>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type()));
        response
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn a_body_is_taken_under_its_own_name_or_for_json() {
        let of_body = |name: HeaderName, value: &str| Format::of_body(&headers(&name, &[value]));
        assert_eq!(Format::of_body(&HeaderMap::new()).expect("no name"), Format::Json);
        for json in ["application/json", "application/json; charset=utf-8", "Application/JSON ;x=y"] {
            assert_eq!(of_body(CONTENT_TYPE, json).expect(json), Format::Json);
        }
        for binary in ["application/octet-stream", "APPLICATION/octet-stream;a=b"] {
            assert_eq!(of_body(CONTENT_TYPE, binary).expect(binary), Format::Binary);
        }
        for bad in
            ["text/plain", "", "application/x-www-form-urlencoded", "application/jsonl", "octet-stream"]
        {
            assert!(matches!(of_body(CONTENT_TYPE, bad), Err(HttpError::ContentType)), "{bad}");
        }
        assert_eq!(of_body(CONTENT_ENCODING, "identity").expect("as it is"), Format::Json);
        assert!(matches!(of_body(CONTENT_ENCODING, "gzip"), Err(HttpError::ContentEncoding)));
    }

    #[test]
    fn an_answer_is_json_unless_the_client_names_the_other_first() {
        let of_answer = |values: &[&str]| Format::of_answer(&headers(&ACCEPT, values));
        let json: [&[&str]; 7] = [
            &[],
            &[""],
            &["*/*"],
            &["application/*"],
            &["text/html, nonsense;;,"],
            &["application/json, application/octet-stream"],
            &["application/json", "application/octet-stream"],
        ];
        for accepted in json {
            assert_eq!(of_answer(accepted), Format::Json, "{accepted:?}");
        }
        let binary: [&[&str]; 4] = [
            &["application/octet-stream"],
            &["text/html, Application/Octet-Stream;q=0.5 ,*/*"],
            &["application/octet-stream, application/json"],
            &["text/html", "application/octet-stream"],
        ];
        for accepted in binary {
            assert_eq!(of_answer(accepted), Format::Binary, "{accepted:?}");
        }
    }
}
