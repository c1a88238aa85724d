//! What a version's training rows looked like, `reference.json` in its folder: what drift is measured against. A version
//! serves without one; then nobody can say how far its rows have moved.

use std::{fs, io, path::Path};

use crate::{
    features::Encoder,
    quality::{Reference, ReferenceFault},
};

/// Why there is no usable reference.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The file is unreadable.
    #[error("reference.json: cannot be read")]
    Read(#[source] io::Error),
    /// The file is not what this version of the program reads.
    #[error("reference.json: {0}")]
    Syntax(#[source] serde_json::Error),
    /// It contradicts itself or the version.
    #[error("reference.json: {0}")]
    Fault(#[from] ReferenceFault),
}

/// Reads the reference from a version's folder and holds it against the version's features. `None` where the version
/// has none, as those that were trained before there were any.
pub fn read(folder: &Path, encoder: &Encoder) -> Result<Option<Reference>, ReferenceError> {
    let text = match fs::read(folder.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(ReferenceError::Read)?,
    };
    let reference: Reference = serde_json::from_slice(&text).map_err(ReferenceError::Syntax)?;
    reference.check(encoder.sent().map(|feature| feature.name.as_str()))?;
    Ok(Some(reference))
}

/// Writes the reference into a version's folder.
pub fn write(reference: &Reference, folder: &Path) -> io::Result<()> {
    fs::write(folder.join(FILE), serde_json::to_vec(reference)?)
}

/// The file's name in a version's folder.
pub const FILE: &str = "reference.json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        features::{Schema, Vocabulary},
        quality::{Bins, Distribution, FeatureReference},
    };

    fn encoder() -> Encoder {
        let schema = r#"feature = [{ name = "age", kind = "numeric", mean = 30.0, std = 10.0 }]"#;
        let schema: Schema = toml::from_str(schema).expect("a schema");
        Encoder::new(schema, |_| Ok(Vocabulary::default())).expect("a layout")
    }

    fn reference(name: &str) -> Reference {
        let none = || Distribution::of(Bins::Boundaries(vec![0.1, 40.0]), std::iter::empty());
        let features = vec![FeatureReference { name: name.into(), distribution: none() }];
        Reference { rows: 0, score: none(), features }
    }

    #[test]
    fn what_is_written_is_read_and_a_version_may_have_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(read(folder.path(), &encoder()).expect("nothing wrong"), None);
        write(&reference("age"), folder.path()).expect("written");
        assert_eq!(read(folder.path(), &encoder()).expect("usable"), Some(reference("age")));
    }

    #[test]
    fn what_is_not_of_the_version_is_refused_in_words() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(&reference("height"), folder.path()).expect("written");
        let error = read(folder.path(), &encoder()).expect_err("of another feature").to_string();
        assert_eq!(error, "reference.json: is of the features height, the version of age");
        fs::write(folder.path().join(FILE), "{}").expect("written");
        let error = read(folder.path(), &encoder()).expect_err("empty").to_string();
        assert!(error.starts_with("reference.json: missing field"), "{error}");
    }
}
