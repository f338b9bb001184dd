//! Clients and the streams they are attached to.

use std::time::Instant;

use davit_wire::{Attach, Failure, FailureKind, Frame, Hello, PROTOCOL_VERSION, Phase, Role, Welcome};
use rustix::io::Errno;

use super::{MAIN, Monitor};
use crate::clock;
use crate::conn::{Conn, FULL, Party};
use crate::session::Stage;

/// Whether some client of this session has so much unread output that its program must wait.
pub fn is_full(conns: &[Conn], session: u32) -> bool {
    attached(conns, session).any(|c| c.pending() >= FULL)
}

fn attached(conns: &[Conn], session: u32) -> impl Iterator<Item = &Conn> {
    conns.iter().filter(move |c| matches!(c.party, Party::Attached { session: s, .. } if s == session))
}

impl Monitor {
    /// Handles the frames that a connection has brought.
    pub(super) fn dispatch(&mut self, id: u32) {
        loop {
            let Some(conn) = self.conn(id) else { return };
            if conn.held_back || conn.closing {
                return;
            }
            match conn.decoder.next_frame() {
                Ok(Some(frame)) => self.frame(id, frame),
                Ok(None) => return,
                Err(e) => return self.refuse(id, FailureKind::InvalidArgument, e.to_string()),
            }
        }
    }

    fn frame(&mut self, id: u32, frame: Frame) {
        let Some(conn) = self.conn(id) else { return };
        match (&conn.party, frame) {
            (Party::Unknown, Frame::Hello(hello)) => self.hello(id, hello),
            (Party::Control, Frame::Request { id: number, request }) => self.request(id, number, request),
            (Party::Attached { session, attach, .. }, frame) => {
                let (session, stdin) = (*session, attach.stdin);
                self.client_says(id, session, stdin, frame);
            }
            _ => self.refuse(id, FailureKind::InvalidArgument, "this frame has no place here".into()),
        }
    }

    /// Answers with a failure that belongs to no request, and closes.
    fn refuse(&mut self, id: u32, kind: FailureKind, message: String) {
        if let Some(conn) = self.conn(id) {
            conn.send(&Frame::Failed { id: 0, failure: Failure { kind, message } });
            conn.closing = true;
        }
    }

    fn hello(&mut self, id: u32, hello: Hello) {
        if hello.version != PROTOCOL_VERSION {
            let theirs = hello.version;
            let text = format!(
                "this monitor speaks protocol {PROTOCOL_VERSION}, the client {theirs}: use the davit that started the container"
            );
            return self.refuse(id, FailureKind::Version, text);
        }
        match hello.role {
            Role::Control => {
                let welcome =
                    Welcome { version: PROTOCOL_VERSION, state: self.state(), tty: self.config.tty };
                if let Some(conn) = self.conn(id) {
                    conn.party = Party::Control;
                    conn.send(&Frame::Welcome(welcome));
                }
            }
            Role::Attach(attach) => self.attach(id, attach),
        }
    }

    fn attach(&mut self, id: u32, attach: Attach) {
        let found = match &attach.exec_id {
            None => Some(MAIN),
            exec => self.sessions.iter().find(|s| s.exec_id == *exec).map(|s| s.id),
        };
        let Some(session_id) = found else { return self.attach_late(id, &attach) };
        let welcome_state = self.state();
        let held = self.is_held(session_id) && (attach.stdin || attach.stdout || attach.stderr);
        let at = self.sessions.iter().position(|s| s.id == session_id).expect("found just now");
        let session = &mut self.sessions[at];
        if let Some(size) = attach.size {
            session.size = Some(size);
            session.apply_size();
        }
        let Some(conn) = self.conns.iter_mut().find(|c| c.id == id) else { return };
        conn.send(&Frame::Welcome(Welcome {
            version: PROTOCOL_VERSION,
            state: welcome_state,
            tty: session.tty,
        }));
        if session.stage == Stage::Running {
            conn.send(&Frame::Started { pid: session.pid });
        }
        if attach.replay {
            session.ring.for_each(|stdout, data| {
                if if stdout { attach.stdout } else { attach.stderr } {
                    conn.send_output(stdout, data);
                }
            });
        }
        conn.party = Party::Attached { session: session_id, attach, foreground: held };
        if session_id == MAIN && self.phase == Phase::Exited {
            let record = self.exit.clone().unwrap_or_default();
            conn.send(&Frame::Exit(record));
            conn.closing = true;
        } else if held {
            self.release(session_id);
        }
    }

    /// To an exec session that has ended: its record is all that is left.
    fn attach_late(&mut self, id: u32, attach: &Attach) {
        let exec_id = attach.exec_id.as_deref().unwrap_or_default();
        let Some(exit) = self.exec_exits.iter().rfind(|e| e.exec_id == exec_id) else {
            return self.refuse(id, FailureKind::NotFound, format!("there is no exec session {exec_id}"));
        };
        let record = exit.record.clone();
        let welcome = Welcome { version: PROTOCOL_VERSION, state: self.state(), tty: false };
        if let Some(conn) = self.conn(id) {
            conn.send(&Frame::Welcome(welcome));
            conn.send(&Frame::Exit(record));
            conn.closing = true;
        }
    }

    fn is_held(&self, session: u32) -> bool {
        if session == MAIN {
            return self.hold;
        }
        self.sessions.iter().any(|s| s.id == session && s.stage == Stage::Held)
    }

