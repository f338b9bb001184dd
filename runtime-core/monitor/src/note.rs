//! What the monitor has to say to an operator: to its standard error, which is RUN_DIR/monitor.log.
//!
//! Not `eprintln!`: that ends the process when the text cannot be written, and a full disk must not take the container with it.

use std::fmt::Arguments;
use std::io::{Write as _, stderr};

/// Writes one line, or nothing.
pub fn note(text: Arguments<'_>) {
    let _ = writeln!(stderr(), "davit-monitor: {text}");
}
