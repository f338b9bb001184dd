//! Where everything goes, in pixels: networks are panels on shelves, containers are cards in a grid inside them.
//!
//! ```text
//! outside
//!    |
//! +--|- host --------------------------------+
//! | uplink                                   |
//! |  |                                        |
//! |  +---+-----------+      a shelf's branch  |
//! |  | panel       panel                      |
//! |  +---+                                    |
//! |    panel                                  |
//! +------------------------------------------+
//! ```
//! A container on several networks has a card in each; its cards are tied to one another. Text is measured by a width
//! that every usual font keeps below, and cut where it would be longer: tooltips have it whole.

use super::model::Graph;

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rect {
    pub x: i32,
    pub y: i32,
    pub w: i32,
    pub h: i32,
}

impl Rect {
    pub fn right(&self) -> i32 {
        self.x + self.w
    }

    pub fn bottom(&self) -> i32 {
        self.y + self.h
    }

    pub fn middle(&self) -> (i32, i32) {
        (self.x + self.w / 2, self.y + self.h / 2)
    }
}

/// A container's card on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Index of the link.
    pub link: usize,
    pub at: Rect,
    /// Published ports that are shown.
    pub ports: Vec<String>,
    /// Other networks of the container.
    pub also: Vec<String>,
}

/// A network's panel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    /// Index of the network.
    pub network: usize,
    pub at: Rect,
    pub cards: Vec<Card>,
    /// The branch that leads to it, when anything leads out of it: its height.
    pub branch: Option<i32>,
}

/// The whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: i32,
    pub height: i32,
    pub host: Rect,
    /// The world; absent when the host has no way out.
    pub outside: Option<Rect>,
    /// The host's interfaces.
    pub interfaces: Vec<Rect>,
    pub panels: Vec<Panel>,
    /// Where the trunk runs down.
    pub trunk: i32,
}

const MARGIN: i32 = 20;
const PAD: i32 = 14;
const GAP: i32 = 12;
const CARD_W: i32 = 204;
const SHELF_GAP: i32 = 34;
const TRUNK: i32 = 44;
const HOST_HEAD: i32 = 46;
const CHIP_W: i32 = 208;
const OUTSIDE_H: i32 = 34;
/// Ports that a card shows.
const PORTS: usize = 4;

/// Height of a panel's head: the name, a line for each subnet, the interface.
pub fn head(subnets: usize) -> i32 {
    56 + 16 * i32::try_from(subnets).unwrap_or(0)
}

fn chip_height(addresses: usize) -> i32 {
    30 + 15 * i32::try_from(addresses.min(3)).unwrap_or(0)
}

/// Lays a graph out.
pub fn layout(graph: &Graph) -> Picture {
    let mut panels: Vec<Panel> = (0..graph.networks.len()).map(|n| panel(graph, n)).collect();
    let has_out = graph.interfaces.iter().any(|i| i.uplink);
    let top = if has_out { MARGIN + OUTSIDE_H + 26 } else { MARGIN };
    let (chips, chips_bottom) = chips(graph, &panels, top + HOST_HEAD);
    let left = MARGIN + TRUNK;
    let wide = inner_width(&panels, chips.iter().map(Rect::right).max().unwrap_or(0) - left);
    let bottom = shelve(&mut panels, graph, left, chips_bottom + SHELF_GAP, wide, has_out);
    let right = panels.iter().map(|p| p.at.right()).chain(chips.iter().map(Rect::right)).max();
    let right = right.unwrap_or(0).max(left + 420);
    let host = Rect { x: MARGIN, y: top, w: right + PAD - MARGIN, h: bottom + PAD - top };
    let outside = has_out.then_some(Rect { x: MARGIN + 8, y: MARGIN, w: 112, h: OUTSIDE_H });
    Picture {
        width: host.right() + MARGIN,
        height: host.bottom() + MARGIN,
        host,
        outside,
        interfaces: chips,
        panels,
        trunk: MARGIN + 24,
    }
}

/// The host's interfaces in rows.
fn chips(graph: &Graph, panels: &[Panel], top: i32) -> (Vec<Rect>, i32) {
    let widest = panels.iter().map(|p| p.at.w).max().unwrap_or(0).max(3 * (CHIP_W + GAP));
    let (mut x, mut y, mut tallest) = (MARGIN + PAD - 4, top, 0);
    let mut places = Vec::new();
    for interface in &graph.interfaces {
        let h = chip_height(interface.addresses.len());
        if x > MARGIN + PAD && x + CHIP_W > widest + TRUNK + MARGIN {
            (x, y, tallest) = (MARGIN + PAD - 4, y + tallest + GAP, 0);
        }
        places.push(Rect { x, y, w: CHIP_W, h });
        x += CHIP_W + GAP;
        tallest = tallest.max(h);
    }
    (places, y + tallest)
}

/// As wide as makes the picture somewhat wider than tall.
fn inner_width(panels: &[Panel], chips: i32) -> i32 {
    let widest = panels.iter().map(|p| p.at.w).max().unwrap_or(0).max(chips);
    let area: i64 = panels.iter().map(|p| i64::from(p.at.w + GAP) * i64::from(p.at.h + SHELF_GAP)).sum();
    let mut side = 600_i64;
    while side < 4000 && side * side * 10 < area * 17 {
        side += 20;
    }
    widest.max(i32::try_from(side).unwrap_or(i32::MAX))
}

