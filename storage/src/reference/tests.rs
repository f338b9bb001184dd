use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> String {
    Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).canonical()
}

#[test]
fn short_names_are_completed_as_docker_does() {
    for (text, full, familiar) in [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest", "127.0.0.1:5000/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("ghcr.io/o/p:1.0-rc_1", "ghcr.io/o/p:1.0-rc_1", "ghcr.io/o/p:1.0-rc_1"),
    ] {
        let parsed = Reference::parse(text).unwrap();
        assert_eq!((parsed.canonical().as_str(), parsed.familiar().as_str()), (full, familiar), "{text}");
    }
}

#[test]
fn a_digest_outweighs_a_tag() {
    let digest = format!("sha256:{}", "a".repeat(64));
    assert_eq!(canonical(&format!("alpine:3@{digest}")), format!("docker.io/library/alpine@{digest}"));
    assert_eq!(Reference::parse(&format!("alpine@{digest}")).unwrap().tag(), None);
}

#[test]
fn what_docker_refuses_is_refused() {
    for bad in [
        "",
        ":",
        "a:",
        "/a",
        "a/",
        "a//b",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "Alpine",
        "team/App",
        "a:b:c",
        "a@sha256:12",
        "a@",
        "host.x:port/a",
        "reg.x:99999/a",
        "[::zz]:1/a",
        "[::1/a",
        "a b",
        "a\nb",
        "é",
        "../a",
        "a/../b",
        "a:.x",
    ] {
        assert!(Reference::parse(bad).is_err(), "{bad:?}");
    }
    assert!(matches!(Reference::parse(&"a".repeat(64)), Err(InvalidReference::LooksLikeId(_))));
    assert!(matches!(Reference::parse(&"x".repeat(256)), Err(InvalidReference::TooLong(_))));
    assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
}

proptest! {
    #[test]
    fn any_text_is_answered_without_a_panic(text in "\\PC{0,300}") {
        let _ = Reference::parse(&text);
    }

    #[test]
    fn texts_of_the_grammars_letters_are_answered(text in "[a-zA-Z0-9./:@_\\-\\[\\]]{0,80}") {
        let _ = Reference::parse(&text);
    }

    #[test]
    fn normalising_twice_changes_nothing(
        domain in proptest::option::of("(localhost|[a-z]{1,8}\\.[a-z]{2,3})(:[1-9][0-9]{0,3})?"),
        path in "[a-z0-9]{1,8}((_|__|-{1,2})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}(\\.[a-z]{1,3})?){0,2}",
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
    ) {
        let mut text = domain.map_or(String::new(), |d| format!("{d}/"));
        text.push_str(&path);
        if let Some(tag) = tag { text.push(':'); text.push_str(&tag); }
        let once = Reference::parse(&text).unwrap();
        prop_assert_eq!(&Reference::parse(&once.canonical()).unwrap(), &once);
        prop_assert_eq!(&Reference::parse(&once.familiar()).unwrap(), &once);
    }
}

#[test]
fn what_would_mean_something_else_keeps_its_registry() {
    for text in
        ["docker.io/lib.er/a:1".to_owned(), format!("docker.io/library/{}:1", "0123456789abcdef".repeat(4))]
    {
        let reference = Reference::parse(&text).unwrap();
        assert_eq!(reference.familiar(), text);
        assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
    }
    assert_eq!(Reference::parse("docker.io/team/a:1").unwrap().familiar(), "team/a:1");
    assert_eq!(Reference::parse("docker.io/library/a:1").unwrap().familiar(), "a:1");
}
