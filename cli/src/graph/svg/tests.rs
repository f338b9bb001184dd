use super::*;
use crate::graph::model::tests::example;
use proptest::prelude::*;

/// Reads the markup: every tag closed in its order, no bare `<` or `&`; answers all text between tags.
fn texts(markup: &str) -> Result<Vec<String>, String> {
    let mut open: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let mut rest = markup;
    while let Some(at) = rest.find('<') {
        found.push(decode(&rest[..at])?);
        let end = rest[at..].find('>').ok_or("a tag does not end")? + at;
        let tag = &rest[at + 1..end];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default().to_owned();
        if !tag.matches('"').count().is_multiple_of(2) || tag.contains('<') {
            return Err(format!("<{tag}> is broken"));
        }
        if tag.starts_with('/') {
            if open.pop().as_deref() != Some(&name) {
                return Err(format!("</{name}> closes something else"));
            }
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    if open.is_empty() { Ok(found) } else { Err(format!("open: {open:?}")) }
}

fn decode(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let end = rest[at..].find(';').ok_or("an entity does not end")? + at;
        out.push(match &rest[at..=end] {
            "&amp;" => '&',
            "&lt;" => '<',
            "&gt;" => '>',
            "&quot;" => '"',
            "&#39;" => '\'',
            other => return Err(format!("unknown entity {other}")),
        });
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

proptest! {
    #[test]
    fn any_name_is_only_text(name in any::<String>()) {
        let mut graph = example();
        for container in &mut graph.containers {
            container.name.clone_from(&name);
            container.ports.push(name.clone());
        }
        for network in &mut graph.networks {
            network.name.clone_from(&name);
            network.driver.clone_from(&name);
            network.subnets.push((name.clone(), name.clone()));
        }
        graph.host.clone_from(&name);
        graph.interfaces[0].name.clone_from(&name);
        graph.links[0].addresses.push(name.clone());
        let all = texts(&svg(&graph)).map_err(TestCaseError::fail)?;
        let clean: String = name.chars().map(|c| if escape(&c.to_string()) == "\u{fffd}" { '\u{fffd}' } else { c }).collect();
        prop_assert!(all.iter().any(|t| t.starts_with(&format!("{clean}\nid web-01234567"))), "{all:?}");
    }

    #[test]
    fn what_is_cut_fits_and_keeps_its_ends(text in any::<String>(), room in 8usize..40) {
        let short = cut(&text, room);
        let wide = |t: &str| t.chars().map(width).sum::<usize>();
        prop_assert!(wide(&short) <= room.max(wide(&text).min(room)));
        prop_assert_eq!(wide(&text) <= room, short == text);
    }
}

/// The picture of the example, for people to look at too. DAVIT_WRITE_GOLDEN=1 writes it anew.
#[test]
fn the_example_is_drawn_as_it_was() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/graph.svg");
    let drawn = svg(&example());
    if std::env::var_os("DAVIT_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap();
        std::fs::write(path, &drawn).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert!(drawn == golden, "the picture changed: look at it, and write it anew");
}

/// For people to look at: DAVIT_WRITE_CROWD=FILE.
#[test]
fn a_crowd_is_drawn() {
    let mut graph = example();
    for n in 0..60 {
        let network = n % 5;
        if network >= graph.networks.len() {
            let mut more = graph.networks[0].clone();
            more.name = format!("team-{network}");
            graph.networks.push(more);
        }
        let mut container = graph.containers[n % 3].clone();
        container.name = format!("{}-{n}", ["worker", "cache", "api-gateway-with-a-long-name"][n % 3]);
        let at = graph.containers.len();
        graph.containers.push(container);
        let mut link = graph.links[0].clone();
        (link.container, link.network) = (at, network);
        link.addresses =
            vec![format!("10.89.{network}.{}", n + 10), format!("fd42:1b2c:3d4e:{network}::{n:x}")];
        graph.links.push(link.clone());
        if n % 15 == 0 {
            graph.links.push(Link { network: (network + 1) % 3, main: false, ..link });
        }
    }
    let drawn = svg(&graph);
    assert!(texts(&drawn).unwrap().iter().any(|t| t == "worker-57"));
    if let Some(path) = std::env::var_os("DAVIT_WRITE_CROWD") {
        std::fs::write(path, drawn).unwrap();
    }
}

#[test]
fn nothing_in_it_refers_to_anything_outside() {
    let drawn = svg(&example());
    for word in ["href", "url(", "<script", "@import", "<image"] {
        assert!(!drawn.contains(word), "{word}");
    }
    assert_eq!(drawn.matches("http").count(), 1, "its own namespace");
}
