//! A server for tests of what is sent by HTTP.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
    thread,
};

use serde_json::Value;

/// A server that gives these answers (status, body), and then 200 without a body; gives heads and bodies of requests.
pub(crate) fn server(answers: Vec<(u16, &'static str)>) -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    let mut answers = answers.into_iter();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap() == 0 {
                    break;
                }
            }
            let lines = head.to_ascii_lowercase();
            let length = lines.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap();
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            // Told before it is answered: whoever has an answer finds the request here.
            if sender.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
            let (status, said) = answers.next().unwrap_or((200, ""));
            let length = said.len();
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{said}");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, receiver)
}
