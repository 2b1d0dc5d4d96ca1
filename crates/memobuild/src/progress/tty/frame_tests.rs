//! Frames of builds at several sizes.

use memobuild_observe::{StepInfo, StepOutcome, Stream, TraceEvent};
use proptest::prelude::*;

use super::*;

fn board() -> Board {
    let mut board = Board::default();
    let labels =
        ["[base 1/1] FROM busybox", "[build 2/3] COPY . /src", "[build 3/3] RUN make -j4 all", "[3/3] RUN test"];
    let step = |(id, label): (usize, &&str)| StepInfo {
        id,
        label: (*label).into(),
        stage: "0".into(),
        inputs: Vec::new(),
        line: None,
    };
    let ms = Duration::from_millis;
    let mut at = |t, event| board.apply(ms(t), event);
    at(
        0,
        TraceEvent::RemoteSync {
            what: "pull debian:12 sha256:0123456789ab".into(),
            done: 12_300_000,
            total: Some(50_000_000),
            finished: false,
        },
    );
    at(5, TraceEvent::BuildStarted { steps: labels.iter().enumerate().map(step).collect() });
    at(5, TraceEvent::SandboxChosen { mode: "traced".into(), why: "user namespace".into() });
    at(6, TraceEvent::NodeCached { step: 0 });
    at(7, TraceEvent::NodeExecuting { step: 1, reason: "new".into(), again: false });
    at(90, TraceEvent::NodeDone { step: 1, outcome: StepOutcome::Executed, duration: ms(83) });
    at(91, TraceEvent::NodeExecuting { step: 2, reason: "/src/a.c changed (read by the step)".into(), again: true });
    let data = b"cc -c a.c\ncc -c b.c -o \x1b[1mb.o\x1b[0m\nlinking 50%".to_vec();
    at(500, TraceEvent::NodeOutput { step: 2, stream: Stream::Stdout, data });
    board
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|l| format!("{}\n", l.text)).collect()
}

fn frame(board: &Board, colour: bool) -> Frame<'_> {
    Frame { board, now: Duration::from_millis(1234), colour }
}

#[test]
fn a_running_build() {
    insta::assert_snapshot!(text(&frame(&board(), false).live(Size { columns: 80, rows: 24 })), @r"
    [+] Building 1.2s (2/4)                                                  traced
     => pull debian:12 sha256:0123456789ab                   12.3MB / 50.0MB   1.2s
     => CACHED [base 1/1] FROM busybox                                         0.0s
     => [build 2/3] COPY . /src                                                0.1s
     => [build 3/3] RUN make -j4 all · /src/a.c changed (read by the step)     1.1s
     => => # cc -c a.c
     => => # cc -c b.c -o b.o
     => => # linking 50%
    ");
}

#[test]
fn a_narrow_and_low_terminal() {
    insta::assert_snapshot!(text(&frame(&board(), false).live(Size { columns: 30, rows: 5 })), @r"
    [+] Building 1.2s (2/… traced
     => pull debian:12 sha256:01…
     => ... 2 before
     => [build 3/3] RUN mak… 1.1s
    ");
}

#[test]
fn the_end_of_a_failed_build_keeps_all_lines() {
    let mut board = board();
    let ms = Duration::from_millis;
    board.apply(ms(900), TraceEvent::Warning { message: "no cache was found".into() });
    let outcome = StepOutcome::Failed { message: "exit code: 2".into() };
    board.apply(ms(1000), TraceEvent::NodeDone { step: 2, outcome, duration: ms(909) });
    board.apply(ms(1000), TraceEvent::BuildFinished { ok: false, duration: ms(1000), cached: 1, executed: 1 });
    insta::assert_snapshot!(text(&frame(&board, false).whole(Size { columns: 60, rows: 3 })), @r"
    [+] Building 1.2s (3/4) FAILED                       traced
     => pull debian:12 sha256:012345678… 12.3MB / 50.0MB   1.2s
     => CACHED [base 1/1] FROM busybox                     0.0s
     => [build 2/3] COPY . /src                            0.1s
     => ERROR [build 3/3] RUN make -j4 all                 0.9s
    warning: no cache was found
    ");
}

#[test]
fn colours_are_no_columns() {
    let board = board();
    let plain = frame(&board, false).live(Size { columns: 60, rows: 24 });
    let coloured = frame(&board, true).live(Size { columns: 60, rows: 24 });
    assert!(text(&coloured).contains("\x1b[34m"));
    for (a, b) in plain.iter().zip(&coloured) {
        assert_eq!(a.width, b.width);
        assert_eq!(a.text.width(), a.width);
    }
}

proptest! {
    #[test]
    fn a_live_frame_fits_the_terminal(columns in 1usize..200, rows in 1usize..40, running in 0usize..30, over in 0usize..30, title in "[ -~é日]{0,120}") {
        let mut board = Board::default();
        for step in 0..over {
            board.apply(Duration::ZERO, TraceEvent::NodeCached { step });
        }
        for step in over..over + running {
            board.apply(Duration::ZERO, TraceEvent::NodeExecuting { step, reason: title.clone(), again: step % 2 == 0 });
            let data = format!("{title}\n").repeat(8).into_bytes();
            board.apply(Duration::ZERO, TraceEvent::NodeOutput { step, stream: Stream::Stdout, data });
        }
        let lines = frame(&board, false).live(Size { columns, rows });
        prop_assert!(lines.len() <= rows.saturating_sub(1).max(1));
        for line in &lines {
            prop_assert!(line.width <= columns.saturating_sub(1).max(1), "{:?}", line);
        }
        if rows > 70 + over {
            prop_assert!(lines.len() > running + over);
        }
    }
}
