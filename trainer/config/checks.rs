//! What a pipeline may say of its data, examples and gates. All of it is known to be wrong before the log is read.

use super::{ConfigError, DataConfig, ExamplesConfig, GatesConfig};

/// Whether the data are a log or a table, and have what theirs needs.
pub(super) fn check_data(data: &DataConfig) -> Result<(), ConfigError> {
    let invalid = |text| Err(ConfigError::Invalid(text));
    if data.label_positive.is_some() && data.label.is_none() {
        return invalid("data.label_positive: needs data.label");
    }
    if data.feedback.is_some() && data.label_positive.is_some() {
        return invalid("data.feedback: its labels are 1 and 0, and data.label_positive asks for others");
    }
    if data.test_path.is_none() {
        let is_log = data.user.is_some() && data.item.is_some() && data.time.is_some();
        return if is_log {
            Ok(())
        } else {
            invalid("data: a log needs user, item and time; a table test_path")
        };
    }
    if data.feedback.is_some() {
        return invalid("data.feedback: a table has a file of test rows, and feedback is added to logs");
    }
    if data.label.is_none() {
        return invalid("data.test_path: the rows of a table need data.label");
    }
    if data.time.is_some() {
        return invalid("data.time: a table has none; a log that is split by time is one file");
    }
    Ok(())
}

/// Whether examples can be made so of `data`.
pub(super) fn check_examples(examples: &ExamplesConfig, data: &DataConfig) -> Result<(), ConfigError> {
    if examples.half_life_days.is_some() && data.time.is_none() {
        return Err(ConfigError::Invalid("examples.half_life_days: needs data.time"));
    }
    if examples.half_life_days.is_some_and(|days| days.is_nan() || days <= 0.0) {
        return Err(ConfigError::Invalid("examples.half_life_days: must be above 0"));
    }
    let least = usize::from(data.label.is_none());
    if !(least..=1000).contains(&examples.negatives_per_positive) {
        return Err(ConfigError::Invalid(
            "examples.negatives_per_positive: must be 1 to 1000, or 0 in a log with data.label",
        ));
    }
    if !(0.0..1.0).contains(&examples.unknown_share) {
        return Err(ConfigError::Invalid("examples.unknown_share: must be at least 0 and below 1"));
    }
    if !(0.0..=1.0).contains(&examples.user_balance) {
        return Err(ConfigError::Invalid("examples.user_balance: must lie between 0 and 1"));
    }
    if examples.user_balance > 0.0 && data.user.is_none() {
        return Err(ConfigError::Invalid("examples.user_balance: needs data.user"));
    }
    if examples.windows.is_some() && data.time.is_none() {
        return Err(ConfigError::Invalid("examples.windows: needs data.time"));
    }
    if examples.windows.is_some_and(|windows| windows.days == 0 || !(1..=1000).contains(&windows.count)) {
        return Err(ConfigError::Invalid("examples.windows: days must be above 0, count 1 to 1000"));
    }
    Ok(())
}

/// Whether there are versions that the gates let pass, and others.
pub(super) fn check_gates(gates: &GatesConfig) -> Result<(), ConfigError> {
    // No range holds what is not a number.
    let is_share = |share: f64| (0.0..=1.0).contains(&share);
    let fault = if !is_share(gates.accuracy) {
        "gates.accuracy: must lie between 0 and 1"
    } else if !is_share(gates.max_auc_drop) {
        "gates.max_auc_drop: must lie between 0 and 1"
    } else if !is_share(gates.max_calibration_error) {
        "gates.max_calibration_error: must lie between 0 and 1"
    } else if gates.max_latency_ms.is_nan() || gates.max_latency_ms <= 0.0 {
        "gates.max_latency_ms: must be above 0"
    } else {
        return Ok(());
    };
    Err(ConfigError::Invalid(fault))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::super::{Pipeline, tests::EXAMPLE};

    /// What is said of the example with `from` replaced by `to`.
    fn refusal(from: &str, to: &str) -> String {
        let text = EXAMPLE.replacen(from, to, 1);
        assert_ne!(text, EXAMPLE, "the change must change something");
        let error = Pipeline::parse(&text).expect_err(to);
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    fn said_of(table: &str, key: &str) -> String {
        refusal("[features]", &format!("[{table}]\n{key}\n[features]"))
    }

    #[test]
    fn sizes_that_no_model_has_are_refused_by_their_key() {
        for (key, expected) in [
            ("embedding_dimension = 0", "model.embedding_dimension: must be 1 to 4096"),
            ("embedding_dimension = 4097", "model.embedding_dimension: must be 1 to 4096"),
            ("hidden_units = [64, 0]", "model.hidden_units: must be 1 to 65536"),
            ("hidden_units = [1000000000000]", "model.hidden_units: must be 1 to 65536"),
            ("batch_rows = 0", "model.batch_rows: must be 1 to 1048576"),
            ("epochs = 0", "model.epochs: must be 1 to 1000"),
            ("cross_layers = 17", "model.cross_layers: must be 0 to 16"),
        ] {
            assert_eq!(said_of("model", key), expected);
        }
        let layers = ["2"; 17].join(", ");
        assert!(said_of("model", &format!("hidden_units = [{layers}]")).contains("at most 16 layers"));
        for key in ["mlp_rate = inf", "mlp_rate = nan", "wide_l2 = inf"] {
            assert!(said_of("model", key).contains("finite"), "{key}");
        }
        let largest =
            "[model]\nhidden_units = [65536]\nembedding_dimension = 4096\ncross_layers = 16\n[features]";
        Pipeline::parse(&EXAMPLE.replace("[features]", largest)).expect("the largest");
    }

    #[test]
    fn gates_that_pass_everything_or_nothing_are_refused_by_their_key() {
        for (key, values) in [
            ("accuracy", ["1.5", "-0.1", "nan"]),
            ("max_auc_drop", ["1.5", "-0.1", "nan"]),
            ("max_calibration_error", ["1.5", "-0.1", "nan"]),
            ("max_latency_ms", ["0", "-1", "nan"]),
        ] {
            for value in values {
                let said = said_of("gates", &format!("{key} = {value}"));
                assert!(said.starts_with(&format!("gates.{key}: must ")), "{said}");
            }
        }
    }

    #[test]
    fn purchases_need_negatives_and_labels_do_not() {
        let expected = "examples.negatives_per_positive: must be 1 to 1000, or 0 in a log with data.label";
        assert_eq!(said_of("examples", "negatives_per_positive = 0"), expected);
        assert_eq!(said_of("examples", "negatives_per_positive = 1001"), expected);
        let labelled = EXAMPLE
            .replace("[split]", "label = \"liked\"\n[split]")
            .replace("[features]", "[examples]\nnegatives_per_positive = 0\n[features]");
        Pipeline::parse(&labelled).expect("a log with a label");
    }
}
