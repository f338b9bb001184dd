//! `davit healthcheck`.

use davit_contracts::runtime::ProbeRequest;

use crate::app::App;
use crate::args::container::HealthcheckCommand;
use crate::error::Outcome;
use crate::output;

/// podman's: silent when it is healthy, else its word, and code 1.
pub async fn run(app: &App, command: &HealthcheckCommand) -> Outcome<i32> {
    let HealthcheckCommand::Run { container } = command;
    let request = ProbeRequest { container: container.clone() };
    let answer = app.runtime(app.containers().await?.probe(request)).await?;
    let result = answer.result.unwrap_or_default();
    if result.exit_code == 0 {
        return Ok(0);
    }
    output::line("unhealthy");
    if !result.output.trim().is_empty() {
        output::complain!("{}", result.output.trim_end());
    }
    Ok(1)
}
