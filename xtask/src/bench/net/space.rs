//! Network namespaces that a sleeping process holds, and what is done in them.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, ensure};

/// A namespace; it is gone with the value.
#[derive(Debug)]
pub struct Space {
    child: Child,
}

impl Space {
    /// Runs `script` in a new network namespace, and a new mount namespace too when it is a host.
    pub fn new(host: bool, script: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("unshare");
        command.arg("--net");
        if host {
            command.args(["--mount", "--propagation", "private"]);
        }
        let script = format!("set -e; {script}\necho ready; exec sleep 100000");
        let mut child =
            command.args(["sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = [0; 6];
        child.stdout.as_mut().context("its output is a pipe")?.read_exact(&mut line).context(script)?;
        Ok(Self { child })
    }

    /// The process that holds it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When that process started: field 22 of /proc/PID/stat.
    pub fn start_time(&self) -> anyhow::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let after = stat.rsplit_once(')').context("no command in stat")?.1;
        Ok(after.split_whitespace().nth(19).context("no start time in stat")?.parse()?)
    }

    /// The namespace as a path.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid()).into()
    }

    /// A command in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().to_string(), "-n", "-m", program]).stdin(Stdio::null());
        command
    }

    /// Runs a shell command in it.
    pub fn run(&self, script: &str) -> anyhow::Result<String> {
        let output = self.command("sh").args(["-ec", script]).output()?;
        text(&output).with_context(|| script.to_owned())
    }
}

/// What a program printed, if it succeeded.
pub fn text(output: &Output) -> anyhow::Result<String> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {out}{err}", output.status);
    Ok(out.into_owned())
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
