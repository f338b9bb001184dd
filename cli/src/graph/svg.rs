//! A graph as SVG 1.1: one file, without scripts, links or fonts of its own. Every part has a tooltip.

use std::fmt::Write as _;

use super::layout::{Card, Panel, Picture, Rect, head, layout};
use super::model::{Graph, Link};
use super::style;

/// What a card, a panel and a chip have room for, in characters.
const CARD: usize = 25;
/// A name is bold.
const NAME: usize = 20;
const PANEL: usize = 26;
const CHIP: usize = 26;

/// Draws a graph.
pub fn svg(graph: &Graph) -> String {
    let picture = layout(graph);
    let mut pen = Pen(String::new());
    let (w, h) = (picture.width, picture.height);
    let title = escape(&format!("Networks of {}", graph.host));
    pen.line(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\">"
    ));
    pen.line(format_args!("<title>{title}</title>"));
    pen.line(format_args!("<style>{}</style>", style::sheet()));
    pen.rect("page", &Rect { x: 0, y: 0, w, h }, 0);
    host(&mut pen, graph, &picture);
    wires(&mut pen, graph, &picture);
    interfaces(&mut pen, graph, &picture);
    for panel in &picture.panels {
        network(&mut pen, graph, panel);
        if panel.branch.is_some() {
            let (x, y) = (panel.at.x + 24, panel.at.y);
            pen.line(format_args!("<circle class=\"end\" cx=\"{x}\" cy=\"{y}\" r=\"4\"/>"));
        }
    }
    ties(&mut pen, graph, &picture);
    for card in picture.panels.iter().flat_map(|p| &p.cards) {
        container(&mut pen, graph, card);
    }
    pen.line(format_args!("</svg>"));
    pen.0
}

struct Pen(String);

