//! Networks, containers, addresses and published ports as a picture.
//!
//! ```text
//! netd's lists -> model -> layout -> svg
//!                       \-> dot, json
//! ```
//! All of it is pure: the same lists give the same bytes. Names come from outside and are escaped where they are
//! written; nothing in a picture refers to anything outside of it.

pub mod dot;
mod layout;
pub mod model;
mod style;
pub mod svg;
