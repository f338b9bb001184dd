//! Hooks: programs that get the container's state on stdin.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::spec::Hook;

/// Runs them in order; the first that fails ends it.
pub fn run(hooks: &[Hook], state_json: &str) -> Result<()> {
    hooks.iter().try_for_each(|hook| run_one(hook, state_json))
}

fn run_one(hook: &Hook, state_json: &str) -> Result<()> {
    let fail = |problem: String| Error::Hook { path: hook.path.clone(), problem };
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|e| e.split_once('=')));
    let mut child = command.stdin(Stdio::piped()).spawn().map_err(|e| fail(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its input is fine.
        let _ = stdin.write_all(state_json.as_bytes());
    }
    let deadline = hook.timeout.filter(|t| *t > 0).map(|t| Instant::now() + Duration::from_secs(t));
    loop {
        let ended = if deadline.is_some() { child.try_wait() } else { child.wait().map(Some) };
        match ended.map_err(|e| fail(e.to_string()))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(fail(format!("ended with {status}"))),
            None if deadline.is_some_and(|d| Instant::now() > d) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fail(format!("took longer than {} s", hook.timeout.unwrap_or_default())));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<u64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["A=b".into()], timeout }
    }

    #[test]
    fn hooks_read_the_state_and_their_own_environment_only() {
        run(&[hook("read s; [ \"$s\" = '{}' ] && [ \"$A\" = b ] && [ -z \"$HOME\" ]", None)], "{}\n")
            .unwrap();
        let e = run(&[hook("exit 3", None), hook("exit 4", None)], "").unwrap_err().to_string();
        assert!(e.contains("exit status: 3"), "{e}");
        let e = run(&[hook("sleep 60", Some(1))], "").unwrap_err().to_string();
        assert!(e.contains("longer than 1 s"), "{e}");
    }
}