/// Puts panels on shelves of this width; answers the height of their lower end.
fn shelve(panels: &mut [Panel], graph: &Graph, left: i32, top: i32, wide: i32, has_out: bool) -> i32 {
    let (mut x, mut y, mut tallest) = (left, top, 0);
    for panel in panels {
        if x > left && x + panel.at.w > left + wide {
            (x, y, tallest) = (left, y + tallest + SHELF_GAP, 0);
        }
        let (dx, dy) = (x, y);
        panel.at.x = dx;
        panel.at.y = dy;
        for card in &mut panel.cards {
            card.at.x += dx;
            card.at.y += dy;
        }
        panel.branch = (has_out && graph.networks[panel.network].leads_out).then_some(y - SHELF_GAP / 2 + 2);
        x += panel.at.w + 2 * GAP;
        tallest = tallest.max(panel.at.h);
    }
    y + tallest
}

fn columns(cards: usize) -> usize {
    match cards {
        0..=3 => cards.max(1),
        _ => (2..8).find(|c| c * c * 10 >= cards * 7).unwrap_or(8),
    }
}

/// A panel at the origin.
fn panel(graph: &Graph, network: usize) -> Panel {
    let links: Vec<usize> = (0..graph.links.len()).filter(|l| graph.links[*l].network == network).collect();
    let columns = columns(links.len());
    let mut y = head(graph.networks[network].subnets.len());
    let mut cards = Vec::new();
    for row in links.chunks(columns) {
        let mut of_row: Vec<Card> = row.iter().map(|link| card(graph, *link)).collect();
        let tallest = of_row.iter().map(|c| c.at.h).max().unwrap_or(0);
        for (column, card) in of_row.iter_mut().enumerate() {
            card.at.x = PAD + i32::try_from(column).unwrap_or(0) * (CARD_W + GAP);
            card.at.y = y;
            card.at.h = tallest;
        }
        y += tallest + GAP;
        cards.append(&mut of_row);
    }
    if links.is_empty() {
        y += 20 + GAP;
    }
    let across = i32::try_from(columns).unwrap_or(1);
    let w = (2 * PAD + across * CARD_W + (across - 1) * GAP).max(290);
    Panel { network, at: Rect { x: 0, y: 0, w, h: y - GAP + PAD }, cards, branch: None }
}

fn card(graph: &Graph, index: usize) -> Card {
    let link = &graph.links[index];
    let others = graph.links.iter().filter(|l| l.container == link.container && l.network != link.network);
    let also: Vec<String> = others.map(|l| graph.networks[l.network].name.clone()).collect();
    let all = if link.main { graph.containers[link.container].ports.as_slice() } else { &[] };
    let mut ports: Vec<String> = all.to_vec();
    if ports.len() > PORTS {
        ports.truncate(PORTS - 1);
        ports.push(format!("and {} more", all.len() - PORTS + 1));
    }
    let lines = link.addresses.len() + usize::from(!also.is_empty());
    let h = 28 + 15 * i32::try_from(lines).unwrap_or(0) + 21 * i32::try_from(ports.len()).unwrap_or(0);
    Card { link: index, at: Rect { x: 0, y: 0, w: CARD_W, h: h + 4 }, ports, also }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::model::tests::example;
    use crate::graph::model::{Container, Interface, Link, Network};
    use proptest::prelude::*;

    fn crowd(networks: usize, containers: usize, second: bool) -> Graph {
        let mut graph = Graph::default();
        graph.interfaces.push(Interface { name: "eth0".into(), uplink: true, ..Interface::default() });
        for n in 0..networks {
            graph.networks.push(Network { name: format!("n{n}"), leads_out: true, ..Network::default() });
        }
        for c in 0..containers {
            graph.containers.push(Container { name: format!("c{c}"), ..Container::default() });
            let mut add = |network| {
                let addresses = vec!["10.0.0.2".to_owned()];
                graph.links.push(Link { container: c, network, addresses, main: true, ..Link::default() });
            };
            add(c % networks);
            if second && networks > 1 {
                add((c + 1) % networks);
            }
        }
        graph
    }

    fn apart(a: &Rect, b: &Rect) -> bool {
        a.right() <= b.x || b.right() <= a.x || a.bottom() <= b.y || b.bottom() <= a.y
    }

    fn within(inner: &Rect, outer: &Rect) -> bool {
        inner.x >= outer.x
            && inner.right() <= outer.right()
            && inner.y >= outer.y
            && inner.bottom() <= outer.bottom()
    }

    fn check(graph: &Graph) -> Result<(), TestCaseError> {
        let picture = layout(graph);
        prop_assert_eq!(picture.panels.iter().map(|p| p.cards.len()).sum::<usize>(), graph.links.len());
        for (n, panel) in picture.panels.iter().enumerate() {
            prop_assert!(within(&panel.at, &picture.host), "{:?} in {:?}", panel.at, picture.host);
            for other in &picture.panels[n + 1..] {
                prop_assert!(apart(&panel.at, &other.at), "{:?} {:?}", panel.at, other.at);
            }
            for (c, card) in panel.cards.iter().enumerate() {
                prop_assert!(within(&card.at, &panel.at));
                prop_assert!(panel.cards[c + 1..].iter().all(|o| apart(&card.at, &o.at)));
            }
        }
        prop_assert!(picture.interfaces.iter().all(|i| within(i, &picture.host)));
        Ok(())
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_all_is_inside(networks in 1usize..20, containers in 0usize..80, second: bool) {
            check(&crowd(networks, containers, second))?;
        }
    }

    #[test]
    fn a_crowd_is_not_a_ribbon() {
        for containers in [3, 12, 60, 200] {
            let p = layout(&crowd(4, containers, true));
            assert!(
                p.width < 4 * p.height && p.height < 3 * p.width,
                "{containers}: {} x {}",
                p.width,
                p.height
            );
        }
        let p = layout(&example());
        assert_eq!((p.panels.len(), p.panels[1].branch), (2, None));
    }
}
