//! What no client should send, and what some will: each case with the status that it deserves, and a server that is
//! as healthy afterwards as it was before.

use std::time::{Duration, Instant};

use crate::server::{BODY, PREDICT, Server};

/// Bounds that a test reaches quickly.
const CONFIG: &str = "
    max_body_bytes = 2000
    max_header_bytes = 4096
    defaults = { max_batch_rows = 8 }";

/// A server that does not wait long.
const HASTY: &str = "body_read_timeout_ms = 100\nheader_read_timeout_ms = 400";

#[test]
fn a_body_that_makes_no_sense_is_told_why() {
    let server = Server::with(CONFIG);
    let deep = format!("{{\"input\": {}", "[".repeat(1500));
    let long = format!("{{\"input\": [[123, \"{}\"]]}}", "x".repeat(3000));
    let nine = format!("{{\"input\": [{}]}}", ["[1, 2]"; 9].join(", "));
    let cases: &[(&str, u16, &str)] = &[
        // No JSON.
        ("", 400, "not JSON"),
        ("{", 400, "not JSON"),
        ("hello", 400, "not JSON"),
        ("{'input': [[123, 456]]}", 400, "not JSON"),
        ("{\"input\": [[123, 456]]} x", 400, "not JSON"),
        ("{\"input\": [[123, 456],]}", 400, "not JSON"),
        ("{\"input\": [[123 456]]}", 400, "not JSON"),
        ("{\"input\": [[NaN, 456]]}", 400, "not JSON"),
        ("{\"input\": [[123, -Infinity]]}", 400, "not JSON"),
        ("{\"input\": [[123, 1e999]]}", 400, "not JSON"),
        ("{\"input\": [[123, \"\\ud800\"]]}", 400, "not JSON"),
        ("{\"input\": [[123, \"a\nb\"]]}", 400, "not JSON"),
        ("{\"input\": [[0123, 456]]}", 400, "not JSON"),
        ("\u{feff}{\"input\": [[123, 456]]}", 400, "not JSON"),
        // The wrong shape.
        ("[[123, 456]]", 400, "must be an object"),
        ("null", 400, "must be an object"),
        ("{}", 400, "no key `input`"),
        ("{\"inputs\": [[123, 456]]}", 400, "a key that is not `input`"),
        ("{\"input\": [[123, 456]], \"x\": 1}", 400, "a key that is not `input`"),
        ("{\"input\": [[1, 2]], \"input\": [[1, 2]]}", 400, "twice"),
        ("{\"input\": null}", 400, "an array of rows"),
        ("{\"input\": {\"user_id\": 123, \"item_id\": 456}}", 400, "an array of rows"),
        ("{\"input\": []}", 400, "no rows"),
        ("{\"input\": [123, 456]}", 400, "row 0 must be"),
        ("{\"input\": [[123, 456], []]}", 400, "row 1 must have 2 values: user_id, item_id"),
        ("{\"input\": [[123]]}", 400, "row 0 must have 2 values"),
        ("{\"input\": [[123, 456, 789]]}", 400, "row 0 must have 2 values"),
        (&nine, 400, "more than 8 rows"),
        (&deep, 400, "row 0, feature `user_id`"),
        // Values that are no ids.
        ("{\"input\": [[123, null]]}", 400, "row 0, feature `item_id`"),
        ("{\"input\": [[true, 456]]}", 400, "row 0, feature `user_id`"),
        ("{\"input\": [[123, [456]]]}", 400, "row 0, feature `item_id`"),
        ("{\"input\": [[123, {}]]}", 400, "row 0, feature `item_id`"),
        ("{\"input\": [[1, 2], [123, 4.5]]}", 400, "row 1, feature `item_id`"),
        ("{\"input\": [[1e3, 456]]}", 400, "row 0, feature `user_id`"),
        ("{\"input\": [[9223372036854775808, 456]]}", 400, "row 0, feature `user_id`"),
        ("{\"input\": [[-9223372036854775809, 456]]}", 400, "row 0, feature `user_id`"),
        ("{\"input\": [[99999999999999999999999999, 456]]}", 400, "row 0, feature `user_id`"),
        // Objects.
        ("{\"input\": [{\"user_id\": 123}]}", 400, "row 0, feature `item_id`: is missing"),
        (
            "{\"input\": [{\"user_id\": 1, \"user_id\": 1, \"item_id\": 1}]}",
            400,
            "feature `user_id`: stands twice",
        ),
        ("{\"input\": [{\"user\": 123, \"item_id\": 456}]}", 400, "the features are user_id, item_id"),
        // Too much of it.
        (&long, 413, "larger than 2000 bytes"),
    ];
    for (body, status, message) in cases {
        let mut client = server.client();
        let answer = client.post(PREDICT, body);
        assert_eq!(answer.status, *status, "{body}: {}", answer.text());
        let error = answer.error();
        assert!(error.contains(message) && error.len() <= 256, "{body}: {error}");
        assert_eq!(client.post(PREDICT, BODY).status, 200, "the connection goes on after {body}");
    }
    server.assert_healthy("bad bodies");
}

