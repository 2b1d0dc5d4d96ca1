//! `--progress=tty`: a picture of the build that is drawn anew ten times a second.
//!
//! [`frame`] makes the lines, [`screen`] puts them over the ones drawn before. Only the live part is redrawn; the last
//! frame holds all lines and stays.

mod frame;
mod screen;

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use memobuild_observe::TraceEvent;
use rustix::termios::tcgetwinsize;

use self::{
    frame::{Frame, Size},
    screen::Screen,
};
use super::{Display, Moment, board::Board};
use crate::cli::colours_allowed;

/// Draws on a terminal.
pub(super) struct Tty<W: Write + AsFd> {
    out: W,
    board: Board,
    screen: Screen,
    colour: bool,
}

impl<W: Write + AsFd> Tty<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, board: Board::default(), screen: Screen::default(), colour: colours_allowed() }
    }

    /// The terminal's size now; it may change at any time.
    fn size(&self) -> Size {
        let usable = tcgetwinsize(&self.out).ok().filter(|s| s.ws_col > 0 && s.ws_row > 0);
        usable.map_or(Size { columns: 80, rows: 24 }, |s| Size { columns: s.ws_col.into(), rows: s.ws_row.into() })
    }

    fn draw(&mut self, at: Moment, last: bool) -> io::Result<()> {
        let size = self.size();
        let frame = Frame { board: &self.board, now: at.elapsed, colour: self.colour };
        let lines = if last { frame.whole(size) } else { frame.live(size) };
        let bytes = self.screen.replace(lines, size.columns);
        // One write: a terminal never shows half of a frame.
        self.out.write_all(&bytes)?;
        self.out.flush()
    }
}

impl<W: Write + AsFd + Send> Display for Tty<W> {
    fn event(&mut self, at: Moment, event: TraceEvent) -> io::Result<()> {
        self.board.apply(at.elapsed, event);
        Ok(())
    }

    fn tick(&mut self, at: Moment) -> io::Result<()> {
        self.draw(at, false)
    }

    fn finish(&mut self, at: Moment) -> io::Result<()> {
        self.draw(at, true)
    }
}
