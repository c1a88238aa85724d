//! What NVIDIA's GPUs say of themselves, read through NVML at every scrape. NVML comes with the driver and is found at run
//! time; where it is not there, there are no GPUs to speak of.

use metrics::Label;
use metrics_exporter_prometheus::PrometheusRecorder;
use nvml_wrapper::{
    Device, Nvml,
    enum_wrappers::device::{Clock, TemperatureSensor},
    error::NvmlError,
};

use super::gauge;

/// The GPUs of the machine.
pub(super) struct Gpus {
    nvml: Option<Nvml>,
}

/// What one of them says. Some GPUs do not say everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Gpu {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) driver: String,
    /// The share of the last sample period, of a second at most, in which a kernel ran.
    pub(super) utilization: Option<f64>,
    pub(super) memory_used_bytes: Option<f64>,
    pub(super) memory_bytes: Option<f64>,
    pub(super) power_watts: Option<f64>,
    pub(super) clock_hertz: Option<f64>,
    pub(super) temperature_celsius: Option<f64>,
}

impl Gpus {
    /// Looks for NVML.
    pub(super) fn find() -> Self {
        let nvml = Nvml::init();
        match &nvml {
            Ok(_) => tracing::info!("NVML is open: metrics tell of GPUs"),
            // No driver, which is nothing to tell anybody.
            Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => {}
            Err(error) => tracing::warn!(%error, "NVML cannot be used: metrics tell nothing of GPUs"),
        }
        Self { nvml: nvml.ok() }
    }

    /// What they say now.
    pub(super) fn read(&self) -> Vec<Gpu> {
        let Some(nvml) = &self.nvml else { return Vec::new() };
        let driver = nvml.sys_driver_version().unwrap_or_default();
        let count = nvml.device_count().unwrap_or(0);
        let gpu = |number| Some(Gpu::read(number, &driver, &nvml.device_by_index(number).ok()?));
        (0..count).filter_map(gpu).collect()
    }
}

impl Gpu {
    fn read(number: u32, driver: &str, device: &Device<'_>) -> Self {
        let memory = device.memory_info().ok();
        Self {
            number,
            name: device.name().unwrap_or_default(),
            driver: driver.to_owned(),
            utilization: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used as f64),
            memory_bytes: memory.as_ref().map(|memory| memory.total as f64),
            power_watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
            clock_hertz: device.clock_info(Clock::SM).ok().map(|megahertz| f64::from(megahertz) * 1e6),
            temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
        }
    }

    /// Sets its series.
    pub(super) fn record(&self, recorder: &PrometheusRecorder) {
        let number = Label::new("gpu", self.number.to_string());
        let named = [
            number.clone(),
            Label::new("name", self.name.clone()),
            Label::new("driver", self.driver.clone()),
        ];
        gauge(recorder, "millrace_gpu_info", &named).set(1.0);
        for (family, value) in [
            ("millrace_gpu_utilization_ratio", self.utilization),
            ("millrace_gpu_memory_used_bytes", self.memory_used_bytes),
            ("millrace_gpu_memory_bytes", self.memory_bytes),
            ("millrace_gpu_power_watts", self.power_watts),
            ("millrace_gpu_clock_hertz", self.clock_hertz),
            ("millrace_gpu_temperature_celsius", self.temperature_celsius),
        ] {
            if let Some(value) = value {
                gauge(recorder, family, std::slice::from_ref(&number)).set(value);
            }
        }
    }
}
