//! The state and health of a container in `inspect`, with docker's field names.

use davit_contracts::runtime::{ContainerSpec, State};
use serde_json::{Value, json};

use crate::output::words;

/// docker's object.
pub fn state_of(s: &State) -> Value {
    let mut out = json!({
        "Status": s.status,
        "Running": matches!(s.status.as_str(), "running" | "paused" | "restarting"),
        "Paused": s.status == "paused",
        "Restarting": s.status == "restarting",
        "OOMKilled": s.oom_killed,
        "Dead": s.status == "dead",
        "Pid": s.pid,
        "ExitCode": s.exit_code,
        "Error": s.error,
        "StartedAt": words::rfc3339(s.started_unix_ns),
        "FinishedAt": words::rfc3339(s.finished_unix_ns),
    });
    if !s.health.is_empty() {
        out["Health"] = health(s);
    }
    out["LogDroppedBytes"] = json!(s.log_dropped_bytes);
    out["LogError"] = json!(s.log_error);
    out
}

fn health(s: &State) -> Value {
    let log = s.health_log.clone().unwrap_or_default();
    let results = log.results.iter().map(|r| {
        json!({
            "Start": words::rfc3339(r.start_unix_ns),
            "End": words::rfc3339(r.end_unix_ns),
            "ExitCode": r.exit_code,
            "Output": r.output,
        })
    });
    json!({ "Status": s.health, "FailingStreak": log.failing_streak, "Log": results.collect::<Vec<_>>() })
}

/// docker's object, of what was asked for and the image's.
pub fn healthcheck(spec: &ContainerSpec) -> Value {
    let Some(h) = &spec.health else { return Value::Null };
    let mut out = json!({ "Test": h.test });
    for (key, value) in [
        ("Interval", h.interval_ns),
        ("Timeout", h.timeout_ns),
        ("StartPeriod", h.start_period_ns),
        ("StartInterval", h.start_interval_ns),
        ("Retries", h.retries.into()),
    ] {
        if value != 0 {
            out[key] = json!(value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use davit_contracts::runtime::{HealthLog, HealthSpec, ProbeResult};

    #[test]
    fn health_is_shown_with_dockers_keys_and_only_where_there_is_one() {
        assert!(state_of(&State::default()).get("Health").is_none());
        let results = vec![ProbeResult { exit_code: 3, output: "no".into(), ..ProbeResult::default() }];
        let health_log = Some(HealthLog { failing_streak: 2, results });
        let state =
            State { health: "unhealthy".into(), health_log, log_dropped_bytes: 7, ..State::default() };
        let v = state_of(&state);
        assert_eq!((&v["Health"]["Status"], &v["Health"]["FailingStreak"]), (&json!("unhealthy"), &json!(2)));
        assert_eq!(
            (&v["Health"]["Log"][0]["ExitCode"], &v["Health"]["Log"][0]["Output"]),
            (&json!(3), &json!("no"))
        );
        assert_eq!(v["LogDroppedBytes"], 7);
        let health = Some(HealthSpec { test: vec!["NONE".into()], retries: 4, ..HealthSpec::default() });
        let spec = ContainerSpec { health, ..ContainerSpec::default() };
        assert_eq!(healthcheck(&spec), json!({"Test": ["NONE"], "Retries": 4}));
        assert!(healthcheck(&ContainerSpec::default()).is_null());
    }
}
