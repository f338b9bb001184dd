//! Block devices and their rates (`/dev/sda:1mb`), and rules about devices (`c 42:* rmw`): docker's forms and words.

use davit_contracts::runtime::DeviceRate;

use super::size;

fn split(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text.rsplit_once(':').ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") || path.contains(':') {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

fn bytes(text: &str) -> Result<(String, u64), String> {
    let (path, value) = split(text)?;
    let rate = size::bytes(value).ok().filter(|n| *n > 0).ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. \
             Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok((path.to_owned(), rate))
}

fn operations(text: &str) -> Result<(String, u64), String> {
    let (path, value) = split(text)?;
    let rate = value.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer"
        )
    })?;
    Ok((path.to_owned(), rate))
}

/// `--blkio-weight-device`.
pub fn weight(text: &str) -> Result<DeviceRate, String> {
    let (path, value) = split(text)?;
    let weight = value.parse::<u32>().ok().filter(|w| *w == 0 || (10..=1000).contains(w));
    let weight = weight.ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(DeviceRate { path: path.to_owned(), weight, ..DeviceRate::default() })
}

/// `--device-read-bps`.
pub fn read_bps(text: &str) -> Result<DeviceRate, String> {
    bytes(text).map(|(path, read_bps)| DeviceRate { path, read_bps, ..DeviceRate::default() })
}

/// `--device-write-bps`.
pub fn write_bps(text: &str) -> Result<DeviceRate, String> {
    bytes(text).map(|(path, write_bps)| DeviceRate { path, write_bps, ..DeviceRate::default() })
}

/// `--device-read-iops`.
pub fn read_iops(text: &str) -> Result<DeviceRate, String> {
    operations(text).map(|(path, read_iops)| DeviceRate { path, read_iops, ..DeviceRate::default() })
}

/// `--device-write-iops`.
pub fn write_iops(text: &str) -> Result<DeviceRate, String> {
    operations(text).map(|(path, write_iops)| DeviceRate { path, write_iops, ..DeviceRate::default() })
}

/// `--device-cgroup-rule`: a, b or c, MAJOR:MINOR with numbers or `*`, and of r, w, m.
pub fn cgroup_rule(text: &str) -> Result<String, String> {
    let bad = || format!("invalid device cgroup format '{text}'");
    let words: Vec<&str> = text.split(' ').collect();
    let &[kind, numbers, access] = words.as_slice() else { return Err(bad()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |n: &str| n == "*" || (!n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let access_known = (1..=3).contains(&access.len()) && access.bytes().all(|b| b"rwm".contains(&b));
    if !matches!(kind, "a" | "b" | "c") || !number(major) || !number(minor) || !access_known {
        return Err(bad());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dockers_forms() {
        assert_eq!(read_bps("/dev/sda:1mb").unwrap().read_bps, 1 << 20);
        assert_eq!(write_iops("/dev/sda:7").unwrap().write_iops, 7);
        assert_eq!(weight("/dev/sda:200").unwrap().weight, 200);
        for bad in
            ["", "x", "/dev/sda", "sda:1mb", "/dev/sda:", "/dev/sda:-1", "/dev/sda:0", "/dev/a:/dev/b:1"]
        {
            assert!(read_bps(bad).is_err() && write_iops(bad).is_err(), "{bad}");
        }
        assert!(read_iops("/dev/sda:1k").is_err());
        for bad in ["/dev/sda:9", "/dev/sda:1001", "/dev/sda:x"] {
            assert_eq!(weight(bad).unwrap_err(), format!("invalid weight for device: {bad}"));
        }
    }

    #[test]
    fn rules() {
        for good in ["c 1:3 r", "a *:* rwm", "b 8:* m"] {
            assert_eq!(cgroup_rule(good).unwrap(), good);
        }
        for bad in ["", "c 1:3", "c 1 r", "d 1:3 r", "c 1:3 x", "c 1:3 rwmr", "c 1:3 r ", "c -1:3 r"] {
            assert!(cgroup_rule(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,30}") {
            let _ = (weight(&text), read_bps(&text), write_iops(&text), cgroup_rule(&text));
        }
    }
}
