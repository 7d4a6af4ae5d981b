//! How far a long job has come: a bar on a terminal, a line now and then elsewhere. On stderr.

use crate::output::grouped;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(2);
const BAR_EVERY: Duration = Duration::from_millis(100);

pub struct Progress {
    bar: Option<ProgressBar>,
    /// "loaded", "checked"
    done: &'static str,
    /// Bytes of the file.
    total: u64,
    began: Instant,
    shown: Instant,
}

impl Progress {
    pub fn new(done: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}");
            bar.set_style(style.expect("the template is sound").progress_chars("=> "));
            bar
        });
        let now = Instant::now();
        Self { bar, done, total, began: now, shown: now }
    }

    /// `records` are done in this run, and `bytes` of the file are read.
    pub fn show(&mut self, records: u64, bytes: u64) {
        let every = if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let text = sentence(records, bytes, self.total, self.began.elapsed());
        match &self.bar {
            Some(bar) => {
                bar.set_position(bytes.min(self.total));
                bar.set_message(text);
            }
            None => {
                let percent = bytes.min(self.total) * 100 / self.total.max(1);
                eprintln!("{} {text}, {percent}%", self.done);
            }
        }
    }

    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

pub fn rate(records: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (records as f64 / seconds) as u64 } else { 0 }
}

fn sentence(records: u64, bytes: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let left = if bytes == 0 { None } else { Some(seconds * total.saturating_sub(bytes) as f64 / bytes as f64) };
    let left = left.map_or("?".to_string(), |left| format!("{left:.0} s"));
    format!("{} records, {}/s, {left} left", grouped(records), grouped(rate(records, seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left() {
        assert_eq!(sentence(12_000, 250, 1_000, Duration::from_secs(3)), "12,000 records, 4,000/s, 9 s left");
        assert_eq!(sentence(0, 0, 1_000, Duration::ZERO), "0 records, 0/s, ? left");
    }
}
