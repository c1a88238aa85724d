//! A server in this process, on ports that the system picks, stopped at the end of its test.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use millrace::{app::App, config::RawConfig};

use crate::{
    artifact::{Artifact, Models},
    client::{Answer, Client},
    library,
};

/// The model that most tests ask.
pub(crate) const MODEL: &str = "shop";
/// Its path.
pub(crate) const PREDICT: &str = "/api/predict/shop";
/// A body that it scores.
pub(crate) const BODY: &str = r#"{"input": [[123, 456]]}"#;

/// A running server and its repository.
pub(crate) struct Server {
    app: Option<App>,
    pub(crate) models: Models,
}

impl Server {
    /// A server with version 1 of the model, ready to answer.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// The same with this configuration.
    pub(crate) fn with(config: &str) -> Self {
        let models = Models::new();
        models.publish(MODEL, 1, first());
        Self::over(models, config)
    }

    /// A server over `models`, once it has loaded them. It looks at the repository when it is told to, and not by
    /// the clock.
    pub(crate) fn over(models: Models, config: &str) -> Self {
        let mut raw: RawConfig = toml::from_str(config).expect("a configuration");
        raw.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        raw.management_listen = raw.listen;
        raw.models_dir = Some(models.path().to_owned());
        raw.onnxruntime = Some(library());
        raw.poll_interval_ms = raw.poll_interval_ms.or(Some(3_600_000));
        let app = App::start(&raw.parse().expect("a configuration")).expect("a server");
        let server = Self { app: Some(app), models };
        // An order is carried out after the first look at the repository, so its answer is what to wait for.
        server.management().post("/models/any/load", "");
        server
    }

    fn app(&self) -> &App {
        self.app.as_ref().expect("taken by stop alone")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.app().address()
    }

    /// A connection to the serving port.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub(crate) fn management_address(&self) -> SocketAddr {
        self.app().management_address()
    }

    /// A connection to the management port.
    pub(crate) fn management(&self) -> Client {
        Client::connect(self.management_address())
    }

    /// Gives an order for the model.
    pub(crate) fn order(&self, order: &str, body: &str) -> Answer {
        self.management().post(&format!("/models/{MODEL}/{order}"), body)
    }

    /// The metrics' text.
    pub(crate) fn metrics(&self) -> String {
        self.management().get("/metrics").text()
    }

    /// Whether a new connection gets the score that version 1 has for [`BODY`].
    pub(crate) fn assert_healthy(&self, after: &str) {
        let scores = self.client().post(PREDICT, BODY).scores();
        assert!((scores[0] - first().score("123", "456")).abs() < 1e-5, "after {after}: {scores:?}");
    }

    /// Stops the server and says whether every request was answered.
    pub(crate) fn stop(mut self) -> bool {
        self.app.take().expect("taken here alone").stop()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(app) = self.app.take() {
            app.stop();
        }
    }
}

/// Says when it is dropped that the test is done with its clients, also where the test fails: they would go on for ever.
pub(crate) struct Finished<'a>(pub(crate) &'a AtomicBool);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What version 1 is made of.
pub(crate) fn first() -> Artifact {
    Artifact::with_bias(-1.0)
}

/// What version 2 is made of, where there is one.
pub(crate) fn second() -> Artifact {
    Artifact::with_bias(1.0)
}
