//! How things are shown: aligned tables, JSON, templates, and words for ages and sizes.

pub mod format;
pub mod progress;
pub mod table;
pub mod template;
pub mod words;

use std::io::{self, Write};

/// Writes to standard output. A reader that went away (`davit ps | head -1`) ends us quietly, as it does other programs.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(e) = result
        && e.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(141);
    }
}

/// A line on standard error. Unlike `eprintln!` it does not panic when nobody reads there any more.
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
pub(crate) use complain;

/// Writes a line to standard output.
pub fn line(text: impl AsRef<str>) {
    print(&format!("{}\n", text.as_ref()));
}
