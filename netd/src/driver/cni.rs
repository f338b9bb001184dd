//! Networks that plugins of others make: a configuration list of the Container Network Interface (specification 1.1).
//!
//! ```text
//! list     the configuration list, checked                                    (pure)
//! outcome  what a chain answered, as an endpoint's record                     (pure)
//! asked    what a container asks for, as the capabilities that plugins have   (pure)
//! running  which plugins run now, for the netd that comes after a killed one
//! run      one plugin as a child process: time limit, bounded output
//! chain    ADD forward, DEL in reverse, CHECK, GC, STATUS
//! ```
//! Nothing of this runs on the engine's thread: a plugin may take seconds. The order of records and runs is in
//! [`crate::foreign`]. Interfaces, addresses and rules are the plugins'; names are ours.

pub mod asked;
pub mod chain;
pub mod list;
pub mod outcome;
pub mod run;
pub mod running;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where plugins are looked for unless the network says otherwise.
pub const PLUGIN_PATH: &str = "/opt/cni/bin:/usr/lib/cni";
/// The network's option that says otherwise: directories between colons.
pub const PATH_OPTION: &str = "plugin-path";

/// The network's option that has GC sent: the list is then davit's alone.
pub const GC_OPTION: &str = "gc";

/// A JSON object.
pub type Object = Map<String, Value>;

/// What makes a network of the driver `cni`, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniNetwork {
    /// The configuration list, as it was given.
    pub config: String,
    /// Where its plugins are.
    pub path: Vec<PathBuf>,
    /// Nobody else attaches by this list, so its plugins may be told what is to stay.
    #[serde(default)]
    pub gc: bool,
}

/// An endpoint's part that is the plugins', as it is kept: what they need to hear again at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Capability arguments, given to each plugin that has the capability.
    pub asked: Object,
    /// What the last plugin answered; absent as long as it has not.
    pub result: Option<Object>,
    /// Of an endpoint that is gone but for what the plugins made: all that DEL needs, also when the network is gone too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Box<Left>>,
}

/// The network that a leftover was on, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The network's name.
    pub network: String,
    /// Its plugins.
    pub plugins: CniNetwork,
}
