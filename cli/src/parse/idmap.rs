//! `--uidmap` and `--gidmap`.

use davit_contracts::runtime::IdMap;

/// `INSIDE:HOST[:COUNT]`; one id without a count.
pub fn line(text: &str) -> Result<IdMap, String> {
    let bad = || format!("'{text}' is no id map: INSIDE:HOST:COUNT is expected, such as 0:100000:65536");
    let numbers = text.split(':').map(str::parse).collect::<Result<Vec<u32>, _>>().map_err(|_| bad())?;
    match numbers[..] {
        [inside, outside] => Ok(IdMap { inside, outside, count: 1 }),
        [inside, outside, count] if count > 0 => Ok(IdMap { inside, outside, count }),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_two_or_three_numbers() {
        assert_eq!(line("0:100000:65536"), Ok(IdMap { inside: 0, outside: 100_000, count: 65_536 }));
        assert_eq!(line("7:8"), Ok(IdMap { inside: 7, outside: 8, count: 1 }));
        for bad in ["", "0", "0:1:0", "0:1:2:3", "a:1:1", "0:-1:1", "0:4294967296:1"] {
            assert!(line(bad).unwrap_err().contains("no id map"), "{bad}");
        }
    }
}
