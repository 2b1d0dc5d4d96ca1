//! `--progress=plain`: lines that stay, each with the number of the step that it belongs to.
//!
//! One step is written at a time, as long as it has something to say; what others write meanwhile waits, but not for
//! long. A step that is interrupted and comes back gets its title again.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    time::Duration,
};

use memobuild_observe::TraceEvent;

use super::{
    Display, Moment,
    board::{Board, Bytes, Change, Ending},
};
use crate::cli::{bytes, seconds};

/// A step that says nothing for this long makes way for another that waits.
const PATIENCE: Duration = Duration::from_millis(400);
/// Bytes that wait at most, for one step.
const WAITING: usize = 64 * 1024;
/// Transfers report this often.
const TRANSFER: Duration = Duration::from_secs(5);

/// Characters of a title that are shown.
const LONGEST_TITLE: usize = 120;

/// Lines that are ready and wait for their turn.
#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    since: Duration,
}

/// Writes lines.
pub(super) struct Plain<W: Write> {
    out: BufWriter<W>,
    board: Board,
    /// The step that is being written.
    current: Option<usize>,
    last_write: Duration,
    waiting: BTreeMap<usize, Waiting>,
    reported: BTreeMap<usize, Duration>,
    written: bool,
}

impl<W: Write> Plain<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out: BufWriter::new(out),
            board: Board::default(),
            current: None,
            last_write: Duration::ZERO,
            waiting: BTreeMap::new(),
            reported: BTreeMap::new(),
            written: false,
        }
    }

    /// Makes a step the one that is written, with all that it has waiting.
    fn switch(&mut self, v: usize) -> io::Result<()> {
        if self.current != Some(v) {
            if let Some(old) = self.current {
                writeln!(self.out, "#{} ...", old + 1)?;
            }
            if self.written {
                writeln!(self.out)?;
            }
            let title = self.board.vertices.get(v).map_or("", |vertex| vertex.title.as_str());
            let more = if title.chars().nth(LONGEST_TITLE).is_some() { "…" } else { "" };
            let title: String = title.chars().take(LONGEST_TITLE).collect();
            writeln!(self.out, "#{} {title}{more}", v + 1)?;
            self.current = Some(v);
            self.written = true;
        }
        if let Some(waiting) = self.waiting.remove(&v) {
            self.out.write_all(&waiting.text)?;
        }
        Ok(())
    }

    /// Writes text of a step now if it is its turn, else keeps it.
    fn say(&mut self, v: usize, at: Duration, text: &[u8]) -> io::Result<()> {
        if self.current.is_none() || self.current == Some(v) {
            self.switch(v)?;
            self.last_write = at;
            return self.out.write_all(text);
        }
        let waiting = self.waiting.entry(v).or_insert_with(|| Waiting { text: Vec::new(), since: at });
        waiting.text.extend_from_slice(text);
        if waiting.text.len() > WAITING {
            self.switch(v)?;
            self.last_write = at;
        }
        Ok(())
    }

    fn lines(&mut self, v: usize, at: Duration, lines: &[Vec<u8>]) -> io::Result<()> {
        let began = self.board.vertices.get(v).map_or(at, |vertex| vertex.began);
        let stamp = format!("#{} {:.3} ", v + 1, at.saturating_sub(began).as_secs_f64());
        let mut text = Vec::new();
        for line in lines {
            text.extend_from_slice(stamp.as_bytes());
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        self.say(v, at, &text)
    }

    fn moved(&mut self, v: usize, at: Duration) -> io::Result<()> {
        let last = *self.reported.entry(v).or_insert(at);
        if at.saturating_sub(last) < TRANSFER {
            return Ok(());
        }
        self.reported.insert(v, at);
        match self.board.vertices.get(v).and_then(|vertex| vertex.bytes) {
            Some(moved) => self.say(v, at, format!("#{} {}\n", v + 1, transfer(moved)).as_bytes()),
            None => Ok(()),
        }
    }

    fn ended(&mut self, v: usize, at: Duration) -> io::Result<()> {
        let Some(vertex) = self.board.vertices.get(v) else { return Ok(()) };
        let took = seconds(vertex.took.unwrap_or_default());
        let moved = vertex.bytes.map(|(done, _)| format!("#{} {} done\n", v + 1, bytes(done))).unwrap_or_default();
        let end = match &vertex.ending {
            Some(Ending::Cached) => "CACHED".to_owned(),
            Some(Ending::Failed(message)) => format!("ERROR: {message}"),
            Some(Ending::Cancelled) => "CANCELED".to_owned(),
            Some(Ending::Done) | None => format!("DONE {took}"),
        };
        self.switch(v)?;
        writeln!(self.out, "{moved}#{} {end}", v + 1)?;
        self.current = None;
        self.last_write = at;
        Ok(())
    }

    /// Gives the turn to whoever has waited longest, if the one that has it is silent.
    fn next(&mut self, at: Duration) -> io::Result<()> {
        let silent = self.current.is_none() || at.saturating_sub(self.last_write) >= PATIENCE;
        let longest = self.waiting.iter().min_by_key(|(_, w)| w.since).map(|(v, w)| (*v, w.since));
        if let Some((v, since)) = longest
            && silent
            && at.saturating_sub(since) >= PATIENCE
        {
            self.switch(v)?;
            self.last_write = at;
        }
        Ok(())
    }
}

impl<W: Write + Send> Display for Plain<W> {
    fn event(&mut self, at: Moment, event: TraceEvent) -> io::Result<()> {
        let at = at.elapsed;
        for change in self.board.apply(at, event) {
            match change {
                Change::Began(v) => self.say(v, at, b"")?,
                Change::Lines(v, lines) => self.lines(v, at, &lines)?,
                Change::Moved(v) => self.moved(v, at)?,
                Change::Note(v, note) => self.say(v, at, format!("#{} {note}\n", v + 1).as_bytes())?,
                Change::Ended(v) => self.ended(v, at)?,
                Change::Sandbox(mode) => {
                    writeln!(self.out, "#0 sandbox: {mode}")?;
                    self.written = true;
                }
                Change::Warning(message) => {
                    writeln!(self.out, "{}{message}", if self.written { "\n" } else { "" })?;
                    self.written = true;
                }
            }
        }
        Ok(())
    }

    fn tick(&mut self, at: Moment) -> io::Result<()> {
        self.next(at.elapsed)?;
        self.out.flush()
    }

    fn idle(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn finish(&mut self, _: Moment) -> io::Result<()> {
        for v in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.switch(v)?;
        }
        self.out.flush()
    }
}

/// `12.3MB / 50.0MB`, or what was moved where the end is unknown.
pub(super) fn transfer((done, total): Bytes) -> String {
    match total {
        Some(total) => format!("{} / {}", bytes(done), bytes(total)),
        None => bytes(done),
    }
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
