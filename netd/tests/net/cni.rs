//! davit-cni on a private host, called as the specification has it: parameters in the environment, JSON on stdin.

mod attach;
mod call;
mod chain;
mod check;
mod errors;
mod lifetime;
mod pace;
mod several;

pub use call::davit_cni;
