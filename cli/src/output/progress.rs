//! Bars for pulls, pushes and loads: on stderr, only where that is a terminal.

use std::collections::HashMap;

use davit_contracts::storage::progress::{Event, Layer, Phase};
use davit_contracts::storage::{ImageDone, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;

/// Shows progress events and collects the images that came of them.
pub struct Display {
    bars: Option<MultiProgress>,
    telling: bool,
    layers: HashMap<String, (ProgressBar, (Phase, bool))>,
    /// The images, in order.
    pub done: Vec<ImageDone>,
}

impl Display {
    /// Bars when stderr is a terminal and `quiet` was not asked for; otherwise nothing: scripts read results and errors.
    pub fn new(quiet: bool) -> Self {
        let bars = (!quiet && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Self { bars, telling: false, layers: HashMap::new(), done: Vec::new() }
    }

    /// What is said goes to standard output, with or without bars.
    pub fn telling(self, telling: bool) -> Self {
        Self { telling, ..self }
    }

    /// Takes one event.
    pub fn event(&mut self, progress: Progress) {
        match progress.event {
            Some(Event::Status(status)) => self.status(&status.message),
            Some(Event::Layer(layer)) => self.layer(&layer),
            Some(Event::Done(done)) => self.done.push(done),
            None => {}
        }
    }

    fn status(&self, message: &str) {
        match (&self.bars, self.telling) {
            (Some(bars), true) => bars.suspend(|| super::line(message)),
            (None, true) => super::line(message),
            (Some(bars), false) => {
                let _ = bars.println(message);
            }
            (None, false) => {}
        }
    }

    fn layer(&mut self, layer: &Layer) {
        let Some(bars) = &self.bars else { return };
        let (phase, measured) = (layer.phase(), layer.total > 0);
        let (bar, before) = self.layers.entry(layer.id.clone()).or_insert_with(|| {
            // With its style from the first moment: the default one is as wide as the terminal.
            let bar = ProgressBar::new(layer.total)
                .with_prefix(layer.id.clone())
                .with_message(word(phase))
                .with_style(style(phase, measured));
            (bars.add(bar), (phase, measured))
        });
        bar.set_length(layer.total);
        if *before != (phase, measured) {
            *before = (phase, measured);
            bar.set_style(style(phase, measured));
            bar.set_message(word(phase));
        }
        bar.set_position(layer.current);
        if matches!(phase, Phase::Exists | Phase::Done) {
            bar.finish();
        }
    }

    /// Takes the bars away.
    pub fn clear(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
        }
    }
}

/// How a layer is shown; without a known size there is nothing to draw a bar of.
fn style(phase: Phase, measured: bool) -> ProgressStyle {
    let template = match phase {
        Phase::Downloading | Phase::Unpacking | Phase::Pushing if measured => {
            "{prefix:12} {msg:12} [{bar:30}] {decimal_bytes:>9}/{decimal_total_bytes:9}"
        }
        Phase::Downloading | Phase::Unpacking | Phase::Pushing => "{prefix:12} {msg:12} {decimal_bytes:>9}",
        _ => "{prefix:12} {msg}",
    };
    ProgressStyle::with_template(template)
        .map_or_else(|_| ProgressStyle::default_bar(), |s| s.progress_chars("=> "))
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Downloading => "downloading",
        Phase::Unpacking => "unpacking",
        Phase::Pushing => "pushing",
        Phase::Exists => "exists",
        Phase::Done => "done",
        Phase::Waiting | Phase::Unspecified => "waiting",
    }
}
