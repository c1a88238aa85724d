//! What a path of the serving port means: pure, from text to [`Route`].
//!
//! Names are compared as they stand in the path, without percent-decoding: every character that a model's name may
//! have is one that no client needs to escape, so an escape is never a model's.

/// What a path of the serving port names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// `/api/predict/{model}` and `/api/predict/{model}/versions/{version}`.
    Predict(Target<'a>),
    /// `/api/recommend/{model}` and `/api/recommend/{model}/versions/{version}`.
    Recommend(Target<'a>),
    /// `/api/feedback`.
    Feedback,
}

/// The model, and perhaps the version, that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) model: &'a str,
    pub(super) version: Option<&'a str>,
}

impl<'a> Route<'a> {
    /// The route that `path` takes.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        if path == "/api/feedback" {
            return Some(Self::Feedback);
        }
        let (verb, rest) = path.strip_prefix("/api/")?.split_once('/')?;
        let (model, version) = match rest.split_once('/') {
            None => (rest, None),
            Some((model, rest)) => (model, Some(rest.strip_prefix("versions/")?)),
        };
        let target = Target { model, version };
        match verb {
            "predict" => Some(Self::Predict(target)),
            "recommend" => Some(Self::Recommend(target)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_paths() {
        let predict = |model, version| Some(Route::Predict(Target { model, version }));
        let recommend = |model, version| Some(Route::Recommend(Target { model, version }));
        for (path, expected) in [
            ("/api/predict/shop", predict("shop", None)),
            ("/api/predict/shop/versions/3", predict("shop", Some("3"))),
            ("/api/recommend/shop", recommend("shop", None)),
            ("/api/recommend/shop/versions/3", recommend("shop", Some("3"))),
            ("/api/feedback", Some(Route::Feedback)),
            ("/api/feedback/", None),
            ("/api/feedback/shop", None),
            ("/api/forget/shop", None),
            // What is no name names no model, which the repository knows best.
            ("/api/predict/", predict("", None)),
            ("/api/predict/..", predict("..", None)),
            ("/api/predict/%2e%2e", predict("%2e%2e", None)),
            ("/api/predict/shop/", None),
            ("/api/predict/shop/versions", None),
            ("/api/predict/../../etc/passwd", None),
            ("/api/predict", None),
            ("/api", None),
            ("/", None),
            ("", None),
            ("//api/predict/shop", None),
        ] {
            assert_eq!(Route::of(path), expected, "{path}");
        }
    }
}
