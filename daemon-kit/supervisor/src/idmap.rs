//! Which ids a user may map: /etc/subuid and /etc/subgid (subuid(5)), and the arguments of newuidmap(1). Pure.

/// A range of subordinate ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First id outside.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// The ranges of the user called `name` with this uid. Lines are `NAME-OR-UID:START:COUNT`; malformed ones are skipped.
pub fn ranges(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let start = fields.next()?.parse().ok()?;
            let count = fields.next()?.parse().ok()?;
            let mine = (!name.is_empty() && owner == name) || owner == uid;
            (mine && count > 0 && u32::checked_add(start, count).is_some()).then_some(Range { start, count })
        })
        .collect()
}

/// newuidmap(1)'s arguments: the own id becomes 0, the ranges follow from 1 on.
pub fn arguments(pid: i32, own: u32, ranges: &[Range]) -> Vec<String> {
    let mut args = vec![pid.to_string(), "0".into(), own.to_string(), "1".into()];
    let mut inside = 1u32;
    for range in ranges {
        let Some(next) = inside.checked_add(range.count) else { break };
        args.extend([inside.to_string(), range.start.to_string(), range.count.to_string()]);
        inside = next;
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_ranges_are_found_by_name_and_by_uid() {
        let text = "root:1:2\nann:100000:65536\n1000:300000:10\nbob:9:9\nann:x:1\nann:5\nann:4294967295:2\nann:7:0\n";
        let got = ranges(text, "ann", 1000);
        assert_eq!(got, [Range { start: 100_000, count: 65536 }, Range { start: 300_000, count: 10 }]);
        assert!(ranges(text, "", 7).is_empty());
    }

    #[test]
    fn ranges_follow_one_another_inside() {
        let args =
            arguments(42, 1000, &[Range { start: 100_000, count: 65536 }, Range { start: 5, count: 2 }]);
        assert_eq!(args.join(" "), "42 0 1000 1 1 100000 65536 65537 5 2");
    }
}
