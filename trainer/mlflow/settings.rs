//! Which server, as MLflow's own clients are told: by the environment.

use std::{env, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};

/// What is wrong with the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Only servers are written to, and not folders or databases.
    #[error(
        "MLFLOW_TRACKING_URI: expected http:// or https:// and a host, without a user, a query or a fragment"
    )]
    Uri,
    /// A name without a password, or the other way round.
    #[error("MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD: one is set without the other")]
    Credentials,
    /// A header cannot hold it.
    #[error("MLFLOW_TRACKING_TOKEN: expected visible ASCII characters")]
    Token,
    /// The variable is no text.
    #[error("{0}: is no UTF-8")]
    Encoding(&'static str),
}

/// A tracking server and how to be let in.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `http://host:port/path`, without a slash at the end.
    pub(super) uri: String,
    /// The value of the header `authorization`.
    pub(super) authorization: Option<String>,
    /// The experiment's name, where it is not the model's.
    pub(super) experiment: Option<String>,
}

/// Leaves out what must not be in a log.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uri, authorization: _, experiment } = self;
        f.debug_struct("Settings").field("uri", uri).field("experiment", experiment).finish_non_exhaustive()
    }
}

impl Settings {
    /// What the environment says; `None` where it names no server.
    pub fn from_env() -> Result<Option<Self>, SettingsError> {
        Self::from(|name| match env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(SettingsError::Encoding(name)),
        })
    }

    fn from(
        variable: impl Fn(&'static str) -> Result<Option<String>, SettingsError>,
    ) -> Result<Option<Self>, SettingsError> {
        // What is empty is not set, as for MLflow's own clients.
        let variable = |name| Ok(variable(name)?.filter(|value| !value.is_empty()));
        let Some(uri) = variable("MLFLOW_TRACKING_URI")? else { return Ok(None) };
        let user = variable("MLFLOW_TRACKING_USERNAME")?;
        let password = variable("MLFLOW_TRACKING_PASSWORD")?;
        let authorization = match (user, password, variable("MLFLOW_TRACKING_TOKEN")?) {
            (Some(user), Some(password), _) => {
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
            }
            (None, None, Some(token)) if token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Some(format!("Bearer {token}"))
            }
            (None, None, Some(_)) => return Err(SettingsError::Token),
            (None, None, None) => None,
            _ => return Err(SettingsError::Credentials),
        };
        let experiment = variable("MLFLOW_EXPERIMENT_NAME")?;
        Ok(Some(Self { uri: server(&uri)?, authorization, experiment }))
    }
}

/// The server's URI without slashes at its end.
fn server(uri: &str) -> Result<String, SettingsError> {
    let parsed: ureq::http::Uri = uri.parse().map_err(|_| SettingsError::Uri)?;
    let authority = parsed.authority().ok_or(SettingsError::Uri)?;
    let is_server = matches!(parsed.scheme_str(), Some("http" | "https"))
        && !authority.as_str().contains('@')
        && !uri.contains(['?', '#']);
    if is_server { Ok(uri.trim_end_matches('/').to_owned()) } else { Err(SettingsError::Uri) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
        Settings::from(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        })
    }

    #[test]
    fn without_a_server_nothing_else_matters() {
        assert_eq!(settings(&[("MLFLOW_TRACKING_USERNAME", "u")]), Ok(None));
        assert_eq!(settings(&[("MLFLOW_TRACKING_URI", "")]), Ok(None));
    }

    #[test]
    fn a_server_may_lie_below_a_path() {
        let found = settings(&[("MLFLOW_TRACKING_URI", "https://host:5000/mlflow/")]).expect("valid");
        assert_eq!(found.expect("a server").uri, "https://host:5000/mlflow");
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for uri in [
            "./mlruns",
            "file:///mlruns",
            "sqlite:///x.db",
            "databricks",
            "http://",
            "http://u:p@host",
            "http://host?x",
        ] {
            assert_eq!(settings(&[("MLFLOW_TRACKING_URI", uri)]), Err(SettingsError::Uri), "{uri}");
        }
    }

    #[test]
    fn credentials_are_a_user_and_a_password_or_else_a_token() {
        let with = |more: &[(&'static str, &'static str)]| {
            let all = [&[("MLFLOW_TRACKING_URI", "http://host")], more].concat();
            settings(&all).map(|found| found.expect("a server").authorization)
        };
        let (user, password) = (("MLFLOW_TRACKING_USERNAME", "user"), ("MLFLOW_TRACKING_PASSWORD", "pass"));
        let token = ("MLFLOW_TRACKING_TOKEN", "secret");
        assert_eq!(with(&[user, password, token]), Ok(Some("Basic dXNlcjpwYXNz".into())));
        assert_eq!(with(&[token]), Ok(Some("Bearer secret".into())));
        assert_eq!(with(&[]), Ok(None));
        assert_eq!(with(&[user]), Err(SettingsError::Credentials));
        assert_eq!(with(&[password, token]), Err(SettingsError::Credentials));
        assert_eq!(with(&[("MLFLOW_TRACKING_TOKEN", "two\nlines")]), Err(SettingsError::Token));
    }

    #[test]
    fn no_secret_is_printed() {
        let found = settings(&[("MLFLOW_TRACKING_URI", "http://host"), ("MLFLOW_TRACKING_TOKEN", "secret")]);
        assert!(!format!("{found:?}").contains("secret"));
    }
}
