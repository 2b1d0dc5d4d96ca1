//! A client of `/ws`.

use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, client::IntoClientRequest as _, handshake::client::Request};

use crate::client::connect;

pub type Socket = WebSocket<TcpStream>;

pub fn request(addr: SocketAddr, headers: &[(&'static str, &str)]) -> Request {
    let mut request = format!("ws://{addr}/ws").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

/// A socket, or the status of the refusal.
pub fn open(addr: SocketAddr, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    match tungstenite::client::client(request(addr, headers), connect(addr)) {
        Ok((socket, response)) => {
            assert_eq!(response.headers()["x-memobuild-api-version"], "1.0");
            Ok(socket)
        }
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(other) => panic!("{other}"),
    }
}

/// The next message; pings are answered on the way.
pub fn next(socket: &mut Socket) -> Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

/// Asks for the steps of this build. What was told of others before the answer is skipped.
pub fn watch(socket: &mut Socket, id: Option<&str>) {
    socket.send(Message::text(json!({ "watch": id }).to_string())).unwrap();
    let answer = loop {
        let told = next(socket);
        if told["type"] != "build" {
            break told;
        }
    };
    assert_eq!(answer, json!({ "type": "watching", "build": id }));
}
