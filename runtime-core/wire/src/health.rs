//! Health checks: what is asked of a container, and what came of it.

use serde::{Deserialize, Serialize};

/// How a container's health is found out. Times are in milliseconds, at least 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// What is tried.
    pub probe: Probe,
    /// From the end of one probe to the beginning of the next, and from the start to the first.
    pub interval_ms: u64,
    /// A probe that takes longer has failed.
    pub timeout_ms: u64,
    /// Failures within this time after the start do not count, until the first success.
    pub start_period_ms: u64,
    /// The interval within the start period.
    pub start_interval_ms: u64,
    /// So many failures in a row mean that it is unhealthy.
    pub retries: u32,
    /// Kill the program when it becomes unhealthy.
    pub kill: bool,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A program inside, as the container's own user and with its environment; exit code 0 is success.
    Exec {
        /// Program and arguments.
        args: Vec<String>,
    },
    /// A TCP connection from the container's network namespace.
    Tcp {
        /// IP address or `localhost`.
        host: String,
        /// To this port.
        port: u16,
    },
    /// GET from the container's network namespace; a status from 200 to 399 is success.
    Http {
        /// IP address or `localhost`.
        host: String,
        /// At this port.
        port: u16,
        /// Path and query.
        path: String,
    },
}

impl Default for Probe {
    fn default() -> Self {
        Self::Exec { args: Vec::new() }
    }
}

/// docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Neither has been found yet.
    #[default]
    Starting,
    /// The last probe succeeded, or not enough have failed since.
    Healthy,
    /// Enough probes have failed in a row.
    Unhealthy,
}

impl HealthStatus {
    /// docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of a container's health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Failures in a row that count.
    pub failing_streak: u32,
    /// The last results (at most 5), oldest first.
    pub log: Vec<ProbeResult>,
}

/// What came of one probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeResult {
    /// Nanoseconds since 1970.
    pub start_unix_ns: i64,
    /// Nanoseconds since 1970.
    pub end_unix_ns: i64,
    /// 0: success; -1: it could not be run, or took too long.
    pub exit_code: i32,
    /// The first 4096 bytes of what it wrote, or why it could not be run.
    pub output: String,
}
