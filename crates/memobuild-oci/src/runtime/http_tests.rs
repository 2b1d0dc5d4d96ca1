use std::{os::unix::net::UnixListener, thread};

use super::*;

const WAIT: Duration = Duration::from_secs(5);

/// A server for one connection: reads up to the end of the request's head and answers with these bytes.
fn server(answer: &'static [u8]) -> (tempfile::TempDir, Client, thread::JoinHandle<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let handle = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        let chunked = |seen: &[u8]| String::from_utf8_lossy(seen).contains("chunked");
        while !seen.ends_with(if chunked(&seen) { b"0\r\n\r\n" } else { b"\r\n\r\n" }) {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                count => seen.extend_from_slice(&buffer[..count]),
            }
        }
        stream.write_all(answer).unwrap();
        seen
    });
    (dir, Client::new(Address::Unix(path)), handle)
}

fn get(answer: &'static [u8]) -> Result<(u16, Vec<u8>), ClientError> {
    let (_dir, client, handle) = server(answer);
    let answer = client.call("GET", "/x", WAIT);
    handle.join().unwrap();
    let answer = answer?;
    Ok((answer.status, answer.bytes(100)?))
}

#[test]
fn each_way_to_end_a_body() {
    let is = |answer, status, body: &[u8]| assert_eq!(get(answer).unwrap(), (status, body.to_vec()));
    is(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", 200, b"abc");
    is(b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: Chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 404, b"abc");
    is(b"HTTP/1.0 200\r\n\r\nabc", 200, b"abc");
    is(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"");
    is(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 201, b"");
}

#[test]
fn bad_answers_are_errors() {
    let bad: [&[u8]; 9] = [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 xyz\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    ];
    for answer in bad {
        assert!(get(answer).is_err(), "{}", String::from_utf8_lossy(answer));
    }
}

#[test]
fn a_body_that_is_too_long_is_not_kept() {
    let answer: &[u8] = Box::leak([b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; 101]].concat().into_boxed_slice());
    assert!(matches!(get(answer), Err(ClientError::Malformed { .. })));
}

#[test]
fn a_body_is_sent_in_chunks() {
    let (_dir, client, handle) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let long = vec![b'y'; CHUNK + 5];
    let sent = client.upload("/load?q=1", "application/x-tar", WAIT, |out| out.write_all(&long));
    assert_eq!(sent.map_err(|_| ()).unwrap().bytes(10).unwrap(), b"ok");
    let seen = handle.join().unwrap();
    let text = String::from_utf8(seen).unwrap();
    assert!(text.starts_with("POST /load?q=1 HTTP/1.1\r\nHost: localhost\r\n"), "{}", &text[..200]);
    let body = text.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body, format!("40000\r\n{}\r\n5\r\nyyyyy\r\n0\r\n\r\n", "y".repeat(CHUNK)));
}

#[test]
fn a_body_that_can_not_be_made_is_never_ended() {
    let (_dir, client, handle) = server(b"");
    let sent = client.upload("/load", "x/y", WAIT, |out| {
        out.write_all(b"begun").unwrap();
        Err("source is gone")
    });
    assert!(matches!(sent, Err(UploadError::Body("source is gone"))));
    assert!(!handle.join().unwrap().ends_with(b"0\r\n\r\n"));
}

#[test]
fn a_server_that_hangs_up_on_a_body_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let handle = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The head is taken, so that it is the body that meets the closed connection.
        assert!(read_head(&mut BufReader::new(&stream)).unwrap().starts_with(b"POST /load "));
        stream.write_all(b"HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull").unwrap();
    });
    let client = Client::new(Address::Unix(path));
    let mut tried = 0;
    let sent = client.upload("/load", "x/y", WAIT, |out| {
        loop {
            tried += 1;
            out.write_all(&[0; 64 * 1024])?;
        }
        #[allow(unreachable_code, reason = "gives the closure its type")]
        Ok::<(), io::Error>(())
    });
    handle.join().unwrap();
    // Some systems throw the answer away with the connection; then the broken connection is what is reported.
    match sent {
        Ok(answer) => assert_eq!((answer.status, answer.bytes(10).unwrap()), (507, b"full".to_vec())),
        Err(UploadError::Client(error)) => assert!(matches!(error, ClientError::Broken { .. }), "{error:?}"),
        Err(UploadError::Body(error)) => panic!("{error}"),
    }
    assert!(tried > 1);
}

#[test]
fn a_server_that_hangs_up_before_the_head_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let (gone, is_gone) = std::sync::mpsc::channel();
    let client = Client::new(Address::Unix(path));
    let handle = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy").unwrap();
        drop(stream);
        gone.send(()).unwrap();
    });
    let stream = client.connect(WAIT).unwrap();
    is_gone.recv().unwrap();
    handle.join().unwrap();
    let sent = client.upload_on(stream, "/load", "x/y", WAIT, |_| Ok::<(), io::Error>(()));
    assert_eq!(sent.unwrap().bytes(10).unwrap(), b"busy");
}

#[test]
fn silence_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let client = Client::new(Address::Unix(path));
    let answer = client.call("GET", "/", Duration::from_millis(50));
    assert!(matches!(answer, Err(ClientError::TimedOut { .. })));
    let client = Client::new(Address::Unix(dir.path().join("none")));
    assert!(matches!(client.call("GET", "/", WAIT), Err(ClientError::Connect { .. })));
}

#[test]
fn values_of_queries_are_encoded() {
    assert_eq!(encoded("host:5000/a b&c=d/é~1"), "host%3A5000%2Fa%20b%26c%3Dd%2F%C3%A9~1");
}
