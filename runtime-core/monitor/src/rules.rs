//! Which request is legal when: one table, no state.
//!
//! ```text
//! Ready --Create--> Created --Start--> Running <--Pause/Resume--> Paused
//!                      |                  |                          |
//!                      +------------------+-------> Exited <---------+
//! ```

use davit_wire::{Failure, FailureKind, Phase, Request};

/// Refuses what cannot be done in `phase`, or while another change of phase is `under_way`.
pub fn check(request: &Request, phase: Phase, under_way: bool) -> Result<(), Failure> {
    let (verb, legal) = match request {
        Request::Mount(_) => ("mount the root of", phase == Phase::Ready),
        Request::Create(_) => ("create", phase == Phase::Ready),
        Request::Start { .. } => ("start", phase == Phase::Created),
        Request::Pause => ("pause", phase == Phase::Running),
        Request::Resume => ("resume", phase == Phase::Paused),
        Request::Exec(_) => ("run a program in", phase == Phase::Running),
        Request::Update { .. } => {
            ("change the limits of", matches!(phase, Phase::Created | Phase::Running | Phase::Paused))
        }
        Request::Probe => ("probe", phase == Phase::Running),
        Request::Kill { .. } => ("signal", matches!(phase, Phase::Created | Phase::Running | Phase::Paused)),
        Request::State | Request::Shutdown => return Ok(()),
    };
    let moves =
        !matches!(request, Request::Kill { .. } | Request::Exec(_) | Request::Update { .. } | Request::Probe);
    if !legal {
        return Err(wrong_state(format!("cannot {verb} a container that is {}", name(phase))));
    }
    if moves && under_way {
        return Err(wrong_state(format!("cannot {verb} the container: another change is under way")));
    }
    Ok(())
}

/// A refusal because of the phase.
pub fn wrong_state(message: String) -> Failure {
    Failure { kind: FailureKind::WrongState, message }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Ready => "not created yet",
        Phase::Created => "created but not started",
        Phase::Running => "running",
        Phase::Paused => "paused",
        Phase::Exited => "not running any more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_its_phases() {
        let all = [Phase::Ready, Phase::Created, Phase::Running, Phase::Paused, Phase::Exited];
        let legal = |r: Request| all.map(|p| u8::from(check(&r, p, false).is_ok()));
        assert_eq!(legal(Request::Create(Box::default())), [1, 0, 0, 0, 0]);
        assert_eq!(legal(Request::Mount(Box::default())), [1, 0, 0, 0, 0]);
        assert_eq!(legal(Request::Start { hold_for_attach: true }), [0, 1, 0, 0, 0]);
        assert_eq!(legal(Request::Pause), [0, 0, 1, 0, 0]);
        assert_eq!(legal(Request::Resume), [0, 0, 0, 1, 0]);
        assert_eq!(legal(Request::Exec(Box::default())), [0, 0, 1, 0, 0]);
        assert_eq!(legal(Request::Kill { signal: 9, all: false }), [0, 1, 1, 1, 0]);
        assert_eq!(legal(Request::Update { resources: String::new() }), [0, 1, 1, 1, 0]);
        assert_eq!(legal(Request::Probe), [0, 0, 1, 0, 0]);
        assert_eq!(legal(Request::State), [1; 5]);
        assert_eq!(legal(Request::Shutdown), [1; 5]);
    }

    #[test]
    fn changes_of_phase_do_not_overlap_but_signals_pass() {
        assert!(check(&Request::Pause, Phase::Running, true).is_err());
        assert!(check(&Request::Kill { signal: 9, all: false }, Phase::Running, true).is_ok());
    }
}
