//! The verbs (specification, section 2): each reads a call and a configuration, and asks netd.
//!
//! ```text
//! ADD      Attach, with a new sandbox for (configuration, container, interface); makes the network when it has to
//! DEL      Detach, also when nothing is there
//! CHECK    prevResult against the kernel and netd's record
//! GC       Detach for each attachment of this configuration that is not in the list
//! STATUS   whether ADD would work
//! ```

mod add;
mod check;
mod fit;
mod identity;
mod remove;
mod status;

use serde_json::{Value, json};

use crate::call::{Attachment, Call, Verb};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::version::Version;

pub use identity::sandbox_id;

/// Runs a call with its configuration; what is to be printed, if anything.
pub async fn run(call: &Call, stdin: &[u8]) -> Result<Option<Value>, Failure> {
    if call.verb == Verb::Version {
        return Ok(Some(versions(stdin)));
    }
    let config = Config::parse(stdin, call.verb)?;
    match call.verb {
        Verb::Add => add::add(attachment(call)?, &config).await.map(|result| Some(Value::Object(result))),
        Verb::Del => remove::del(attachment(call)?, &config).await.map(|()| None),
        Verb::Check => check::check(attachment(call)?, &config).await.map(|()| None),
        Verb::Gc => remove::gc(&config).await.map(|()| None),
        Verb::Status => status::status(&config).await.map(|()| None),
        Verb::Version => Ok(None),
    }
}

fn attachment(call: &Call) -> Result<&Attachment, Failure> {
    let missing = || Failure::new(Code::Environment, "CNI_CONTAINERID is not set");
    call.attachment.as_ref().ok_or_else(missing)
}

fn versions(stdin: &[u8]) -> Value {
    let all = Version::ALL.map(Version::name);
    json!({"cniVersion": Config::version_of(stdin).name(), "supportedVersions": all})
}
