//! `davit diff`: what a container changed in its image.

use davit_contracts::storage::ChangesRequest;
use davit_contracts::storage::change::Kind;

use super::export::{find, process};
use crate::app::App;
use crate::args::tree::DiffArgs;
use crate::error::Outcome;
use crate::output;

/// `davit diff`
pub async fn diff(app: &App, args: &DiffArgs) -> Outcome {
    let container = find(app, &args.container).await?;
    let (pid, pid_start_ticks) = process(app, &container).await?;
    let request = ChangesRequest { key: container.id, pid, pid_start_ticks };
    let answer = app.storage(app.snapshots().await?.changes(request)).await?;
    let mut text = String::new();
    for change in &answer.changes {
        let letter = match change.kind() {
            Kind::Added => 'A',
            Kind::Deleted => 'D',
            Kind::Modified | Kind::Unspecified => 'C',
        };
        text.push(letter);
        text.push(' ');
        text.push_str(&change.path);
        text.push('\n');
    }
    output::print(&text);
    Ok(())
}
