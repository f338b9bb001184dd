//! nf_tables by netlink (linux/netfilter/nf_tables.h): a transaction is one batch that the kernel takes whole or not
//! at all.
//!
//! ```text
//! BATCH_BEGIN  NEWTABLE  NEWCHAIN..  NEWSET..  NEWRULE..  NEWSETELEM..  BATCH_END
//! ```
//! Numbers inside nf_tables attributes are big-endian. Nothing is ever read: `nft list` is for people.

pub mod expr;
pub mod foreign;
pub mod guard;
pub mod host;
pub mod policy;
pub mod rule;
pub mod sandbox;

use crate::netlink::{Attrs, Batch, Flags, Socket};
use rule::Rule;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
pub(super) const NEWTABLE: u16 = SUBSYSTEM;
pub(super) const DELTABLE: u16 = SUBSYSTEM | 2;
pub(super) const GETTABLE: u16 = SUBSYSTEM | 1;
pub(super) const NEWCHAIN: u16 = SUBSYSTEM | 3;
pub(super) const GETCHAIN: u16 = SUBSYSTEM | 4;
pub(super) const NEWRULE: u16 = SUBSYSTEM | 6;
pub(super) const GETRULE: u16 = SUBSYSTEM | 7;
pub(super) const DELRULE: u16 = SUBSYSTEM | 8;
pub(super) const NEWSET: u16 = SUBSYSTEM | 9;
pub(super) const GETSET: u16 = SUBSYSTEM | 0xa;
pub(super) const NEWSETELEM: u16 = SUBSYSTEM | 0xc;
pub(super) const GETSETELEM: u16 = SUBSYSTEM | 0xd;
const DELSETELEM: u16 = SUBSYSTEM | 0xe;
/// Told after each transaction.
pub(super) const NEWGEN: u16 = SUBSYSTEM | 0xf;
/// Told of a table, chain, rule, set or element that is gone.
pub(super) const REMOVALS: [u16; 5] = [DELTABLE, SUBSYSTEM | 5, DELRULE, SUBSYSTEM | 0xb, DELSETELEM];

/// `struct nfgenmsg`.
pub(super) const HEAD: usize = 4;

/// Whether the kernel speaks nf_tables.
pub fn works(socket: &Socket) -> bool {
    let mut batch = Batch::new();
    batch.push("list firewall tables", GETTABLE, Flags::DUMP, &[0; HEAD], |_| {});
    socket.dump(&batch, NEWTABLE).is_ok()
}

/// Elements in one message: the list is one attribute, whose length is 16 bits.
const ELEMENTS: usize = 400;

/// Address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Frames on their way over a bridge.
    Bridge,
}

impl Family {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    fn of(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Ip6, Self::Bridge].into_iter().find(|f| f.number() == number)
    }
}

/// Where a base chain hooks in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `NF_INET_PRE_ROUTING`.
    Prerouting = 0,
    /// `NF_INET_LOCAL_IN`.
    Input = 1,
    /// `NF_INET_FORWARD`.
    Forward = 2,
    /// `NF_INET_LOCAL_OUT`.
    Output = 3,
    /// `NF_INET_POST_ROUTING`.
    Postrouting = 4,
}

/// A base chain's type, hook and priority (nft(8), "CHAINS").
#[derive(Debug, Clone, Copy)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// Where.
    pub hook: Hook,
    /// Order among the hook's chains.
    pub priority: i32,
}

/// Data types as `nft` numbers them; the kernel only stores them, for `nft list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    /// 4 bytes.
    Ipv4,
    /// 16 bytes.
    Ipv6,
    /// Transport protocol.
    Proto,
    /// Port.
    Service,
    /// Interface name.
    Ifname,
    /// Ethernet address, padded to 8 bytes.
    Ether,
}

impl Datatype {
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Ether => 9,
            Self::Proto => 12,
            Self::Service => 13,
            Self::Ifname => 41,
        }
    }

    /// Length in registers: whole 32-bit words.
    fn len(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Proto | Self::Service => 4,
            Self::Ether => 8,
            Self::Ipv6 | Self::Ifname => 16,
        }
    }
}

/// A comment as libnftnl keeps it: type 0, with its closing NUL.
pub(super) fn user_data(comment: &str) -> Vec<u8> {
    let mut data = vec![0, comment.len() as u8 + 1];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}

fn concat(types: &[Datatype]) -> (u32, u32) {
    (types.iter().fold(0, |n, t| n << 6 | t.number()), types.iter().map(|t| t.len()).sum())
}

/// A named set, or a map when it has `data`.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its name.
    pub name: std::borrow::Cow<'static, str>,
    /// What its keys are made of.
    pub key: &'static [Datatype],
    /// What its values are made of; empty for a set.
    pub data: &'static [Datatype],
}

/// A key, and a value when the set is a map. Padded words, as in registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The key.
    pub key: Vec<u8>,
    /// The value; empty for a set.
    pub value: Vec<u8>,
}

/// A batch of changes to one table.
#[derive(Debug)]
pub struct Transaction {
    batch: Batch,
    family: Family,
    table: String,
    sets: u32,
}

impl Transaction {
    /// Starts a transaction on `table`.
    pub fn new(family: Family, table: &str) -> Self {
        let mut batch = Batch::new();
        batch.push("begin a firewall transaction", BATCH_BEGIN, Flags::REQUEST, &[0, 0, 0, 10], |_| {});
        Self { batch, family, table: table.to_owned(), sets: 0 }
    }

    /// Goes on with another table.
    pub fn turn_to(&mut self, family: Family, table: &str) {
        self.family = family;
        table.clone_into(&mut self.table);
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.batch.len() == 1
    }

