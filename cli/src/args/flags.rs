//! Flags that no command has, where the parser takes them for the first word of a command line to be run.

use clap::CommandFactory as _;

use crate::args::Cli;

/// Refuses a first positional argument that is meant as a flag; `command` is whose flags it may be near.
pub fn refuse_unknown(command: &str, word: &str) -> Result<(), String> {
    if !word.starts_with('-') {
        return Ok(());
    }
    let flag = word.split('=').next().unwrap_or(word);
    Err(match nearest(command, flag) {
        Some(known) => format!("unknown flag: {flag} (did you mean {known}?)"),
        None => format!("unknown flag: {flag}"),
    })
}

fn nearest(command: &str, flag: &str) -> Option<String> {
    let name = flag.strip_prefix("--")?;
    let root = Cli::command();
    let sub = root.find_subcommand(command)?;
    let known = sub.get_arguments().filter_map(clap::Arg::get_long_and_visible_aliases).flatten();
    nearest_of(name, known).map(|known| format!("--{known}"))
}

/// The known word that is almost this one.
pub fn nearest_of<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let all = known.into_iter().map(|known| (distance(word, known), known));
    all.min().filter(|(distance, known)| *distance <= 2 && *distance < known.len()).map(|(_, known)| known)
}

/// Insertions, removals and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The deepest command that a command line names: "run", "image ls"; empty when it names none.
pub fn named_command(line: impl Iterator<Item = String>) -> String {
    let root = Cli::command();
    let (mut at, mut words) = (&root, Vec::new());
    for word in line {
        match at.find_subcommand(&word) {
            Some(sub) => {
                at = sub;
                words.push(word);
            }
            None if words.is_empty() => {}
            None => break,
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_in_the_place_of_an_image_is_named_with_its_nearest() {
        assert_eq!(refuse_unknown("run", "alpine"), Ok(()));
        assert_eq!(
            refuse_unknown("run", "--nme=x").unwrap_err(),
            "unknown flag: --nme (did you mean --name?)"
        );
        assert_eq!(refuse_unknown("run", "--frobnicate").unwrap_err(), "unknown flag: --frobnicate");
        assert_eq!(refuse_unknown("exec", "-q").unwrap_err(), "unknown flag: -q");
        assert_eq!(
            refuse_unknown("exec", "--wrkdir").unwrap_err(),
            "unknown flag: --wrkdir (did you mean --workdir?)"
        );
    }

    #[test]
    fn the_deepest_command_is_found() {
        let of = |line: &str| named_command(line.split(' ').map(str::to_owned));
        assert_eq!(of("--run-dir /x image ls --format x"), "image ls");
        assert_eq!(of("run image ls"), "run");
        assert_eq!(of("nope"), "");
    }
}
