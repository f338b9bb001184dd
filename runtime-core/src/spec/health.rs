//! Health checks as asked for and as the image has them: docker's forms, defaults and refusals, and two forms without a process.

use davit_contracts::runtime::HealthSpec;
use davit_contracts::storage::HealthCheck as ImageHealth;
use davit_wire::{HealthCheck, Probe};

use crate::error::RuntimeError;

const MS: i64 = 1_000_000;
/// docker's defaults.
const INTERVAL: i64 = 30_000 * MS;
const TIMEOUT: i64 = 30_000 * MS;
const START_INTERVAL: i64 = 5000 * MS;
const RETRIES: u32 = 3;

/// Refuses what cannot be.
pub fn check(spec: &HealthSpec) -> Result<(), RuntimeError> {
    let invalid = |text: String| Err(RuntimeError::Invalid(text));
    for (what, ns) in [
        ("Interval", spec.interval_ns),
        ("Timeout", spec.timeout_ns),
        ("StartPeriod", spec.start_period_ns),
        ("StartInterval", spec.start_interval_ns),
    ] {
        if ns != 0 && ns < MS {
            return invalid(format!("{what} in Healthcheck cannot be less than 1ms"));
        }
    }
    if !matches!(spec.on_failure.as_str(), "" | "none" | "kill" | "stop" | "restart") {
        let text = &spec.on_failure;
        return invalid(format!(
            "invalid --health-on-failure '{text}': none, kill, restart and stop are known"
        ));
    }
    probe(&spec.test, &[]).map(drop)
}

/// What was asked for, and the image's where nothing was.
pub fn merged(asked: Option<&HealthSpec>, image: Option<&ImageHealth>) -> Option<HealthSpec> {
    let mut spec = asked.cloned().unwrap_or_default();
    let Some(image) = image else { return asked.map(|_| spec) };
    let or = |own: i64, theirs: i64| if own == 0 { theirs } else { own };
    if spec.test.is_empty() {
        spec.test.clone_from(&image.test);
    }
    spec.interval_ns = or(spec.interval_ns, image.interval_ns);
    spec.timeout_ns = or(spec.timeout_ns, image.timeout_ns);
    spec.start_period_ns = or(spec.start_period_ns, image.start_period_ns);
    spec.start_interval_ns = or(spec.start_interval_ns, image.start_interval_ns);
    if spec.retries == 0 {
        spec.retries = image.retries;
    }
    Some(spec)
}

/// What the monitor is told; none where nothing is to be tried. `shell` is the image's.
pub fn plan(spec: &HealthSpec, shell: &[String]) -> Result<Option<HealthCheck>, RuntimeError> {
    let Some(probe) = probe(&spec.test, shell)? else { return Ok(None) };
    let ms = |ns: i64, default: i64| (if ns <= 0 { default } else { ns } / MS).max(1) as u64;
    Ok(Some(HealthCheck {
        probe,
        interval_ms: ms(spec.interval_ns, INTERVAL),
        timeout_ms: ms(spec.timeout_ns, TIMEOUT),
        start_period_ms: (spec.start_period_ns / MS).max(0) as u64,
        start_interval_ms: ms(spec.start_interval_ns, START_INTERVAL),
        retries: if spec.retries == 0 { RETRIES } else { spec.retries },
        kill: spec.on_failure == "kill",
    }))
}

fn probe(test: &[String], shell: &[String]) -> Result<Option<Probe>, RuntimeError> {
    let invalid = |text: String| Err(RuntimeError::Invalid(text));
    let Some((kind, rest)) = test.split_first() else { return Ok(None) };
    let single = || match rest {
        [one] if !one.is_empty() => Ok(one.as_str()),
        _ => Err(RuntimeError::Invalid(format!("a health check of the form {kind} has one argument"))),
    };
    Ok(Some(match kind.as_str() {
        "NONE" => return Ok(None),
        "CMD" if rest.first().is_none_or(String::is_empty) => {
            return invalid("a health check of the form CMD has a command".into());
        }
        "CMD" => Probe::Exec { args: rest.to_vec() },
        "CMD-SHELL" => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let shell = if shell.is_empty() { &default } else { shell };
            Probe::Exec { args: shell.iter().cloned().chain([single()?.to_owned()]).collect() }
        }
        "TCP" => {
            let (host, port) = host_and_port(single()?, None)?;
            Probe::Tcp { host, port }
        }
        "HTTP" => http(single()?)?,
        other => {
            return invalid(format!(
                "unknown health check '{other}': NONE, CMD, CMD-SHELL, TCP and HTTP are known"
            ));
        }
    }))
}

/// `http://HOST[:PORT][/PATH]`
fn http(url: &str) -> Result<Probe, RuntimeError> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(RuntimeError::Invalid(format!("a health check asks http://HOST:PORT/PATH, not '{url}'")));
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = host_and_port(authority, Some(80))?;
    if let Some(bad) = path.chars().find(|c| c.is_control() || c.is_whitespace()) {
        return Err(RuntimeError::Invalid(format!("the path of a health check has {bad:?} in it")));
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Probe::Http { host, port, path })
}

