//! The flags of health checks.

use davit_contracts::runtime::HealthSpec;

use crate::args::run::CreateArgs;

/// None where nothing was asked for.
pub fn health(args: &CreateArgs) -> Result<Option<HealthSpec>, String> {
    let test = if let Some(script) = args.health_cmd.as_deref().filter(|s| !s.is_empty()) {
        vec!["CMD-SHELL".to_owned(), script.to_owned()]
    } else if let Some(port) = &args.health_tcp {
        vec!["TCP".to_owned(), port.clone()]
    } else if let Some(url) = &args.health_http {
        vec!["HTTP".to_owned(), whole_url(url)]
    } else {
        Vec::new()
    };
    let mut spec = HealthSpec {
        test,
        interval_ns: args.health_interval.unwrap_or(0),
        timeout_ns: args.health_timeout.unwrap_or(0),
        start_period_ns: args.health_start_period.unwrap_or(0),
        retries: args.health_retries.unwrap_or(0),
        start_interval_ns: args.health_start_interval.unwrap_or(0),
        on_failure: args.health_on_failure.clone().unwrap_or_default(),
    };
    let asked = spec != HealthSpec::default();
    if args.no_healthcheck {
        if asked {
            return Err("--no-healthcheck conflicts with --health-* options".into());
        }
        spec.test.push("NONE".into());
    }
    Ok((asked || args.no_healthcheck).then_some(spec))
}

/// `8080/path` is at localhost.
fn whole_url(text: &str) -> String {
    let is_port =
        text.split('/').next().is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    if is_port { format!("http://localhost:{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn the_three_forms_and_none() {
        let health = |words: &[&str]| {
            let words = ["davit", "run"].iter().chain(words).chain(&["image"]);
            let cli = crate::args::Cli::parse_from(words);
            let crate::args::Command::Container(c) = cli.command else { panic!() };
            let crate::args::container::ContainerCommand::Run(args) = *c else { panic!() };
            health(&args.create)
        };
        let test = |words: &[&str]| health(words).unwrap().unwrap().test;
        assert_eq!(test(&["--health-cmd", "true"]), ["CMD-SHELL", "true"]);
        assert_eq!(test(&["--health-tcp", "80"]), ["TCP", "80"]);
        let http = |url: &str| test(&["--health-http", url])[1].clone();
        assert_eq!(http("80/a"), "http://localhost:80/a");
        assert_eq!(http("8080"), "http://localhost:8080");
        assert_eq!(http("http://127.0.0.1:1/"), "http://127.0.0.1:1/");
        assert_eq!(test(&["--no-healthcheck"]), ["NONE"]);
        assert_eq!(health(&[]), Ok(None));
        let e = health(&["--no-healthcheck", "--health-retries", "1"]).unwrap_err();
        assert!(e.contains("--no-healthcheck conflicts"));
    }
}
