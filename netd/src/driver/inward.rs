//! Limits of what enters an interface that is no end of a pair: macvlan and ipvlan, where no other end could hold it back.
//!
//! What enters `eth0` is turned to a queue beside it, `ifb-eth0`, which lets it on at the rate.

use nix::errno::Errno;

use super::DriverError;
use crate::netlink::route::{self, Link};
use crate::netlink::tc::{self, Bucket, Limit};
use crate::netlink::{Batch, NetlinkError, Socket, inward, link, view};

const KIND: &str = "ifb";

/// Limits what enters an interface, in place of an earlier limit, in the calling thread's namespace.
pub fn hold_back(socket: &Socket, interface: &Link, limit: Limit) -> Result<(), DriverError> {
    let queue = inward::queue_name(&interface.name);
    let mut batch = Batch::new();
    inward::add_queue(&mut batch, &queue);
    socket.run(&batch).map_err(|e| lacking(e, "ifb interfaces, which limits of what enters need", KIND))?;
    let queue = match route::link(socket, &queue)? {
        Some(link) if link.kind == KIND => link,
        Some(_) => return Err(DriverError::NameTaken(queue)),
        None => return Err(DriverError::Vanished(queue)),
    };
    let mut batch = Batch::new();
    tc::limit(&mut batch, &queue.name, queue.index, limit);
    socket.run(&batch).map_err(|e| lacking(e, "token bucket filter, which limits need", "sch_tbf"))?;
    match inward::target(socket, interface.index)? {
        Some(to) if to == queue.index => return Ok(()),
        Some(_) => {
            let mut batch = Batch::new();
            inward::remove(&mut batch, &interface.name, interface.index);
            socket.run(&batch)?;
        }
        None => {}
    }
    let mut batch = Batch::new();
    inward::redirect(&mut batch, &interface.name, interface.index, queue.index);
    socket.run(&batch).map_err(|e| {
        let kind = "redirection of what enters (sch_ingress, cls_u32, act_mirred), which limits of it need";
        lacking(e, kind, "act_mirred")
    })
}

/// ENOENT is what the kernel answers for a filter that it does not know.
fn lacking(error: NetlinkError, kind: &'static str, module: &'static str) -> DriverError {
    match error.errno() {
        Some(Errno::ENOENT | Errno::EOPNOTSUPP) => DriverError::Unsupported { kind, module },
        _ => error.into(),
    }
}

/// Takes the interface's queue away; fine when there is none.
pub fn release(socket: &Socket, interface: &str) -> Result<(), NetlinkError> {
    let queue = inward::queue_name(interface);
    let Some(queue) = route::link(socket, &queue)?.filter(|l| l.kind == KIND) else { return Ok(()) };
    let mut batch = Batch::new();
    link::delete(&mut batch, queue.index);
    match socket.run(&batch) {
        Err(e) if !e.is_missing() => Err(e),
        _ => Ok(()),
    }
}

/// How what enters an interface is let on, when it is turned to its queue and that is up.
pub fn bucket(
    socket: &Socket,
    interface: &view::Link,
    links: &[view::Link],
    limits: &[Bucket],
) -> Result<Option<Bucket>, NetlinkError> {
    let Some(to) = inward::target(socket, interface.index)? else { return Ok(None) };
    let up = links.iter().any(|l| l.index == to && l.kind == KIND && l.up);
    Ok(limits.iter().find(|b| b.index == to && up).copied())
}
