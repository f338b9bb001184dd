//! `--ulimit NAME=SOFT[:HARD]`.

use davit_contracts::runtime::Ulimit;

const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// One `--ulimit`; -1 and `unlimited` mean no bound; one number is both.
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = |why: String| format!("'{text}' is no ulimit: {why} (such as nofile=1024:2048)");
    let (name, values) = text.split_once('=').ok_or_else(|| bad("'=' is missing".into()))?;
    if !NAMES.contains(&name) {
        return Err(bad(format!("'{name}' is none of {}", NAMES.join(", "))));
    }
    let number = |s: &str| match s {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => s.parse::<u64>().map_err(|_| bad(format!("'{s}' is not a number"))),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        return Err(bad("the soft limit is above the hard one".into()));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dockers_forms() {
        let u = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((u.name.as_str(), u.soft, u.hard), ("nofile", 1024, 2048));
        assert_eq!(ulimit("core=0").unwrap().hard, 0);
        assert_eq!(ulimit("memlock=-1:-1").unwrap().soft, u64::MAX);
        for bad in ["", "nofile", "nofile=", "nofile=2:1", "nofile=1:2:3", "files=1", "nofile=-2"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = ulimit(&text);
        }
    }
}