    /// The client that a program was held for is there.
    pub(super) fn release(&mut self, session: u32) {
        if session == MAIN {
            self.hold = false;
            self.begin_start(None);
        } else {
            self.begin_exec(session, None);
        }
    }

    fn client_says(&mut self, id: u32, session_id: u32, may_write: bool, frame: Frame) {
        let Some(session) = self.session(session_id) else { return };
        match frame {
            Frame::Stdin(data) if may_write => {
                session.give_input(&data);
                let full = !session.takes_input();
                if let Some(conn) = self.conn(id) {
                    conn.held_back = full;
                }
            }
            Frame::StdinEof if may_write => {
                if session.stdin_once {
                    session.end_input();
                }
            }
            Frame::Stdin(_) | Frame::StdinEof => {}
            Frame::Resize { rows, cols } => {
                session.size = Some((rows, cols));
                session.apply_size();
            }
            Frame::Signal(signal) => {
                if session.stage == Stage::Running {
                    let _ = davit_sys::resident::signal_child(session.pid, signal);
                }
            }
            Frame::Detach => {
                if let Some(conn) = self.conn(id) {
                    conn.detached = true;
                    conn.die();
                }
            }
            _ => self.refuse(id, FailureKind::InvalidArgument, "this frame has no place here".into()),
        }
    }

    /// Takes connections away that are over; a client that leaves without Detach ends the input that was its own.
    pub(super) fn remove_conns(&mut self) {
        let mut ended_inputs = Vec::new();
        self.conns.retain_mut(|c| {
            if let Party::Attached { session, attach, .. } = &c.party
                && attach.stdin
                && !c.detached
                && c.has_ended()
            {
                ended_inputs.push(*session);
            }
            if c.is_over() {
                c.hang_up();
            }
            !c.is_over()
        });
        for id in ended_inputs {
            if let Some(session) = self.session(id).filter(|s| s.stdin_once) {
                session.end_input();
            }
        }
    }

    /// Reads what a program has written and gives it to log, ring and clients.
    pub(super) fn read_output(&mut self, id: u32, stdout: bool) {
        let mut scratch = self.take_scratch();
        for _ in 0..4 {
            let full = is_full(&self.conns, id) || (id == MAIN && self.log.is_full());
            let Some(session) = self.session(id) else { break };
            let Some(source) = session.source(stdout) else { break };
            if full && source.owed == 0 {
                break;
            }
            match rustix::io::read(&source.fd, &mut *scratch) {
                Err(Errno::AGAIN) => {
                    source.owed = 0;
                    break;
                }
                Err(Errno::INTR) => {}
                // EIO: no process has the terminal's other side open any more, or a login session has hung it up. The next one finds it again.
                Err(Errno::IO) => {
                    if !session.reopen_terminal() {
                        self.stream_ended(id, stdout);
                        break;
                    }
                }
                Ok(0) | Err(_) => {
                    self.stream_ended(id, stdout);
                    break;
                }
                Ok(n) => {
                    source.owed = source.owed.saturating_sub(n);
                    self.deliver(id, stdout, &scratch[..n]);
                }
            }
        }
        self.scratch = scratch;
        self.try_finish(id);
    }

    fn stream_ended(&mut self, id: u32, stdout: bool) {
        if let Some(session) = self.session(id) {
            *session.source(stdout) = None;
        }
        if id == MAIN {
            self.log.end(stdout, clock::unix_ns());
        }
    }

    fn deliver(&mut self, id: u32, stdout: bool, data: &[u8]) {
        let Some(at) = self.sessions.iter().position(|s| s.id == id) else { return };
        if id == MAIN {
            self.log.write(stdout, data, clock::unix_ns());
        } else if self.sessions[at].stage == Stage::Ended {
            // Something that an exec session left behind still writes: it must not block or break.
            return;
        }
        if self.keep_probe_output(id, data) {
            return;
        }
        self.sessions[at].ring.push(stdout, data);
        for conn in &mut self.conns {
            let Party::Attached { session, attach, .. } = &conn.party else { continue };
            let wanted = if stdout { attach.stdout } else { attach.stderr };
            if *session == id && wanted && !conn.closing {
                conn.send_output(stdout, data);
            }
        }
    }

    /// Sends a frame to all clients of a session.
    pub(super) fn tell_clients(&mut self, id: u32, frame: &Frame, last: bool) {
        for conn in &mut self.conns {
            if matches!(conn.party, Party::Attached { session, .. } if session == id) && !conn.closing {
                conn.send(frame);
                conn.closing = last;
            }
        }
    }

    /// Whether a client that takes nothing may be dropped: not the one that a program was started for, while it is alone.
    pub(super) fn may_be_dropped(&self, conn: &Conn) -> bool {
        match conn.party {
            Party::Attached { session, foreground, .. } => {
                !foreground || attached(&self.conns, session).nth(1).is_some()
            }
            _ => true,
        }
    }

    pub(super) fn drop_stalled(&mut self, now: Instant) {
        let stalled: Vec<u32> = self
            .conns
            .iter()
            .filter(|c| c.stalls_in(now).is_some_and(|left| left.is_zero()) && self.may_be_dropped(c))
            .map(|c| c.id)
            .collect();
        for id in stalled {
            if let Some(conn) = self.conn(id) {
                conn.die();
            }
        }
    }
}
