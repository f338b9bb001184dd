//! Resource limits. Where a hard limit cannot be raised (no CAP_SYS_RESOURCE), the limit is capped to what is allowed.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Context, Error, Result};
use crate::spec::process::Rlimit;

/// Sets them all.
pub fn apply(limits: &[Rlimit]) -> Result<()> {
    for limit in limits {
        let resource =
            resource(&limit.kind).ok_or_else(|| Error::Config(format!("unknown rlimit {:?}", limit.kind)))?;
        if limit.soft > limit.hard {
            return Err(Error::Config(format!(
                "{}: the soft limit {} is above the hard one {}",
                limit.kind, limit.soft, limit.hard
            )));
        }
        let done = match setrlimit(resource, limit.soft, limit.hard) {
            Err(Errno::EPERM) => {
                let (_, allowed) = getrlimit(resource).context(|| format!("read {}", limit.kind))?;
                setrlimit(resource, limit.soft.min(allowed), limit.hard.min(allowed))
            }
            other => other,
        };
        done.context(|| format!("set {} to {}:{}", limit.kind, limit.soft, limit.hard))?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_AS" => Resource::RLIMIT_AS,
        "RLIMIT_CORE" => Resource::RLIMIT_CORE,
        "RLIMIT_CPU" => Resource::RLIMIT_CPU,
        "RLIMIT_DATA" => Resource::RLIMIT_DATA,
        "RLIMIT_FSIZE" => Resource::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => Resource::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => Resource::RLIMIT_NICE,
        "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
        "RLIMIT_RSS" => Resource::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => Resource::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_before_anything_is_set() {
        let limit = |kind: &str, soft, hard| {
            apply(&[Rlimit { kind: kind.into(), soft, hard }]).unwrap_err().to_string()
        };
        assert!(limit("RLIMIT_FROB", 1, 1).contains("RLIMIT_FROB"));
        assert!(limit("RLIMIT_NOFILE", 2, 1).contains("above the hard one"));
    }
}
