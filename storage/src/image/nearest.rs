//! The references that a mistyped one may have meant. Pure.

/// How many are named.
const MAX: usize = 3;

/// At most three, nearest first: by the whole reference, or by the repository's last word alone.
pub(super) fn nearest(asked: &str, known: &[String]) -> Vec<String> {
    let asked: String = asked.to_lowercase().chars().take(200).collect();
    let bound = (asked.chars().count() / 3).clamp(1, 4);
    let mut scored: Vec<(usize, &String)> = known
        .iter()
        .map(|reference| {
            let repository = split_tag(reference).0;
            let last = repository.rsplit('/').next().unwrap_or(repository);
            let (asked_repository, _) = split_tag(&asked);
            let whole = distance(&asked, reference);
            // Another tag of the very same repository is near, however long the tag is.
            let named = distance(asked_repository, repository).min(distance(asked_repository, last));
            (whole.min(named), reference)
        })
        .filter(|(score, _)| *score <= bound)
        .collect();
    scored.sort();
    scored.into_iter().take(MAX).map(|(_, r)| r.clone()).collect()
}

fn split_tag(reference: &str) -> (&str, &str) {
    let name_start = reference.rfind('/').map_or(0, |i| i + 1);
    match reference[name_start..].find(':') {
        Some(i) => (&reference[..name_start + i], &reference[name_start + i + 1..]),
        None => (reference, ""),
    }
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_what_was_meant() {
        let known: Vec<String> =
            ["alpine:latest", "busybox:1.36", "reg.local:5000/team/app:v1"].map(str::to_owned).into();
        assert_eq!(nearest("alpin", &known), ["alpine:latest"]);
        assert_eq!(nearest("busybox:9", &known), ["busybox:1.36"]);
        assert_eq!(nearest("app", &known), ["reg.local:5000/team/app:v1"]);
        assert!(nearest("postgres", &known).is_empty());
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
