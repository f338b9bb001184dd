//! davit-cni: see the library. A verb comes in `CNI_COMMAND`; results and errors go to stdout as JSON.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use davit_cni::LARGEST_CONFIG;
use davit_cni::call::{Call, Verb};
use davit_cni::config::Config;
use davit_cni::failure::{Code, Failure};
use davit_cni::{verbs, version::Version};
use serde_json::Value;

const ABOUT: &str = "\
davit-cni: davit's networks as a plugin of the Container Network Interface

It is run by who manages containers (containerd, CRI-O, podman): verb and parameters in CNI_COMMAND, CNI_CONTAINERID,
CNI_NETNS, CNI_IFNAME and CNI_ARGS, the configuration on stdin, results and errors on stdout, as JSON.

Verbs:     ADD, DEL, CHECK, GC, STATUS, VERSION
Versions:  0.3.1, 0.4.0, 1.0.0, 1.1.0

A configuration for /etc/cni/net.d, on a network that 'davit net create my-bridge' made:
  {\"cniVersion\": \"1.0.0\", \"name\": \"my-bridge\", \"plugins\": [
    {\"type\": \"davit-cni\", \"network\": \"my-bridge\", \"capabilities\": {\"portMappings\": true}}]}
";

fn main() -> ExitCode {
    if let Some(word) = std::env::args().nth(1) {
        let known = match word.as_str() {
            "--help" | "-h" => Some(ABOUT.to_owned()),
            "--version" | "-V" => Some(format!("davit-cni {}\n", env!("CARGO_PKG_VERSION"))),
            _ => None,
        };
        let Some(text) = known else {
            eprintln!("davit-cni: it takes no argument '{word}'; see davit-cni --help");
            return ExitCode::FAILURE;
        };
        let _ = io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    let (version, outcome) = serve();
    let (printed, code) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(failure) => (failure.json(version), ExitCode::FAILURE),
    };
    match writeln!(io::stdout(), "{printed:#}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve() -> (Version, Result<Option<Value>, Failure>) {
    let call = match Call::parse(|name| std::env::var(name).ok()) {
        Ok(call) => call,
        Err(failure) => return (Version::LATEST, Err(failure)),
    };
    let mut stdin = Vec::new();
    // One byte more than there may be tells that it is too much.
    if let Err(e) = io::stdin().lock().take(LARGEST_CONFIG + 1).read_to_end(&mut stdin)
        && call.verb != Verb::Version
    {
        let failure = Failure::new(Code::Io, format!("cannot read the configuration from stdin: {e}"));
        return (Version::LATEST, Err(failure));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(verbs::run(&call, &stdin)),
        Err(e) => Err(Failure::new(Code::Io, format!("cannot start: {e}"))),
    };
    (Config::version_of(&stdin), outcome)
}