/// `PORT`, `HOST:PORT`, `[ADDRESS]:PORT`; with a default also `HOST` alone.
fn host_and_port(text: &str, default: Option<u16>) -> Result<(String, u16), RuntimeError> {
    let (host, port) = match (text.rsplit_once(':'), default) {
        (Some((host, port)), _) if !port.ends_with(']') => (host, port),
        (_, Some(_)) => (text, ""),
        _ => ("localhost", text),
    };
    let port = if port.is_empty() { default } else { port.parse().ok().filter(|p| *p > 0) };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    let known = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok();
    match port {
        Some(port) if known => Ok((bare.to_owned(), port)),
        _ => Err(RuntimeError::Invalid(format!(
            "invalid health check address '{text}': a port from 1 to 65535 is expected, with localhost or an IP address before it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(words: &[&str]) -> Result<Option<Probe>, String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        probe(&words, &[]).map_err(|e| e.to_string())
    }

    #[test]
    fn all_forms() {
        assert_eq!(test(&[]), Ok(None));
        assert_eq!(test(&["NONE"]), Ok(None));
        let args =
            |list: &[&str]| Ok(Some(Probe::Exec { args: list.iter().map(ToString::to_string).collect() }));
        assert_eq!(test(&["CMD", "a", "b"]), args(&["a", "b"]));
        assert_eq!(test(&["CMD-SHELL", "exit 1"]), args(&["/bin/sh", "-c", "exit 1"]));
        let shell = ["/bin/ash".to_owned()];
        assert_eq!(
            probe(&["CMD-SHELL".into(), "x".into()], &shell).unwrap(),
            Some(Probe::Exec { args: vec!["/bin/ash".into(), "x".into()] })
        );
        let tcp = |host: &str, port| Ok(Some(Probe::Tcp { host: host.into(), port }));
        assert_eq!(test(&["TCP", "80"]), tcp("localhost", 80));
        assert_eq!(test(&["TCP", "127.0.0.2:81"]), tcp("127.0.0.2", 81));
        assert_eq!(test(&["TCP", "[::1]:82"]), tcp("::1", 82));
        let http = |host: &str, port, path: &str| {
            Ok(Some(Probe::Http { host: host.into(), port, path: path.into() }))
        };
        assert_eq!(test(&["HTTP", "http://localhost:8080/x?y=1"]), http("localhost", 8080, "/x?y=1"));
        assert_eq!(test(&["HTTP", "http://[::1]"]), http("::1", 80, "/"));
        assert_eq!(test(&["HTTP", "http://127.0.0.1:90?q"]), http("127.0.0.1", 90, "/?q"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (words, part) in [
            (&["GRPC", "80"][..], "unknown health check 'GRPC'"),
            (&["CMD"], "has a command"),
            (&["CMD-SHELL"], "has one argument"),
            (&["TCP", "0"], "a port from 1 to 65535"),
            (&["TCP", "db:80"], "localhost or an IP address"),
            (&["HTTP", "https://localhost/"], "asks http://HOST:PORT/PATH, not 'https"),
            (&["HTTP", "http://localhost:80/a b"], "' ' in it"),
        ] {
            let e = test(words).unwrap_err();
            assert!(e.contains(part), "{e}");
        }
        let spec = HealthSpec { interval_ns: 5, ..HealthSpec::default() };
        assert!(
            check(&spec).unwrap_err().to_string().contains("Interval in Healthcheck cannot be less than 1ms")
        );
        let spec = HealthSpec { on_failure: "explode".into(), ..HealthSpec::default() };
        assert!(check(&spec).unwrap_err().to_string().contains("explode"));
    }

    #[test]
    fn the_image_fills_what_was_left_out() {
        let image = ImageHealth {
            test: vec!["CMD".into(), "i".into()],
            interval_ns: 5 * MS,
            retries: 7,
            ..ImageHealth::default()
        };
        assert_eq!(merged(None, None), None);
        let from_image = merged(None, Some(&image)).unwrap();
        assert_eq!((from_image.test.len(), from_image.interval_ns, from_image.retries), (2, 5 * MS, 7));
        let asked = HealthSpec { interval_ns: 9 * MS, test: vec!["NONE".into()], ..HealthSpec::default() };
        let both = merged(Some(&asked), Some(&image)).unwrap();
        assert_eq!((both.test[0].as_str(), both.interval_ns), ("NONE", 9 * MS));
        assert_eq!(plan(&both, &[]).unwrap(), None);
        let plan = plan(&from_image, &[]).unwrap().unwrap();
        assert_eq!(
            (plan.interval_ms, plan.timeout_ms, plan.retries, plan.start_period_ms),
            (5, 30_000, 7, 0)
        );
    }
}