#[test]
fn a_body_that_is_no_text_is_refused() {
    let server = Server::with(CONFIG);
    let mut client = server.client();
    client.send(format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\ncontent-length: 6\r\n\r\n").as_bytes());
    client.send(b"{\"\xff\xfe\":");
    assert_eq!(client.answer().expect("an answer").status, 400);
}

#[test]
fn a_path_that_names_nothing_is_not_found_and_leaves_the_repository_alone() {
    let server = Server::with(CONFIG);
    let long = format!("/api/predict/{}", "m".repeat(300));
    let paths = [
        "/",
        "/api",
        "/api/predict",
        "/api/predict/",
        "/api/predict/nobody",
        "/api/predict/shop/",
        "/api/predict/SHOP",
        "/api/predict/..",
        "/api/predict/../shop",
        "/api/predict/../../../../etc/passwd",
        "/api/predict/%2e%2e",
        "/api/predict/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/api/predict/..\\shop",
        "/api/predict/shop%00",
        "/api/predict/%73hop",
        "/api/predict/shop/versions/",
        "/api/predict/shop/versions/0",
        "/api/predict/shop/versions/01",
        "/api/predict/shop/versions/-1",
        "/api/predict/shop/versions/latest",
        "/api/predict/shop/versions/99999999999999999999",
        "/api/predict/shop/versions/1/../2",
        &long,
    ];
    for path in paths {
        let answer = server.client().post(path, BODY);
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(!answer.error().is_empty());
    }
    server.assert_healthy("bad paths");
}

#[test]
fn a_method_that_means_nothing_is_answered_with_those_that_do() {
    let server = Server::with(CONFIG);
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let answer = server.client().request(method, PREDICT, &[], BODY);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST")), "{method}");
    }
}

#[test]
fn headers_that_cannot_be_meant_are_refused() {
    let server = Server::with(CONFIG);
    let big = format!("x-big: {}", "x".repeat(5_000));
    let long_id = format!("x-request-id: {}", "x".repeat(1_000));
    let cases: &[(&[&str], u16)] = &[
        (&["content-type: text/plain"], 415),
        (&["content-type: application/x-www-form-urlencoded"], 415),
        (&["content-type:"], 415),
        (&["content-encoding: gzip"], 415),
        (&["content-encoding: identity, gzip"], 415),
        (&["x-request-timeout-ms: soon"], 400),
        (&["x-request-timeout-ms: 0"], 400),
        (&["x-request-timeout-ms: -5"], 400),
        (&["x-request-timeout-ms: 99999999999999999999999"], 400),
        (&["x-request-priority: urgent"], 400),
        (&["x-request-priority: HIGH"], 400),
        (&[&big], 431),
        // Not refused, but not repeated to whoever reads the logs either.
        (&[&long_id], 200),
        (&["x-request-timeout-ms: 18446744073709551615"], 200),
        (&["x-request-priority: high"], 200),
        (&["x-request-priority: low"], 200),
        (&["content-type: application/json; charset=utf-8"], 200),
        (&["accept: nonsense", "cookie: a=b", "origin: http://a.test"], 200),
    ];
    for (headers, status) in cases {
        let answer = server.client().request("POST", PREDICT, headers, BODY);
        assert_eq!(answer.status, *status, "{headers:?}: {}", answer.text());
        let id = answer.header("x-request-id").expect("an id");
        assert!(id.len() <= 128, "{id}");
    }
    server.assert_healthy("bad headers");
}