impl Pen {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(text);
        self.0.push('\n');
    }

    fn rect(&mut self, class: &str, at: &Rect, radius: i32) {
        let Rect { x, y, w, h } = at;
        self.line(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"{radius}\"/>"
        ));
    }

    fn text(&mut self, class: &str, x: i32, y: i32, text: &str) {
        self.line(format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape(text)));
    }

    fn anchored(&mut self, class: &str, anchor: &str, x: i32, y: i32, text: &str) {
        let text = escape(text);
        self.line(format_args!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// A group with a tooltip.
    fn group(&mut self, tooltip: &str, draw: impl FnOnce(&mut Self)) {
        self.line(format_args!("<g><title>{}</title>", escape(tooltip)));
        draw(self);
        self.line(format_args!("</g>"));
    }
}

/// For text and for attributes. Characters that XML cannot have become the replacement character.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// East Asian characters and pictures are twice as wide.
fn width(c: char) -> usize {
    let wide = matches!(u32::from(c), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f
        | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f000..);
    if wide { 2 } else { 1 }
}

/// Cuts what is too long, in the middle: beginnings tell names apart, ends addresses.
fn cut(text: &str, room: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.iter().copied().map(width).sum::<usize>() <= room {
        return text.to_owned();
    }
    let keep = |chars: &mut dyn Iterator<Item = char>, room: usize| {
        let mut left = room;
        let fits = |c: &char| {
            let fits = width(*c) <= left;
            left = left.saturating_sub(width(*c));
            fits
        };
        chars.take_while(fits).collect::<Vec<char>>()
    };
    let front = keep(&mut chars.iter().copied(), (room - 1) * 6 / 10);
    let mut back = keep(&mut chars.iter().rev().copied(), (room - 1) * 4 / 10);
    back.reverse();
    front.into_iter().chain(['…']).chain(back).collect()
}

fn host(pen: &mut Pen, graph: &Graph, picture: &Picture) {
    pen.rect("host", &picture.host, 14);
    let (x, y) = (picture.host.x + 42, picture.host.y + 28);
    let name = if graph.host.is_empty() { "this host" } else { &graph.host };
    pen.text("title", x, y, &cut(name, 40));
    let mut about = Vec::new();
    if !graph.firewall.is_empty() {
        about.push(format!("firewall {}", graph.firewall));
    }
    if !graph.nameservers.is_empty() {
        about.push(format!("names {}", graph.nameservers.join(", ")));
    }
    pen.anchored("small dim", "end", picture.host.right() - 16, y, &cut(&about.join(" · "), 60));
}

/// From the world to the uplink, down the trunk, and along each shelf to the networks that lead out.
fn wires(pen: &mut Pen, graph: &Graph, picture: &Picture) {
    let Some(outside) = &picture.outside else { return };
    let Some(uplink) = picture.interfaces.first() else { return };
    let x = picture.trunk;
    let path = |pen: &mut Pen, d: String| pen.line(format_args!("<path class=\"wire\" d=\"{d}\"/>"));
    path(pen, format!("M{x} {}V{}", outside.bottom(), uplink.y));
    if let Some(lowest) = picture.panels.iter().filter_map(|p| p.branch).max() {
        path(pen, format!("M{x} {}V{lowest}", uplink.bottom()));
    }
    for panel in &picture.panels {
        let Some(y) = panel.branch else { continue };
        let at = panel.at.x + 24;
        path(pen, format!("M{x} {y}H{at}V{}", panel.at.y));
    }
    let addresses = || graph.interfaces.first().map(|i| i.addresses.join(", ")).unwrap_or_default();
    pen.group(&format!("the world beyond {}", addresses()), |pen| {
        pen.rect("world", outside, 17);
        let (cx, cy) = outside.middle();
        pen.anchored("world-name", "middle", cx, cy + 4, "outside");
    });
}

fn interfaces(pen: &mut Pen, graph: &Graph, picture: &Picture) {
    for (interface, at) in graph.interfaces.iter().zip(&picture.interfaces) {
        let state = if interface.up { "up" } else { "down" };
        let tooltip = format!("{} ({state})\n{}", interface.name, interface.addresses.join("\n"));
        pen.group(&tooltip, |pen| {
            pen.rect(if interface.up { "chip" } else { "chip down" }, at, 8);
            pen.text("name", at.x + 30, at.y + 20, &cut(&interface.name, 16));
            if interface.uplink {
                pen.anchored("small dim", "end", at.right() - 10, at.y + 20, "uplink");
            }
            for (n, address) in (1..).zip(interface.addresses.iter().take(3)) {
                pen.text("mono", at.x + 30, at.y + 21 + 15 * n, &cut(address, CHIP - 4));
            }
        });
    }
}

fn network(pen: &mut Pen, graph: &Graph, panel: &Panel) {
    let net = &graph.networks[panel.network];
    let mut tooltip = format!("network {} ({})\nid {}", net.name, net.driver, short(&net.id));
    for (subnet, gateway) in &net.subnets {
        let _ = write!(tooltip, "\n{subnet}, gateway {gateway}");
    }
    let (x, y) = (panel.at.x, panel.at.y);
    pen.group(&tooltip, |pen| {
        pen.rect(&style::hue(panel.network), &panel.at, 10);
        pen.text(&format!("head {}", style::ink(panel.network)), x + 14, y + 25, &cut(&net.name, PANEL - 4));
        badge(pen, panel, &[net.driver.as_str(), net.mode.as_str()]);
        let mut at = y + 43;
        for (subnet, gateway) in &net.subnets {
            let gateway = if gateway.is_empty() { String::new() } else { format!("  gw {gateway}") };
            pen.text("mono", x + 14, at, &cut(&format!("{subnet}{gateway}"), 38));
            at += 16;
        }
        if !net.interface.is_empty() {
            pen.text("mono dim", x + 14, at, &cut(&net.interface, 38));
        }
        if panel.cards.is_empty() {
            pen.text("also", x + 14, y + head(net.subnets.len()) + 14, "no containers");
        }
    });
}

/// Driver and mode, and the interface below, at the right of a panel's head.
fn badge(pen: &mut Pen, panel: &Panel, words: &[&str]) {
    let text = words.iter().filter(|w| !w.is_empty()).copied().collect::<Vec<_>>().join(" · ");
    let text = cut(&text, 20);
    let w = i32::try_from(text.chars().count()).unwrap_or(0) * 7 + 16;
    let at = Rect { x: panel.at.right() - 12 - w, y: panel.at.y + 10, w, h: 20 };
    pen.rect("badge", &at, 10);
    let (cx, cy) = at.middle();
    pen.anchored(&format!("small {}", style::ink(panel.network)), "middle", cx, cy + 4, &text);
}

/// From the first card of a container to its others.
fn ties(pen: &mut Pen, graph: &Graph, picture: &Picture) {
    let cards: Vec<&Card> = picture.panels.iter().flat_map(|p| &p.cards).collect();
    for container in 0..graph.containers.len() {
        let mut own = cards.iter().filter(|c| graph.links[c.link].container == container);
        let Some(first) = own.next() else { continue };
        for other in own {
            pen.line(format_args!("<path class=\"tie\" d=\"{}\"/>", curve(&first.at, &other.at)));
        }
    }
}

fn curve(a: &Rect, b: &Rect) -> String {
    let ((ax, ay), (bx, by)) = (a.middle(), b.middle());
    let across = (b.x - a.right()).max(a.x - b.right());
    let down = (b.y - a.bottom()).max(a.y - b.bottom());
    if across > down.max(0) {
        let (x1, x2) = if a.right() < b.x { (a.right(), b.x) } else { (a.x, b.right()) };
        let mid = x1.midpoint(x2);
        return format!("M{x1} {ay}C{mid} {ay} {mid} {by} {x2} {by}");
    }
    let (y1, y2) = if a.bottom() < b.y { (a.bottom(), b.y) } else { (a.y, b.bottom()) };
    let mid = y1.midpoint(y2);
    format!("M{ax} {y1}C{ax} {mid} {bx} {mid} {bx} {y2}")
}

fn container(pen: &mut Pen, graph: &Graph, card: &Card) {
    let link = &graph.links[card.link];
    let container = &graph.containers[link.container];
    pen.group(&about(graph, link), |pen| {
        let (x, y) = (card.at.x + 10, card.at.y);
        pen.rect(if link.main { "card" } else { "card second" }, &card.at, 8);
        pen.text("name", x, y + 20, &cut(&container.name, NAME));
        let mut at = y + 36;
        for address in &link.addresses {
            pen.text("mono", x, at, &cut(address, CARD));
            at += 15;
        }
        if !card.also.is_empty() {
            pen.text("also", x, at, &cut(&format!("also on {}", card.also.join(", ")), CARD + 2));
            at += 15;
        }
        for port in &card.ports {
            pen.rect("port", &Rect { x, y: at - 9, w: card.at.w - 20, h: 18 }, 9);
            pen.text("mono port-text", x + 8, at + 4, &cut(port, CARD - 1));
            at += 21;
        }
    });
}

fn about(graph: &Graph, link: &Link) -> String {
    let container = &graph.containers[link.container];
    let mut text = format!("{}\nid {}", container.name, short(&container.id));
    let _ = write!(text, "\non network {}", graph.networks[link.network].name);
    if !link.interface.is_empty() {
        let _ = write!(text, "\n{} {} {}", link.interface, link.mac, link.addresses.join(" "));
    }
    for port in &container.ports {
        let _ = write!(text, "\npublished {port}");
    }
    text
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

#[cfg(test)]
mod tests;
