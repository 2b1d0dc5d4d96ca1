//! The build as lines of text. Pure: a board and a size in, lines out, none wider than the terminal.

use std::time::Duration;

use unicode_width::UnicodeWidthStr as _;

use crate::{
    cli::{cut, paint, seconds},
    progress::{
        board::{Board, Ending, Vertex},
        plain::transfer,
    },
};

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// One line, colours included, and the columns that it takes.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) width: usize,
}

/// What to draw.
pub(super) struct Frame<'a> {
    pub(super) board: &'a Board,
    pub(super) now: Duration,
    pub(super) colour: bool,
}

const RED: &str = "31";
const YELLOW: &str = "33";
const BLUE: &str = "34";
const GREY: &str = "90";

impl Frame<'_> {
    /// As much as fits: the header, all that runs with the end of its output, and the last of what is over.
    pub(super) fn live(&self, size: Size) -> Vec<Line> {
        // The last row stays free: the cursor stands there.
        let room = size.rows.saturating_sub(1).max(1);
        let columns = columns(size);
        let running = self.board.vertices.iter().filter(|v| v.ending.is_none()).count();
        let over = self.board.vertices.len() - running;
        let for_tails = room.saturating_sub(1 + running + over.min(3));
        let tail = for_tails.checked_div(running).unwrap_or(0).min(6);
        let heads = room.saturating_sub(1 + running * (1 + tail));
        let hidden = if over > heads { over - heads.saturating_sub(1) } else { 0 };

        let mut lines = vec![self.header(columns)];
        let mut skipped = 0;
        for vertex in &self.board.vertices {
            if vertex.ending.is_some() && skipped < hidden {
                skipped += 1;
                if skipped == hidden && heads > 0 {
                    lines.push(self.line(GREY, &format!(" => ... {hidden} before"), "", columns));
                }
                continue;
            }
            lines.push(self.vertex(vertex, columns));
            if vertex.ending.is_none() {
                let all = vertex.tail();
                let shown = all.get(all.len().saturating_sub(tail)..).unwrap_or_default();
                lines.extend(shown.iter().map(|l| self.line(GREY, &format!(" => => # {l}"), "", columns)));
            }
        }
        lines.truncate(room);
        lines
    }

    /// One line for everything there was, however many. What a failed step wrote comes with the error.
    pub(super) fn whole(&self, size: Size) -> Vec<Line> {
        let columns = columns(size);
        let mut lines = vec![self.header(columns)];
        lines.extend(self.board.vertices.iter().map(|vertex| self.vertex(vertex, columns)));
        lines.extend(self.board.warnings.iter().map(|w| self.line(YELLOW, w, "", columns)));
        lines
    }

    fn header(&self, columns: usize) -> Line {
        let board = self.board;
        let mut text = format!("[+] Building {} ({}/{})", seconds(self.now), board.steps_done, board.steps_total);
        match board.finished {
            Some(true) => text.push_str(" FINISHED"),
            Some(false) => text.push_str(" FAILED"),
            None => {}
        }
        self.line("", &text, board.sandbox.as_deref().unwrap_or_default(), columns)
    }

    fn vertex(&self, vertex: &Vertex, columns: usize) -> Line {
        let (word, colour) = match &vertex.ending {
            None => ("", ""),
            Some(Ending::Done) => ("", BLUE),
            Some(Ending::Cached) => ("CACHED ", BLUE),
            Some(Ending::Failed(_)) => ("ERROR ", RED),
            Some(Ending::Cancelled) => ("CANCELED ", YELLOW),
        };
        let time = seconds(vertex.took.unwrap_or_else(|| self.now.saturating_sub(vertex.began)));
        let right = match vertex.bytes {
            Some(moved) if vertex.ending.is_none() => format!("{} {time:>6}", transfer(moved)),
            Some((done, _)) => format!("{} {time:>6}", crate::cli::bytes(done)),
            None => time,
        };
        let left = format!(" => {word}{}", vertex.title);
        let Some(reason) = &vertex.reason else { return self.line(colour, &left, &right, columns) };
        // Behind the title and dim, if a good part of it fits.
        let room = columns.saturating_sub(left.width() + 3 + 1 + right.width());
        if room < 16 {
            return self.line(colour, &left, &right, columns);
        }
        let reason = cut(reason, room);
        let blanks = columns - left.width() - 3 - reason.width() - right.width();
        let width = columns;
        let paint = |colour: &str, text: &str| match colour {
            "" => text.to_owned(),
            colour => paint(self.colour, colour, text),
        };
        let text = [
            paint(colour, &left),
            paint(GREY, &format!(" · {reason}")),
            paint(colour, &format!("{}{right}", " ".repeat(blanks))),
        ]
        .concat();
        Line { text, width }
    }

    /// Text at the left, cut where it is too long, and a text at the right edge, left out where there is no room.
    fn line(&self, colour: &str, left: &str, right: &str, columns: usize) -> Line {
        let gap = if right.is_empty() { 0 } else { 1 };
        let room = columns.saturating_sub(right.width() + gap);
        let (right, room) = if room < 16 { ("", columns) } else { (right, room) };
        let left = cut(left, room);
        let blanks = if right.is_empty() { 0 } else { columns - left.width() - right.width() };
        let text = format!("{left}{}{right}", " ".repeat(blanks));
        let width = text.width();
        Line { text: if colour.is_empty() { text } else { paint(self.colour, colour, &text) }, width }
    }
}

/// One column less than there are: a full row makes some terminals go to the next one.
fn columns(size: Size) -> usize {
    size.columns.saturating_sub(1).max(1)
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