#[test]
fn what_is_no_http_is_answered_once_and_cut_off() {
    let server = Server::with(CONFIG);
    let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\n");
    let many = (0..150).map(|number| format!("x-{number}: 1\r\n")).collect::<Vec<_>>().concat();
    let huge = format!("x-huge: {}\r\n", "x".repeat(200_000));
    let cases = [
        ("a telnet user's".to_owned(), "hello\r\n\r\n".to_owned(), 400),
        ("no version".to_owned(), format!("POST {PREDICT}\r\n\r\n"), 400),
        ("a version to come".to_owned(), format!("POST {PREDICT} HTTP/7.0\r\n\r\n"), 400),
        (
            "two lengths".to_owned(),
            format!("{head}content-length: 5\r\ncontent-length: 6\r\n\r\n{BODY}"),
            400,
        ),
        ("a length below zero".to_owned(), format!("{head}content-length: -1\r\n\r\n"), 400),
        ("a length in words".to_owned(), format!("{head}content-length: ten\r\n\r\n"), 400),
        (
            "a length beyond 64 bits".to_owned(),
            format!("{head}content-length: {}\r\n\r\n", "9".repeat(30)),
            400,
        ),
        ("a header without a name".to_owned(), format!("{head}: x\r\n\r\n"), 400),
        ("a line break in a header".to_owned(), format!("{head}x: a\rb\r\n\r\n"), 400),
        ("too many headers".to_owned(), format!("{head}{many}\r\n"), 431),
        ("a header without an end".to_owned(), format!("{head}{huge}\r\n"), 431),
        ("a path without an end".to_owned(), format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)), 414),
        ("a chunk without a size".to_owned(), format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n"), 400),
        ("an encoding of our own making".to_owned(), format!("{head}transfer-encoding: rot13\r\n\r\n"), 400),
    ];
    for (name, bytes, status) in cases {
        let mut client = server.client();
        client.send(bytes.as_bytes());
        let answer = client.answer().unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!(answer.status, status, "{name}");
        server.assert_healthy(&name);
    }
}

#[test]
fn a_chunked_body_is_measured_while_it_comes() {
    let server = Server::with(CONFIG);
    let mut client = server.client();
    let chunk = format!("400\r\n{}\r\n", " ".repeat(0x400));
    client.send(
        format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes(),
    );
    client.send(chunk.repeat(3).as_bytes());
    assert_eq!(client.answer().expect("an answer before the end").status, 413);
}

#[test]
fn a_client_that_only_looks_at_the_answer_afterwards_sees_it() {
    let server = Server::with(CONFIG);
    let mut client = server.client();
    let body = " ".repeat(5_000_000);
    let answer = client.post(PREDICT, &body);
    assert_eq!(answer.status, 413);
    assert_eq!(client.post(PREDICT, BODY).status, 200, "on the same connection");
}

