//! Redirection of what enters an interface into the queue of another, where it can be held back (tc-mirred(8), ifb).
//!
//! Linux holds back only what leaves. What enters is turned to an ifb interface, "leaves" by that, and goes on from there as
//! if nothing had been.

use super::message::{Batch, Flags, attributes};
use super::route::{
    AF_UNSPEC, IFF_UP, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_NUM_RX_QUEUES, IFLA_NUM_TX_QUEUES,
    NEWLINK, link_head, number,
};
use super::view::dump;
use super::{NetlinkError, Socket};

const NEWQDISC: u16 = 36;
const NEWTFILTER: u16 = 44;
const DELTFILTER: u16 = 45;
const GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
/// `TC_H_INGRESS`, and the handle of what sits there.
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// The first of all filters, of all protocols: `1 << 16 | htons(ETH_P_ALL)`.
const FIRST: u32 = 1 << 16 | 3u16.to_be() as u32;
/// `TC_ACT_STOLEN` and `TCA_EGRESS_REDIR`.
const STOLEN: u32 = 4;
const REDIRECT: u32 = 1;

/// What the interface's queue is called: `ifb-eth0`.
pub fn queue_name(interface: &str) -> String {
    // IFNAMSIZ is 16, with a closing NUL.
    if interface.len() <= 11 {
        return format!("ifb-{interface}");
    }
    // FNV-1a, of which 44 bits are told.
    let hash = interface
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("ifb-{:011x}", hash >> 20)
}

/// Makes a queue that is up; fine when it is there.
pub fn add_queue(batch: &mut Batch, queue: &str) {
    let head = link_head(AF_UNSPEC, 0, IFF_UP, IFF_UP);
    batch.push(format!("make the queue {queue}"), NEWLINK, Flags::CREATE, &head, |a| {
        a.text(IFLA_IFNAME, queue);
        a.number(IFLA_NUM_TX_QUEUES, 1);
        a.number(IFLA_NUM_RX_QUEUES, 1);
        a.nested(IFLA_LINKINFO, |a| a.text(IFLA_INFO_KIND, "ifb"));
    });
}

fn head(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut head = [0; 20];
    for (at, value) in [(4, index), (8, handle), (12, parent), (16, info)] {
        head[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    head
}

/// Turns all that enters the interface to the queue with the index `to`.
pub fn redirect(batch: &mut Batch, interface: &str, index: u32, to: u32) {
    let label = format!("see what enters {interface}");
    let place = head(index, INGRESS_HANDLE, INGRESS, 0);
    batch.push(label, NEWQDISC, Flags::CREATE, &place, |a| a.text(TCA_KIND, "ingress"));
    let label = format!("redirect what enters {interface}");
    batch.push(label, NEWTFILTER, Flags::CREATE_NEW, &head(index, 0, INGRESS_HANDLE, FIRST), |a| {
        a.text(TCA_KIND, "u32");
        a.nested(TCA_OPTIONS, |a| {
            a.nested(TCA_U32_ACT, |a| {
                a.nested(1, |a| {
                    a.text(TCA_ACT_KIND, "mirred");
                    a.nested(TCA_ACT_OPTIONS, |a| {
                        // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
                        let parms = [0, 0, STOLEN, 0, 0, REDIRECT, to].map(u32::to_ne_bytes);
                        a.bytes(TCA_MIRRED_PARMS, parms.as_flattened());
                    });
                });
            });
            // struct tc_u32_sel: TC_U32_TERMINAL and one key, whose mask is empty: whatever it is.
            let mut every = [0; 32];
            (every[0], every[2]) = (1, 1);
            a.bytes(TCA_U32_SEL, &every);
        });
    });
}

/// Takes the redirection away.
pub fn remove(batch: &mut Batch, interface: &str, index: u32) {
    let label = format!("redirect nothing of what enters {interface}");
    batch.push(label, DELTFILTER, Flags::ACK, &head(index, 0, INGRESS_HANDLE, FIRST), |_| {});
}

/// Where what enters the interface is turned to first.
///
/// # Errors
/// The kernel refused to tell.
pub fn target(socket: &Socket, index: u32) -> Result<Option<u32>, NetlinkError> {
    let found = dump(socket, "list filters", GETTFILTER, &head(index, 0, INGRESS_HANDLE, 0), NEWTFILTER)?;
    Ok(found.iter().find_map(|payload| parse(payload)))
}

fn parse(payload: &[u8]) -> Option<u32> {
    if number(payload.get(16..20)?) != FIRST {
        return None;
    }
    let within = |bytes: &[u8], wanted: u16| {
        attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value.to_vec())
    };
    let actions = within(&within(&payload[20..], TCA_OPTIONS)?, TCA_U32_ACT)?;
    let options = within(&within(&actions, 1)?, TCA_ACT_OPTIONS)?;
    let parms = within(&options, TCA_MIRRED_PARMS)?;
    let redirects = number(parms.get(20..24)?) == REDIRECT;
    redirects.then(|| parms.get(24..28).map(number)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    #[test]
    fn a_queue_is_called_after_its_interface() {
        assert_eq!(queue_name("eth0"), "ifb-eth0");
        assert_eq!(queue_name("elevenchars"), "ifb-elevenchars");
        let (a, b) = (queue_name("twelve-chars"), queue_name("twelve-chart"));
        assert!(a.len() == 15 && b.len() == 15 && a != b, "{a} {b}");
    }

    #[test]
    #[rustfmt::skip]
    fn a_redirection_byte_for_byte() {
        let mut batch = Batch::new();
        redirect(&mut batch, "eth0", 7, 9);
        let expected = [
            48, 0, 0, 0, 36, 0, 5, 4, 1, 0, 0, 0, 0, 0, 0, 0,               // RTM_NEWQDISC, ack + create
            0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 255, 255, 241, 255, 255, 255, 0, 0, 0, 0,
            12, 0, 1, 0, b'i', b'n', b'g', b'r', b'e', b's', b's', 0,
            140, 0, 0, 0, 44, 0, 5, 6, 2, 0, 0, 0, 0, 0, 0, 0,              // RTM_NEWTFILTER, ack + create + new
            0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 3, 1, 0,
            8, 0, 1, 0, b'u', b'3', b'2', 0,
            96, 0, 2, 0x80,
            56, 0, 7, 0x80, 52, 0, 1, 0x80,
            11, 0, 1, 0, b'm', b'i', b'r', b'r', b'e', b'd', 0, 0,
            36, 0, 2, 0x80, 32, 0, 2, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0,
            36, 0, 5, 0,
            1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(batch.bytes(), expected);
    }

    #[test]
    fn a_redirection_is_read_as_it_is_written() {
        let mut batch = Batch::new();
        redirect(&mut batch, "eth0", 7, 9);
        let written = messages(batch.bytes()).nth(1).unwrap().2;
        assert_eq!(parse(written), Some(9));
        let mut other = written.to_vec();
        other[18] = 2;
        assert_eq!(parse(&other), None, "not the first filter");
        for cut in 0..written.len() {
            parse(&written[..cut]);
        }
    }
}
