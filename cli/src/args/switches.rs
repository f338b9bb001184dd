//! Flags as docker's parser reads them. Those that are on or off take a value: `--rm=false`, `-d=1`; all of them do, by this one
//! place, and their fields are plain `bool` and say nothing of it. A short flag may have its value at it: `-p8080:80`, `-d=true`.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, Parser};

/// What flags call their value that say themselves that they have one: they are on by default, or neither.
const BOOL: &str = "BOOL";

/// Reads a command line.
pub fn parse<P: Parser>(line: impl IntoIterator<Item = OsString>) -> Result<P, clap::Error> {
    let line: Vec<OsString> = line.into_iter().collect();
    let command = with_values(P::command());
    match read::<P>(ending_at_a_word(command.clone()), &line) {
        // Help without a value at each of them, as docker's.
        Err(e) if e.kind() == ErrorKind::DisplayHelp => match P::try_parse_from(&line) {
            Err(plain) if plain.kind() == ErrorKind::DisplayHelp => Err(plain),
            _ => Err(e),
        },
        // Where a program's command line follows, the command itself says what flag it does not have.
        Err(e) if e.kind() == ErrorKind::UnknownArgument => read(command, &line).map_err(|_| e),
        read => read,
    }
}

fn read<P: Parser>(command: Command, line: &[OsString]) -> Result<P, clap::Error> {
    command.try_get_matches_from(line).and_then(|mut matches| P::from_arg_matches_mut(&mut matches))
}

fn with_values(command: Command) -> Command {
    command.mut_args(with_value).mut_subcommands(with_values)
}

/// A program's command line begins with a word that is no flag. The parser would take `-d=true` for its beginning, since `=` is no
/// short flag.
fn ending_at_a_word(command: Command) -> Command {
    let strict = |arg: Arg| if arg.is_trailing_var_arg_set() { arg.allow_hyphen_values(false) } else { arg };
    command.mut_args(strict).mut_subcommands(ending_at_a_word)
}

fn with_value(arg: Arg) -> Arg {
    let says_so = arg.get_value_names().is_some_and(|names| names.iter().any(|n| n.as_str() == BOOL));
    if says_so {
        return arg.value_parser(boolean);
    }
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return arg;
    }
    // Of several the last one counts.
    let id = arg.get_id().clone();
    arg.action(ArgAction::Set)
        .value_name(BOOL)
        .num_args(0..=1)
        .require_equals(true)
        .default_value("false")
        .default_missing_value("true")
        .hide_default_value(true)
        .value_parser(boolean)
        .overrides_with(id)
}

/// The words of docker's own parser (Go's strconv.ParseBool).
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use crate::args::container::ContainerCommand;
    use crate::args::run::RunArgs;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn run(line: &str) -> RunArgs {
        let cli: Cli = parse(words(line)).unwrap_or_else(|e| panic!("{line}: {e}"));
        let crate::args::Command::Container(command) = cli.command else { panic!("{line}") };
        match *command {
            ContainerCommand::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_that_are_on_or_off_take_a_value() {
        let plain = run("davit run -dit --rm -P --privileged --read-only --init -q img -x=false --rm");
        let said = run(
            "davit run -d=true -i=1 -t=T --rm=TRUE -P=true --privileged=t --read-only=True --init=true --quiet=true img -x=false --rm",
        );
        for args in [&plain, &said] {
            let c = &args.create;
            assert!(args.detach && c.interactive && c.tty && c.rm && c.publish_all && c.quiet, "{args:?}");
            assert!(c.privileged && c.read_only && c.init, "{args:?}");
            assert_eq!(c.image_and_command, ["img", "-x=false", "--rm"], "what is the program's stays so");
        }
        let off = run(
            "davit run -d=false -i=0 -t=F --rm=FALSE --publish-all=false --privileged=f --read-only=False --init=false --rm --rm=false img",
        );
        let c = &off.create;
        assert!(!(off.detach || c.interactive || c.tty || c.rm || c.publish_all || c.privileged), "{off:?}");
        assert!(!(c.read_only || c.init), "{off:?}");
        assert!(run("davit run --rm=false --rm img").create.rm, "the last one counts");
        let attached = run("davit run -dp8080:80 -eA=1 -e=B=2 -h=web img").create;
        assert_eq!(
            (attached.publish, attached.env),
            (vec!["8080:80".to_owned()], vec!["A=1".to_owned(), "B=2".to_owned()])
        );
        assert_eq!(attached.hostname.as_deref(), Some("web"));
        // What is no flag here is told by the command.
        assert_eq!(run("davit run --nme=x img").create.image_and_command, ["--nme=x", "img"]);
        assert!(!run("davit run --sig-proxy=0 img").sig_proxy);
    }

    #[test]
    fn other_commands_do_so_too_and_wrong_words_are_refused() {
        for line in [
            "davit create -P=false --rm=true img",
            "davit exec -d=false -it=true c sh",
            "davit ps -a=true -q=false",
            "davit rm -f=true c",
            "davit top c -eo pid,comm",
            "davit exec -u=root c ls -la --rm=maybe",
            "davit net create --internal=true --attachable=false --disable-dns=false n",
            "davit image ls -q=1",
        ] {
            parse::<Cli>(words(line)).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
        for line in ["davit run --rm=maybe img", "davit run --rm= img", "davit run --sig-proxy=x img"] {
            let e = parse::<Cli>(words(line)).unwrap_err().to_string();
            assert!(
                e.contains("true or false is expected") || e.contains("a value is required"),
                "{line}: {e}"
            );
        }
        // A word behind one is no value of it.
        assert_eq!(run("davit run --rm false").create.image_and_command, ["false"]);
    }

    #[test]
    fn help_is_docker_s() {
        let e = parse::<Cli>(words("davit run --help")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::DisplayHelp);
        let text = e.to_string();
        assert!(text.contains("  --rm\n") || text.contains("--rm "), "{text}");
        assert!(!text.contains("--rm[="), "{text}");
    }
}