#[test]
fn a_client_that_waits_for_leave_is_refused_without_its_body() {
    let server = Server::with(CONFIG);
    let mut client = server.client();
    let head = "content-length: 5000000\r\nexpect: 100-continue\r\n\r\n";
    client.send(format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\n{head}").as_bytes());
    assert_eq!(client.answer().expect("an answer").status, 413);
}

#[test]
fn a_body_that_does_not_come_is_waited_for_only_so_long() {
    let server = Server::with(HASTY);
    for cut in ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n5\r\nab"] {
        let mut client = server.client();
        client.send(format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\n{cut}").as_bytes());
        let answer = client.answer().expect("an answer");
        assert_eq!((answer.status, answer.error().as_str()), (408, "the body did not arrive within 100 ms"));
    }
    server.assert_healthy("a slow body");
}

#[test]
fn headers_that_do_not_come_are_waited_for_only_so_long() {
    let server = Server::with(HASTY);
    let mut client = server.client();
    client.send(b"POST /api/pre");
    assert!(client.answer().is_none(), "the connection is closed");
    server.assert_healthy("slow headers");
}

#[test]
fn an_answer_that_would_come_too_late_is_not_waited_for() {
    let server = Server::start();
    let mut client = server.client();
    let head = format!("content-length: {}\r\nx-request-timeout-ms: 1\r\nexpect: 100-continue", BODY.len());
    client.send(format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\n{head}\r\n\r\n").as_bytes());
    assert_eq!(client.answer().expect("leave to send").status, 100);
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(2) {
        std::thread::yield_now();
    }
    client.send(BODY.as_bytes());
    assert_eq!(client.answer().expect("an answer").status, 504);
    let expired =
        r#"millrace_requests_total{model="shop",version="1",dialect="predict",outcome="timeout"} 1"#;
    assert!(server.metrics().contains(expired));
}

#[test]
fn a_body_that_finds_no_room_may_come_back() {
    let server = Server::with("max_body_bytes = 1000\nmax_inflight_bytes = 500\n");
    let refused = server.client().post(PREDICT, &format!("{BODY}{}", " ".repeat(600)));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(server.metrics().contains(r#"millrace_shed_total{reason="bytes"} 1"#));
    let shed = r#"millrace_requests_total{model="shop",version="1",dialect="predict",outcome="shed"} 1"#;
    assert!(server.metrics().contains(shed));
    server.assert_healthy("a body without room");
}

#[test]
fn a_promise_of_a_body_takes_no_room() {
    let server = Server::with("max_body_bytes = 1000\nmax_inflight_bytes = 1000\n");
    let head = format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n");
    let promises = [(); 5].map(|()| {
        let mut client = server.client();
        client.send(head.as_bytes());
        client
    });
    server.assert_healthy("five promises");
    drop(promises);
}

#[test]
fn clients_that_hang_up_at_any_moment_harm_nobody() {
    let server = Server::with(CONFIG);
    let request =
        format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    for cut in 0..=request.len() {
        let mut client = server.client();
        client.send(&request.as_bytes()[..cut]);
    }
    server.assert_healthy("a hundred hang-ups");
}

#[test]
fn a_bad_row_in_a_crowd_fails_its_own_request_alone() {
    let server = Server::start();
    std::thread::scope(|scope| {
        for bad in [false, true, false, true] {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for _ in 0..200 {
                    let body = if bad { r#"{"input": [[123, 456], [123, null]]}"# } else { BODY };
                    assert_eq!(client.post(PREDICT, body).status, if bad { 400 } else { 200 });
                }
            });
        }
    });
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = Server::with("max_connections = 2");
    let (mut one, mut two) = (server.client(), server.client());
    assert_eq!((one.post(PREDICT, BODY).status, two.post(PREDICT, BODY).status), (200, 200));
    // The system accepts it and its request; the server does not know of it.
    let mut third = server.client();
    let length = BODY.len();
    third.send(format!("POST {PREDICT} HTTP/1.1\r\ncontent-length: {length}\r\n\r\n{BODY}").as_bytes());
    assert_eq!(two.post(PREDICT, BODY).status, 200);
    assert!(server.metrics().contains("millrace_connections_total 2\n"));
    drop(one);
    assert_eq!(third.answer().expect("an answer").status, 200);
    assert!(server.metrics().contains("millrace_connections_total 3\n"));
}
