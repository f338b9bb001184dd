//! Which request is legal in which state: one pure table, in docker's words.

/// A container's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Never started, or its start failed.
    Created,
    /// Its program runs.
    Running,
    /// Frozen.
    Paused,
    /// A restart is under way.
    Restarting,
    /// Being removed.
    Removing,
    /// Its program ended.
    Exited,
    /// Half removed; only removal is possible.
    Dead,
}

impl Status {
    /// From docker's word; what is unknown (of a newer davit) can only be removed.
    pub fn parse(word: &str) -> Self {
        match word {
            "created" => Self::Created,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "removing" => Self::Removing,
            "exited" => Self::Exited,
            _ => Self::Dead,
        }
    }

    /// Whether there is a living program.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Start,
    Stop,
    Kill,
    Restart,
    Pause,
    Unpause,
    Remove,
    Rename,
    Attach,
    Exec,
    Top,
    Connect,
    Clone,
}

/// What a legal request comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Do it.
    Go,
    /// It is so already: success without doing anything.
    Already,
}

/// Looks a request up; the error is a line for a person. `name` is the container's, as the person named it.
pub fn judge(ask: Ask, status: Status, name: &str) -> Result<Verdict, String> {
    use Status::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
    let refuse = |text: String| Err(text);
    match (ask, status) {
        (Ask::Remove, Removing) => refuse(format!("removal of container {name} is already in progress")),
        (_, Removing) => refuse(format!("container {name} is marked for removal")),
        (Ask::Start, Created | Exited | Restarting)
        | (Ask::Stop, Running | Paused | Restarting)
        | (Ask::Kill | Ask::Top, Running | Paused)
        | (Ask::Pause | Ask::Attach | Ask::Exec, Running)
        | (Ask::Unpause, Paused)
        | (Ask::Remove, Created | Exited | Dead)
        | (
            Ask::Restart | Ask::Rename | Ask::Connect | Ask::Clone,
            Created | Running | Paused | Restarting | Exited,
        ) => Ok(Verdict::Go),
        (Ask::Stop, Created | Exited | Dead) | (Ask::Start, Running) => Ok(Verdict::Already),
        (Ask::Start, Paused) => {
            refuse(format!("cannot start a paused container, try unpause instead: {name}"))
        }
        (Ask::Kill | Ask::Pause | Ask::Exec | Ask::Top, Restarting) => {
            refuse(format!("container {name} is restarting, wait until the container is running"))
        }
        (Ask::Attach, Restarting) => {
            refuse("you cannot attach to a restarting container, wait until it is running".to_owned())
        }
        (Ask::Kill, _) => refuse(format!("cannot kill container {name}: container {name} is not running")),
        (Ask::Pause, Paused) => refuse(format!("container {name} is already paused")),
        (Ask::Unpause, _) => refuse(format!("container {name} is not paused")),
        (Ask::Remove, Running | Paused | Restarting) => refuse(format!(
            "cannot remove container {name}: container is {}: stop the container before removing or force remove",
            match status {
                Paused => "paused",
                Restarting => "restarting",
                _ => "running",
            }
        )),
        (Ask::Attach, Paused) => {
            refuse(format!("you cannot attach to a paused container, unpause it first: {name}"))
        }
        (Ask::Attach, _) => {
            refuse(format!("you cannot attach to a stopped container, start it first: {name}"))
        }
        (Ask::Exec, Paused) => {
            refuse(format!("container {name} is paused, unpause the container before exec"))
        }
        (Ask::Pause | Ask::Exec | Ask::Top, _) => refuse(format!("container {name} is not running")),
        (Ask::Start | Ask::Restart | Ask::Rename | Ask::Connect | Ask::Clone, Dead) => {
            refuse(format!("container {name} is dead: it can only be removed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Status; 7] = [
        Status::Created,
        Status::Running,
        Status::Paused,
        Status::Restarting,
        Status::Removing,
        Status::Exited,
        Status::Dead,
    ];

    fn legal(ask: Ask) -> Vec<Status> {
        ALL.into_iter().filter(|s| judge(ask, *s, "c") == Ok(Verdict::Go)).collect()
    }

    #[test]
    fn the_table() {
        use Status::{Created, Dead, Exited, Paused, Restarting, Running};
        assert_eq!(legal(Ask::Start), [Created, Restarting, Exited]);
        assert_eq!(legal(Ask::Kill), [Running, Paused]);
        assert_eq!(legal(Ask::Pause), [Running]);
        assert_eq!(legal(Ask::Unpause), [Paused]);
        assert_eq!(legal(Ask::Remove), [Created, Exited, Dead]);
        assert_eq!(legal(Ask::Exec), [Running]);
        assert_eq!(legal(Ask::Attach), [Running]);
        assert_eq!(legal(Ask::Top), [Running, Paused]);
        assert_eq!(legal(Ask::Clone), [Created, Running, Paused, Restarting, Exited]);
        assert_eq!(legal(Ask::Restart), [Created, Running, Paused, Restarting, Exited]);
    }

    #[test]
    fn stopping_what_does_not_run_is_success() {
        for s in [Status::Created, Status::Exited, Status::Dead] {
            assert_eq!(judge(Ask::Stop, s, "c"), Ok(Verdict::Already));
        }
    }

    #[test]
    fn nothing_is_legal_while_removing() {
        for ask in [Ask::Start, Ask::Stop, Ask::Kill, Ask::Remove, Ask::Rename, Ask::Exec] {
            assert!(judge(ask, Status::Removing, "c").is_err());
        }
    }

    #[test]
    fn refusals_are_dockers() {
        let e = judge(Ask::Remove, Status::Running, "web").unwrap_err();
        assert!(e.contains("stop the container before removing or force remove"), "{e}");
        assert!(judge(Ask::Exec, Status::Exited, "web").unwrap_err().contains("web is not running"));
        assert_eq!(Status::parse("of a newer davit"), Status::Dead);
    }
}
