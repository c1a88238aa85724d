//! Rows in the engine's layout and scores as they are: what a caller gets who asks for thousands at once.

use crate::{
    artifact::{Artifact, ITEMS, Models, TAGS, USERS},
    client::{Answer, Client},
    server::{BODY, MODEL, PREDICT, Server, first, second},
};

/// The first version by its name.
const FIRST: &str = "/api/predict/shop/versions/1";
const BINARY: &str = "content-type: application/octet-stream";
const JSON: &str = "content-type: application/json";
const BINARY_SCORES: &str = "accept: application/octet-stream";

fn post(client: &mut Client, path: &str, body: &[u8]) -> Answer {
    client.request("POST", path, &[BINARY], body)
}

fn server_of(artifact: Artifact, config: &str) -> Server {
    let models = Models::new();
    models.publish(MODEL, 1, artifact);
    Server::over(models, config)
}

/// Rows of every known user, item and number of tags, as JSON.
fn rows() -> String {
    let row = |number: usize| {
        let (user, item) = (USERS[number % USERS.len()], ITEMS[number / USERS.len() % ITEMS.len()]);
        format!(r#"["{user}", "{item}", {:?}]"#, &TAGS[..number % (TAGS.len() + 1)])
    };
    format!(r#"{{"input": [{}]}}"#, (0..100).map(row).collect::<Vec<_>>().join(", "))
}

/// The scores of a binary answer.
fn scores(answer: &Answer) -> Vec<f32> {
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"), "{answer:?}");
    let (scores, rest) = answer.body.as_chunks();
    assert!(rest.is_empty(), "whole scores");
    scores.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}

#[test]
fn rows_and_scores_are_the_same_in_every_format_to_the_bit() {
    let artifact = first().with_tags();
    let server = server_of(artifact, "");
    let mut client = server.client();
    let (json, binary) = (rows(), artifact.binary(&rows()));
    let expected = client.post(FIRST, &json).scores();
    assert_eq!(expected.len(), 100);
    assert!(bits(&expected).windows(2).any(|pair| pair[0] != pair[1]), "different rows");

    let answer = client.request("POST", FIRST, &[BINARY], &binary);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(bits(&answer.scores()), bits(&expected));
    assert_eq!(answer.header("x-model-version"), Some("1"));
    let answer = client.request("POST", FIRST, &[BINARY, BINARY_SCORES], &binary);
    assert_eq!(bits(&scores(&answer)), bits(&expected));
    assert_eq!(answer.header("x-model-version"), Some("1"));
    let answer = client.request("POST", PREDICT, &[JSON, BINARY_SCORES], &json);
    assert_eq!(bits(&scores(&answer)), bits(&expected));
}

#[test]
fn rows_of_a_fitted_model_are_taken_for_the_version_that_the_path_names() {
    let models = Models::new();
    models.publish(MODEL, 1, first());
    models.publish(MODEL, 2, second());
    let server = Server::over(models, "defaults = { versions = \"all\" }");
    let mut client = server.client();
    let refused = post(&mut client, PREDICT, &first().binary(BODY));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.error().contains("the path must name one"), "{}", refused.error());
    let counted =
        r#"millrace_requests_total{model="shop",version="2",dialect="predict",outcome="client_error"} 1"#;
    assert!(server.metrics().contains(counted));
    for (version, artifact) in [(1, first()), (2, second())] {
        let path = format!("{PREDICT}/versions/{version}");
        let scores = post(&mut client, &path, &artifact.binary(BODY)).scores();
        assert!((scores[0] - artifact.score("123", "456")).abs() < 1e-5, "{version}: {scores:?}");
    }
    assert_eq!(post(&mut client, &format!("{PREDICT}/versions/3"), &first().binary(BODY)).status, 404);
    // Of JSON any version may be asked.
    assert_eq!(client.request("POST", PREDICT, &[BINARY_SCORES], BODY).status, 200);
}

#[test]
fn rows_of_a_model_of_hashes_are_taken_for_any_version() {
    let artifact = first().with_hashes();
    let server = server_of(artifact, "");
    for path in [PREDICT, FIRST] {
        let scores = post(&mut server.client(), path, &artifact.binary(BODY)).scores();
        assert!((scores[0] - artifact.score("123", "456")).abs() < 1e-5, "{path}: {scores:?}");
    }
}

#[test]
fn a_body_that_holds_no_rows_of_the_model_is_told_why() {
    let server = server_of(first(), "defaults = { max_batch_rows = 8 }");
    let mut client = server.client();
    let three = |row: usize, ids: [i32; 2]| {
        let mut rows = [[0, 5]; 3];
        rows[row] = ids;
        rows.as_flattened().iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>()
    };
    let cases = [
        (Vec::new(), "the body holds no rows"),
        (vec![0; 12], "the body has 12 bytes, which is no multiple of the 8 bytes of a row"),
        (vec![0; 1], "the body has 1 bytes, which is no multiple of the 8 bytes of a row"),
        (three(0, [0, 5]).repeat(3), "the body holds more than 8 rows"),
        (three(0, [-1, 5]), "row 0, input `ids`, column 0: expected an index from 0 to 4"),
        (three(1, [5, 5]), "row 1, input `ids`, column 0: expected an index from 0 to 4"),
        (three(2, [0, 4]), "row 2, input `ids`, column 1: expected an index from 5 to 9"),
        (three(2, [0, i32::MAX]), "row 2, input `ids`, column 1: expected an index from 5 to 9"),
        (BODY.into(), "the body has 23 bytes, which is no multiple of the 8 bytes of a row"),
    ];
    for (body, message) in cases {
        let answer = client.request("POST", FIRST, &[BINARY, BINARY_SCORES], &body);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{message}");
        assert_eq!((answer.status, answer.error().as_str()), (400, message));
        assert_eq!(post(&mut client, FIRST, &three(1, [4, 9])).scores().len(), 3, "after {message}");
    }
    // What is said of rows and not of bytes is what is said of JSON.
    for (json, binary) in [(0, Vec::new()), (9, three(0, [0, 5]).repeat(3))] {
        let json = client.post(FIRST, &format!(r#"{{"input": [{}]}}"#, vec!["[1, 2]"; json].join(", ")));
        let binary = post(&mut client, FIRST, &binary);
        assert_eq!(json.status, binary.status);
        assert_eq!(json.error().replace("`input`", "the body"), binary.error());
    }
    server.assert_healthy("binary bodies");
}

#[test]
fn bad_binary_rows_in_a_crowd_fail_their_own_request_alone() {
    let server = Server::start();
    let good = first().binary(BODY);
    std::thread::scope(|scope| {
        for bad in [false, true, false, true] {
            let (server, good) = (&server, &good);
            scope.spawn(move || {
                let mut client = server.client();
                for _ in 0..200 {
                    let body = if bad { [&good[..], &[0xff; 8]].concat() } else { good.clone() };
                    let answer = post(&mut client, FIRST, &body);
                    assert_eq!(answer.status, if bad { 400 } else { 200 }, "{}", answer.text());
                    let score = client.post(PREDICT, BODY).scores()[0];
                    assert!((score - first().score("123", "456")).abs() < 1e-5, "{score}");
                }
            });
        }
    });
}

#[test]
fn the_description_of_a_model_says_what_a_body_is_made_of() {
    let artifact = first().with_tags();
    let server = server_of(artifact, "");
    let inputs = &server.client().get(FIRST).json()["inputs"];
    let expected = serde_json::json!([{
        "name": "ids",
        "dtype": "i32",
        "width": 5,
        "columns": [
            {"of": ["user_id"], "width": 1, "indices": [0, 4]},
            {"of": ["item_id"], "width": 1, "indices": [5, 9]},
            {"of": ["tags"], "width": 3, "indices": [10, 14]},
        ],
    }]);
    assert_eq!(inputs, &expected);
    // A user's index is the first one and its line in the vocabulary, from 1; an empty list is the first index.
    let row = [1, 5 + 3, 10, 10, 10_i32].map(i32::to_le_bytes);
    let scores = post(&mut server.client(), FIRST, row.as_flattened()).scores();
    assert!((scores[0] - artifact.score(USERS[0], ITEMS[2])).abs() < 1e-5, "{scores:?}");
}
