//! Names that a person may have meant.

/// At most three of `known` that are close to `wanted`, nearest first; never itself, which may come to be known just now.
pub fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    // A name may be off by a third of its letters, at least by one.
    let limit = (wanted.len() / 3).max(1);
    let mut found: Vec<(usize, &str)> = known
        .filter(|name| name.len().abs_diff(wanted.len()) <= limit.max(2))
        .map(|name| (distance(wanted.as_bytes(), name.as_bytes()), name))
        .filter(|(d, _)| (1..=limit).contains(d))
        .collect();
    found.sort_unstable();
    found.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

/// Edits (insert, delete, replace, swap of neighbours) between two names.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let width = b.len() + 1;
    let mut rows = vec![0usize; (a.len() + 1) * width];
    for (j, cell) in rows.iter_mut().take(width).enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        rows[i * width] = i;
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[(i - 1) * width + j] + 1)
                .min(rows[i * width + j - 1] + 1)
                .min(rows[(i - 1) * width + j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[(i - 2) * width + j - 2] + 1);
            }
            rows[i * width + j] = best;
        }
    }
    rows[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_found() {
        let known = ["web", "database", "worker"];
        assert_eq!(nearest("wbe", known.into_iter()), ["web"]);
        assert_eq!(nearest("databse", known.into_iter()), ["database"]);
        assert!(nearest("web", known.into_iter()).is_empty());
        assert!(nearest("zzz", known.into_iter()).is_empty());
        assert_eq!(distance(b"abc", b"acb"), 1);
        assert_eq!(distance(b"", b"abc"), 3);
    }
}
