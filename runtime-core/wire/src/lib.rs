//! The protocol of a container's monitor: what runtimed (control) and attached clients (streams) speak on its socket.
//!
//! A monitor listens on one unix stream socket. Every message is a frame:
//!
//! ```text
//! +----------------+--------+---------------------+
//! | length: u32 LE | type u8| payload             |   length counts type and payload
//! +----------------+--------+---------------------+
//! ```
//!
//! Bulk data ([`Frame::Stdin`], [`Frame::Stdout`], [`Frame::Stderr`]) is raw bytes; every other payload is JSON. A connection begins with one
//! [`Frame::Hello`] from the client that says which role it takes; the monitor answers [`Frame::Welcome`] or [`Frame::Failed`] and, for a
//! foreign major version, closes. Frames over [`MAX_FRAME`] are refused.
//!
//! Roles:
//! - *control* (runtimed): requests carry a number and are answered by [`Frame::Reply`] or [`Frame::Failed`] with the same number; state changes arrive
//!   unasked as [`Frame::Event`]. Any number of control connections may exist; all of them get all events.
//! - *attach* (a client): gets output from now on (or from the beginning where the program is held for it), sends input, resizes and
//!   signals, and gets [`Frame::Exit`] last.

pub mod codec;
pub mod config;
pub mod health;
pub mod message;

pub use codec::{Decoder, FrameError, MAX_FRAME, encode};
pub use config::MonitorConfig;
pub use health::{Health, HealthCheck, HealthStatus, Probe, ProbeResult};
pub use message::{
    Attach, Event, ExecExit, ExecSpec, ExitRecord, FEATURE_UPDATE, Failure, FailureKind, Frame, Hello,
    MonitorState, Phase, Reply, Request, Role, Welcome,
};

/// Version of this protocol. A monitor outlives its runtimed, so an upgraded runtimed meets older monitors: fields are
/// only ever added, and a change that cannot be is a new number that both sides name when they refuse.
pub const PROTOCOL_VERSION: u32 = 1;
