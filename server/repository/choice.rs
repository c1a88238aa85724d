//! Which engine serves a version: what the configuration asks for or, where it leaves the choice, what the warm-up of each
//! measured. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineWish {
    /// ONNX Runtime on the processor.
    #[default]
    OnnxCpu,
    /// ONNX Runtime on a GPU; where it cannot be had, the version is not loaded.
    OnnxCuda,
    /// Our own engine on a GPU; where it cannot be had, the version is not loaded.
    Cuda,
    /// TensorRT on a GPU, with an engine that was built ahead of time; where it cannot be had, the version is not loaded.
    #[serde(rename = "tensorrt")]
    TensorRt,
    /// The cheapest of those that can be had.
    Auto,
}

impl EngineWish {
    /// The engines to try, of which the first wins where two cost the same.
    pub fn candidates(self) -> &'static [EngineKind] {
        match self {
            Self::OnnxCpu => &[EngineKind::OnnxCpu],
            Self::OnnxCuda => &[EngineKind::OnnxCuda],
            Self::Cuda => &[EngineKind::Cuda],
            Self::TensorRt => &[EngineKind::TensorRt],
            Self::Auto => {
                &[EngineKind::OnnxCpu, EngineKind::Cuda, EngineKind::TensorRt, EngineKind::OnnxCuda]
            }
        }
    }
}

/// What can serve a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// ONNX Runtime on the processor.
    #[default]
    OnnxCpu,
    /// ONNX Runtime on a GPU.
    OnnxCuda,
    /// Our own engine on a GPU.
    Cuda,
    /// TensorRT on a GPU.
    #[serde(rename = "tensorrt")]
    TensorRt,
}

impl EngineKind {
    /// Its name, as the configuration, metrics and answers have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnnxCpu => "onnx-cpu",
            Self::OnnxCuda => "onnx-cuda",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }
}

/// Why an engine serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// The configuration asks for it.
    #[default]
    Configured,
    /// Its largest batch costs less than that of any other.
    Cheapest,
    /// No other can serve the version.
    Only,
}

impl Because {
    /// Its name, as metrics and answers have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Cheapest => "cheapest",
            Self::Only => "only",
        }
    }
}

/// The engine that serves a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// Which.
    #[serde(rename = "name")]
    pub engine: EngineKind,
    /// Why.
    pub because: Because,
    /// Why, in words, and what became of the others.
    pub reason: String,
}

/// An engine that was tried: what its largest batch cost, or why it cannot serve.
pub type Tried = (EngineKind, Result<Duration, String>);

/// The engine to serve with, of those that `wish` asked for. `None` where none can.
pub fn choose(wish: EngineWish, tried: &[Tried]) -> Option<Choice> {
    let usable = tried.iter().filter_map(|(engine, cost)| Some((*engine, *cost.as_ref().ok()?)));
    // Of those that cost the same, the first.
    let (engine, cost) = usable.clone().min_by_key(|(_, cost)| *cost)?;
    if wish != EngineWish::Auto {
        let reason = "the configuration asks for it".to_owned();
        return Some(Choice { engine, because: Because::Configured, reason });
    }
    let others = tried.iter().filter(|(other, _)| *other != engine);
    let others: Vec<String> = others
        .map(|(other, cost)| match cost {
            Ok(cost) => format!("that of {} {cost:.0?}", other.name()),
            Err(reason) => format!("{} cannot serve it ({reason})", other.name()),
        })
        .collect();
    let because = if usable.count() > 1 { Because::Cheapest } else { Because::Only };
    let reason = format!("its largest batch costs {cost:.0?}, {}", others.join(", "));
    Some(Choice { engine, because, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_serves_and_of_several_the_cheapest() {
        use EngineKind::{Cuda, OnnxCpu, OnnxCuda, TensorRt};
        let cost = |microseconds: u64| {
            (microseconds > 0).then(|| Duration::from_micros(microseconds)).ok_or_else(|| "no GPU".to_owned())
        };
        // What each would cost, of which nothing is none.
        let all = |cpu, onnx, cuda, tensorrt| {
            vec![(OnnxCpu, cost(cpu)), (Cuda, cost(cuda)), (TensorRt, cost(tensorrt)), (OnnxCuda, cost(onnx))]
        };
        let auto = |cpu, onnx, cuda| all(cpu, onnx, cuda, 0);
        let (asked, cheapest, only) = (Because::Configured, Because::Cheapest, Because::Only);
        let cases = [
            (EngineWish::OnnxCpu, vec![(OnnxCpu, cost(9))], Some((OnnxCpu, asked))),
            (EngineWish::OnnxCuda, vec![(OnnxCuda, cost(9))], Some((OnnxCuda, asked))),
            (EngineWish::Cuda, vec![(Cuda, cost(9))], Some((Cuda, asked))),
            (EngineWish::Cuda, vec![(Cuda, cost(0))], None),
            (EngineWish::TensorRt, vec![(TensorRt, cost(9))], Some((TensorRt, asked))),
            (EngineWish::TensorRt, vec![(TensorRt, cost(0))], None),
            (EngineWish::Auto, all(9, 8, 7, 6), Some((TensorRt, cheapest))),
            (EngineWish::Auto, all(9, 8, 7, 7), Some((Cuda, cheapest))),
            (EngineWish::Auto, all(0, 0, 0, 9), Some((TensorRt, only))),
            (EngineWish::Auto, auto(9, 8, 7), Some((Cuda, cheapest))),
            (EngineWish::Auto, auto(9, 7, 8), Some((OnnxCuda, cheapest))),
            (EngineWish::Auto, auto(7, 8, 9), Some((OnnxCpu, cheapest))),
            (EngineWish::Auto, auto(8, 8, 8), Some((OnnxCpu, cheapest))),
            (EngineWish::Auto, auto(9, 0, 8), Some((Cuda, cheapest))),
            (EngineWish::Auto, auto(8, 0, 0), Some((OnnxCpu, only))),
            (EngineWish::Auto, auto(0, 0, 8), Some((Cuda, only))),
            (EngineWish::Auto, auto(0, 0, 0), None),
        ];
        for (wish, tried, expected) in cases {
            let choice = choose(wish, &tried);
            assert_eq!(choice.map(|choice| (choice.engine, choice.because)), expected, "{wish:?} {tried:?}");
            let asked: Vec<_> = tried.iter().map(|(engine, _)| *engine).collect();
            assert_eq!(asked, wish.candidates());
        }
    }

    #[test]
    fn the_reason_says_what_became_of_the_others() {
        let reason = |cuda| {
            let tried = [(EngineKind::OnnxCpu, Ok(Duration::from_micros(800))), (EngineKind::Cuda, cuda)];
            choose(EngineWish::Auto, &tried).expect("one can").reason
        };
        assert_eq!(
            reason(Ok(Duration::from_micros(60))),
            "its largest batch costs 60µs, that of onnx-cpu 800µs"
        );
        assert_eq!(
            reason(Err("no GPU".into())),
            "its largest batch costs 800µs, cuda cannot serve it (no GPU)"
        );
    }
}
