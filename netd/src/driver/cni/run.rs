//! One plugin as a child process (specification, section 2): parameters in the environment, JSON in and out.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::Object;
use super::running::{MARK, Running, RunningError};

/// How long a plugin may take. DHCP takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is read of what a plugin prints as its result.
const LARGEST_RESULT: u64 = 1 << 20;
/// The most that is kept of what it prints besides.
const LARGEST_LOG: u64 = 16 << 10;

/// What a plugin is called with.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The program.
    pub program: &'a Path,
    /// `ADD`, `DEL`, ...
    pub verb: &'static str,
    /// `CNI_CONTAINERID`; empty where the verb has none.
    pub container: &'a str,
    /// `CNI_NETNS`; absent when it is gone.
    pub netns: Option<&'a Path>,
    /// `CNI_IFNAME`.
    pub interface: &'a str,
    /// `CNI_PATH`.
    pub path: &'a [PathBuf],
    /// stdin.
    pub config: &'a Object,
    /// Where it is on record meanwhile.
    pub running: &'a Running,
}

/// Why a plugin did not do what it was to.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's message says what it is")]
pub enum RunError {
    #[error("cannot run {program}")]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot record that {program} runs")]
    Record { program: PathBuf, source: RunningError },
    #[error("plugin '{plugin}' did not end its {verb} within {} s", PATIENCE.as_secs())]
    Timeout { plugin: String, verb: &'static str },
    #[error("plugin '{plugin}' refused {verb}: {message} (code {code})")]
    Refused { plugin: String, verb: &'static str, code: u64, message: String },
    #[error("plugin '{plugin}' failed at {verb} with {status}: {log}")]
    Failed { plugin: String, verb: &'static str, status: ExitStatus, log: String },
    #[error("plugin '{plugin}' answered {verb} with what is not a result: {why}")]
    Garbage { plugin: String, verb: &'static str, why: String },
}

impl RunError {
    /// The plugin's own error code.
    pub fn code(&self) -> Option<u64> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Runs a plugin to its end; its result, when it printed one.
pub async fn run(call: &Call<'_>) -> Result<Option<Object>, RunError> {
    let plugin = call.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed = |source| RunError::Start { program: call.program.to_owned(), source };
    let mark = format!("{:032x}", rand::random::<u128>());
    let mut child = command(call).env(MARK, &mark).spawn().map_err(failed)?;
    let group = child.id().map_or(0, |id| id as i32);
    let mut whole = Group(group);
    // Before it is told what to do: a kill of netd from here on leaves a plugin that the next start finds.
    let recorded = match call.running.record(group, &mark) {
        Ok(recorded) => recorded,
        Err(source) => {
            end(&mut child, whole).await;
            return Err(RunError::Record { program: call.program.to_owned(), source });
        }
    };
    let talk = talk(&mut child, call.config);
    let talked = tokio::time::timeout(PATIENCE, talk).await;
    if talked.is_err() {
        end(&mut child, whole).await;
    } else {
        // Its leader has been waited for: from here on the number may be another's.
        whole.0 = 0;
    }
    recorded.ended();
    let Ok(talked) = talked else { return Err(RunError::Timeout { plugin, verb: call.verb }) };
    let (status, out, log) = talked.map_err(failed)?;
    read(plugin, call.verb, status, &out, &log)
}

/// Plugins run plugins: all of the group ends.
async fn end(child: &mut Child, group: Group) {
    drop(group);
    let _ = child.wait().await;
}

/// A process group whose leader has not been waited for. It ends with the run, also when nobody waits for that any more.
struct Group(i32);

impl Drop for Group {
    fn drop(&mut self) {
        if self.0 > 0 {
            let _ = killpg(Pid::from_raw(self.0), Signal::SIGKILL);
        }
    }
}

fn command(call: &Call<'_>) -> Command {
    let join = |path: &[PathBuf]| std::env::join_paths(path).unwrap_or_default();
    let mut command = Command::new(call.program);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", call.verb)
        .env("CNI_PATH", join(call.path))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if !call.container.is_empty() {
        command
            .env("CNI_CONTAINERID", call.container)
            .env("CNI_IFNAME", call.interface)
            .env("CNI_NETNS", call.netns.unwrap_or(Path::new("")));
    }
    command
}

async fn talk(child: &mut Child, config: &Object) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = serde_json::to_vec(config).expect("its keys are strings");
    let write = async move {
        if let Some(mut stdin) = stdin {
            // A plugin need not read all of it.
            let _ = stdin.write_all(&input).await;
        }
    };
    let ((), out, log, status) =
        tokio::join!(write, bounded(stdout, LARGEST_RESULT + 1), bounded(stderr, LARGEST_LOG), child.wait());
    Ok((status?, out?, log?))
}

/// The beginning of a stream; the rest is read and forgotten, so that the plugin does not wait for us.
async fn bounded(stream: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return Ok(kept) };
    (&mut stream).take(most).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// Success is exit code 0 and a result or nothing; an error is any other exit code, and an object with a code.
fn read(
    plugin: String,
    verb: &'static str,
    status: ExitStatus,
    out: &[u8],
    log: &[u8],
) -> Result<Option<Object>, RunError> {
    let garbage = |plugin, why: String| RunError::Garbage { plugin, verb, why };
    if out.len() as u64 > LARGEST_RESULT {
        return Err(garbage(plugin, "it is larger than 1 MiB".into()));
    }
    let printed = serde_json::from_slice::<Object>(out);
    if status.success() {
        if out.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        return printed.map(Some).map_err(|e| garbage(plugin, e.to_string()));
    }
    let error = printed.unwrap_or_default();
    let text = |key: &str| error.get(key).and_then(Value::as_str).map(one_line).filter(|t| !t.is_empty());
    let Some(message) = text("msg") else {
        let log = one_line(&String::from_utf8_lossy(log));
        let log = if log.is_empty() { "it said nothing".to_owned() } else { log };
        return Err(RunError::Failed { plugin, verb, status, log });
    };
    let message = match text("details") {
        Some(details) => format!("{message}: {details}"),
        None => message,
    };
    let code = error.get("code").and_then(Value::as_u64).unwrap_or_default();
    Err(RunError::Refused { plugin, verb, code, message })
}

/// What is put into a message: no line ends, and not too much.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 1000 { line } else { line.chars().take(997).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    async fn script(body: &str) -> Result<Option<Object>, RunError> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("plugin");
        fs::write(&program, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let config = serde_json::json!({"name": "n"}).as_object().unwrap().clone();
        let call = Call {
            program: &program,
            verb: "ADD",
            container: "c1",
            netns: Some(Path::new("/run/netns/x")),
            interface: "eth0",
            path: &[PathBuf::from("/a"), PathBuf::from("/b")],
            config: &config,
            running: &Running::open(dir.path().join("running")).unwrap(),
        };
        let result = run(&call).await;
        assert_eq!(fs::read_dir(dir.path().join("running")).unwrap().count(), 0, "no record is left");
        result
    }

    #[tokio::test]
    async fn parameters_and_configuration_arrive_and_the_result_comes_back() {
        let body = r#"printf '{"in":%s,"as":"%s %s %s %s %s"}' "$(cat)" $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_PATH"#;
        let result = script(body).await.unwrap().unwrap();
        assert_eq!(result["in"]["name"], "n");
        assert_eq!(result["as"], "ADD c1 /run/netns/x eth0 /a:/b");
        assert_eq!(script("exit 0").await.unwrap(), None);
    }

    #[tokio::test]
    async fn each_failure_says_what_the_plugin_said() {
        let refused = script(r#"printf %s '{"code": 7, "msg": "bad\nnet", "details": "d"}'; exit 1"#)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Some(7));
        assert_eq!(refused.to_string(), "plugin 'plugin' refused ADD: bad net: d (code 7)");
        let failed = script("echo oh no >&2; exit 3").await.unwrap_err().to_string();
        assert!(failed.contains("oh no") && failed.contains('3'), "{failed}");
        let garbage = script("echo hello").await.unwrap_err();
        assert!(matches!(garbage, RunError::Garbage { .. }), "{garbage}");
        let large = script("head -c 3000000 /dev/zero | tr '\\0' ' '; head -c 9000000 /dev/zero >&2")
            .await
            .unwrap_err();
        assert!(large.to_string().contains("larger"), "{large}");
    }

    #[tokio::test]
    async fn a_plugin_need_not_read_its_input() {
        assert!(script("exec <&-; exit 0").await.is_ok());
    }
}
