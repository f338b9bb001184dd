//! netd on private hosts: each test makes a network namespace that plays the host, another that plays the world beyond
//! it, runs the real daemon there, and looks from inside sandboxes. Needs root; changes nothing outside of what it makes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bandwidth;
mod check;
mod cni;
mod cni_driver;
mod explain;
mod explain_ends;
mod firewall;
mod golden;
mod host;
mod kills;
mod lacking;
mod lifecycle;
mod macvlan;
mod matrix;
mod modes;
mod names;
mod nameservers;
mod networks;
mod options;
mod pace;
mod policies;
mod policy;
mod ports;
mod reach;
mod records;
mod relay;
mod rootless;
mod strangers;
mod upstream;
