//! What is seen of a transfer: bars on a terminal, lines elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::content::Descriptor;
use crate::cli::arguments::{Format, Global};
use crate::cli::output::{say, watched};

/// Shows what is going on.
pub(in crate::cli) struct Progress<'a> {
    global: &'a Global,
    bars: Option<MultiProgress>,
}

/// One blob under way.
pub(in crate::cli) struct Bar<'a> {
    progress: &'a Progress<'a>,
    shown: Option<ProgressBar>,
    label: String,
    size: u64,
}

impl<'a> Progress<'a> {
    /// Bars where somebody is watching, and wants to.
    pub(in crate::cli) fn new(global: &'a Global) -> Self {
        let shown = watched() && !global.quiet && global.output == Format::Text;
        Self { global, bars: shown.then(MultiProgress::new) }
    }

    /// Begins with a blob.
    pub(in crate::cli) fn begin(&'a self, blob: &Descriptor) -> Bar<'a> {
        let label = format!("{}:{}", blob.digest.algorithm().as_str(), &blob.digest.hex()[..12]);
        let bar = self.bars.as_ref().map(|bars| {
            let style = ProgressStyle::with_template(
                "{prefix} {bar:24} {bytes:>10}/{total_bytes} {bytes_per_sec} {msg}",
            );
            let bar = ProgressBar::new(blob.size).with_prefix(label.clone());
            bars.add(style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style)))
        });
        Bar { progress: self, shown: bar, label, size: blob.size }
    }

    /// A line that stays.
    pub(in crate::cli) fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| say(self.global, line)),
            None => say(self.global, line),
        }
    }
}

impl Bar<'_> {
    /// So many bytes are through.
    pub(in crate::cli) fn at(&self, bytes: u64) {
        if let Some(bar) = &self.shown {
            bar.set_position(bytes);
        }
    }

    /// A handle that counts bytes from elsewhere.
    pub(in crate::cli) fn counter(&self) -> impl Fn(u64) + Send + 'static {
        let bar = self.shown.clone();
        move |bytes| {
            if let Some(bar) = &bar {
                bar.inc(bytes);
            }
        }
    }

    /// The blob is where it should be.
    pub(in crate::cli) fn end(self, how: &str) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
        self.progress.say(&format!("{}  {:>10}  {how}", self.label, amount(self.size)));
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// A size as people read it.
pub(in crate::cli) fn amount(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