    fn push(&mut self, label: String, kind: u16, mut flags: Flags, body: impl FnOnce(&mut Attrs<'_>)) {
        if self.batch.len() == 1 {
            flags.0 |= Flags::ACK.0;
        }
        self.batch.push(label, kind, flags, &[self.family.number(), 0, 0, 0], body);
    }

    /// Makes the table; fine when it exists.
    pub fn table(&mut self) {
        self.make_table(Flags::QUIET_CREATE);
    }

    /// Makes the table, which must not exist.
    pub fn new_table(&mut self) {
        self.make_table(Flags::CREATE_NEW);
    }

    fn make_table(&mut self, flags: Flags) {
        let table = self.table.clone();
        self.push(format!("make firewall table {table}"), NEWTABLE, flags, |a| {
            a.text(1, &table);
            a.be32(2, 0);
        });
    }

    /// Starts the table afresh: makes it so that it exists, removes it with all in it, and makes it again.
    pub fn fresh_table(&mut self) {
        self.table();
        self.delete_table();
        self.table();
    }

    /// Removes the table with all in it. It must exist.
    pub fn delete_table(&mut self) {
        let table = self.table.clone();
        self.push(format!("delete firewall table {table}"), DELTABLE, Flags::REQUEST, |a| a.text(1, &table));
    }

    /// Makes a chain; one without a base is only jumped to.
    pub fn chain(&mut self, name: &str, base: Option<Base>) {
        let table = self.table.clone();
        self.push(format!("make firewall chain {name}"), NEWCHAIN, Flags::QUIET_CREATE, |a| {
            a.text(1, &table);
            a.text(3, name);
            if let Some(base) = base {
                a.nested(4, |a| {
                    a.be32(1, base.hook as u32);
                    a.be32(2, base.priority as u32);
                });
                a.be32(5, 1);
                a.text(7, base.kind);
            }
        });
    }

    /// Makes a set or map.
    pub fn set(&mut self, set: &Set) {
        let table = self.table.clone();
        self.sets += 1;
        let id = self.sets;
        let (key_type, key_len) = concat(set.key);
        let (data_type, data_len) = concat(set.data);
        self.push(format!("make firewall set {}", set.name), NEWSET, Flags::QUIET_CREATE, |a| {
            a.text(1, &table);
            a.text(2, &set.name);
            a.be32(3, if data_len > 0 { 0x8 } else { 0 });
            a.be32(4, key_type);
            a.be32(5, key_len);
            if data_len > 0 {
                a.be32(6, data_type);
                a.be32(7, data_len);
            }
            a.be32(10, id);
            if set.key == [Datatype::Ifname] {
                // libnftnl's user data: type 0 is the key's byte order, 1 is the machine's. For `nft list` only.
                let [b0, b1, b2, b3] = 1u32.to_ne_bytes();
                a.bytes(13, &[0, 4, b0, b1, b2, b3]);
            }
        });
    }

    /// Appends a rule to a chain.
    pub fn rule(&mut self, chain: &str, rule: &Rule) {
        self.make_rule(chain, rule, rule.comment(), Flags::QUIET_APPEND);
    }

    /// Puts a rule before all others of a chain, with another comment than its own.
    pub fn first_rule(&mut self, chain: &str, rule: &Rule, comment: &str) {
        self.make_rule(chain, rule, comment, Flags::QUIET_CREATE);
    }

    fn make_rule(&mut self, chain: &str, rule: &Rule, comment: &str, flags: Flags) {
        let table = self.table.clone();
        self.push(format!("make a firewall rule: {comment}"), NEWRULE, flags, |a| {
            a.text(1, &table);
            a.text(2, chain);
            a.nested(4, |a| rule.write(a));
            a.bytes(7, &user_data(comment));
        });
    }

    /// Removes a rule by the kernel's number for it.
    pub fn delete_rule(&mut self, chain: &str, handle: u64) {
        let table = self.table.clone();
        self.push(format!("delete a firewall rule of chain {chain}"), DELRULE, Flags::REQUEST, |a| {
            a.text(1, &table);
            a.text(2, chain);
            a.bytes(3, &handle.to_be_bytes());
        });
    }

    /// Adds elements.
    pub fn add(&mut self, set: &Set, elements: &[Element]) {
        self.elements("add to", NEWSETELEM, Flags::QUIET_CREATE, set, elements);
    }

    /// Removes elements, all of which must be there.
    pub fn remove(&mut self, set: &Set, elements: &[Element]) {
        self.elements("remove from", DELSETELEM, Flags::REQUEST, set, elements);
    }

    fn elements(&mut self, what: &str, kind: u16, flags: Flags, set: &Set, elements: &[Element]) {
        let table = self.table.clone();
        for some in elements.chunks(ELEMENTS) {
            self.push(format!("{what} firewall set {}", set.name), kind, flags, |a| {
                a.text(1, &table);
                a.text(2, &set.name);
                a.nested(3, |a| {
                    for element in some {
                        a.nested(1, |a| {
                            a.nested(1, |a| a.bytes(1, &element.key));
                            if !element.value.is_empty() {
                                a.nested(2, |a| a.bytes(1, &element.value));
                            }
                        });
                    }
                });
            });
        }
    }

    /// Closes the transaction. The first message after BATCH_BEGIN is the one that is acknowledged, once the kernel
    /// took the whole batch; a BATCH_END is acknowledged by new kernels only.
    pub fn finish(mut self) -> Batch {
        self.batch.push("commit the firewall transaction", BATCH_END, Flags::REQUEST, &[0, 0, 0, 10], |_| {});
        self.batch
    }
}
