//! A graph in graphviz's language (dot(1)): nodes for interfaces, networks and containers, an edge for each endpoint.

use std::fmt::Write as _;

use super::model::Graph;

/// Writes a graph.
pub fn dot(graph: &Graph) -> String {
    let mut out = String::from(
        "graph davit {\n  rankdir=LR;\n  compound=true;\n  fontname=\"sans-serif\";\n  \
         node [fontname=\"sans-serif\", fontsize=11];\n  edge [fontname=\"sans-serif\", fontsize=9];\n",
    );
    let uplink = graph.interfaces.iter().position(|i| i.uplink);
    if uplink.is_some() {
        out.push_str("  outside [label=\"outside\", shape=oval];\n");
    }
    let about = [format!("host {}", graph.host), format!("firewall {}", graph.firewall)];
    let _ = writeln!(out, "  subgraph cluster_host {{\n    label={};\n    style=rounded;", label(&about));
    for (n, interface) in graph.interfaces.iter().enumerate() {
        let lines = [&[interface.name.clone()][..], &interface.addresses].concat();
        let _ = writeln!(out, "    if{n} [label={}, shape=box];", label(&lines));
    }
    for (n, network) in graph.networks.iter().enumerate() {
        let mut lines =
            vec![network.name.clone(), format!("{} {}", network.driver, network.mode).trim().to_owned()];
        lines.extend(network.subnets.iter().map(|(subnet, _)| subnet.clone()));
        let style = if network.leads_out { "filled" } else { "\"filled,dashed\"" };
        let shape = "shape=box, fillcolor=\"#eff6ff\", color=\"#2563eb\"";
        let _ = writeln!(out, "    net{n} [label={}, {shape}, style={style}];", label(&lines));
    }
    for (n, container) in graph.containers.iter().enumerate() {
        let _ = writeln!(
            out,
            "    c{n} [label={}, shape=component];",
            label(std::slice::from_ref(&container.name))
        );
    }
    out.push_str("  }\n");
    if let Some(uplink) = uplink {
        edges_out(&mut out, graph, uplink);
    }
    for link in &graph.links {
        let _ =
            writeln!(out, "  net{} -- c{} [label={}];", link.network, link.container, label(&link.addresses));
    }
    out.push_str("}\n");
    out
}

/// From the world through the uplink to the networks, and to the containers that publish ports.
fn edges_out(out: &mut String, graph: &Graph, uplink: usize) {
    let _ = writeln!(out, "  outside -- if{uplink};");
    for (n, _) in graph.networks.iter().enumerate().filter(|(_, n)| n.leads_out) {
        let _ = writeln!(out, "  if{uplink} -- net{n};");
    }
    for (n, container) in graph.containers.iter().enumerate().filter(|(_, c)| !c.ports.is_empty()) {
        let style = "style=dashed, color=\"#c2410c\", fontcolor=\"#c2410c\", constraint=false";
        let _ = writeln!(out, "  outside -- c{n} [label={}, {style}];", label(&container.ports));
    }
}

/// A quoted label of several lines. In a label a backslash begins an escape, and `&` an entity.
fn label(lines: &[String]) -> String {
    let mut out = String::from("\"");
    for (n, line) in lines.iter().enumerate() {
        if n > 0 {
            out.push_str("\\n");
        }
        for c in line.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                c if c.is_control() => out.push('\u{fffd}'),
                c => out.push(c),
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::model::tests::example;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// What graphviz makes of it.
    fn drawn(dot: &str) -> String {
        let mut child = Command::new("dot")
            .arg("-Tsvg")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's graphviz is installed where the tests run");
        child.stdin.take().unwrap().write_all(dot.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && told.is_empty(), "{told}\n{dot}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Reads a label back as graphviz does.
    fn read(label: &str) -> Option<String> {
        let inner = label.strip_prefix('"')?.strip_suffix('"')?;
        let mut out = String::new();
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => return None,
                '\\' => match chars.next()? {
                    'n' => out.push('\n'),
                    c @ ('"' | '\\') => out.push(c),
                    _ => return None,
                },
                c => out.push(c),
            }
        }
        Some(out.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    }

    proptest! {
        #[test]
        fn any_label_is_only_a_label(text in any::<String>()) {
            let clean: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            prop_assert_eq!(read(&label(&[text])), Some(clean));
        }
    }

    #[test]
    fn graphviz_draws_it() {
        let svg = drawn(&dot(&example()));
        for wanted in ["harbour", "front", "10.89.1.3", "8080 → 80/tcp", "outside"] {
            assert!(svg.contains(wanted), "{wanted}: {svg}");
        }
    }

    #[test]
    fn graphviz_draws_names_that_look_like_its_language() {
        let mut graph = example();
        for (container, name) in graph.containers.iter_mut().zip([r#"a"]; x [label="y"#, r"\N\", "<b>&amp;"])
        {
            name.clone_into(&mut container.name);
        }
        let svg = drawn(&dot(&graph));
        for wanted in ["label=&quot;y", r"\N\", "&lt;b&gt;&amp;amp;"] {
            assert!(svg.contains(wanted), "{wanted}: {svg}");
        }
    }
}
