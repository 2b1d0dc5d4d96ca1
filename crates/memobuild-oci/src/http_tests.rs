use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use super::*;

/// A server that answers each request by its method and path, one connection each, and notes what it was asked.
fn serve(answer: impl Fn(&str, &str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let notes = log.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(first) = lines.next() else { continue };
            let headers: Vec<_> = lines.by_ref().take_while(|l| !l.is_empty()).map(|l| l.to_lowercase()).collect();
            let request = first.rsplit_once(' ').unwrap().0.to_owned();
            notes.lock().unwrap().push(request.clone());
            stream.write_all(answer(&request, &headers.join("\n")).as_bytes()).unwrap();
        }
    });
    (url, log)
}

fn ok(body: &str, headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn a_file_has_the_servers_name_and_time() {
    let (url, _) = serve(|_, _| ok("text", "last-modified: Sat, 05 Apr 2003 06:07:08 GMT\r\n"));
    let (_keep, store) = store();
    let fetched = fetch(&format!("{url}/d/f%20x.txt?q=/1#frag"), None, &store).unwrap();
    assert_eq!((fetched.name.as_slice(), fetched.size, fetched.mtime), (&b"f x.txt"[..], 4, Some(1_049_522_828)));
    assert_eq!(store.content(&fetched.content).unwrap().read_all().unwrap(), b"text");
    assert_eq!(fetched.sha256, Sha256Digest::of(b"text"));
}

#[test]
fn an_unchanged_file_is_not_fetched_again() {
    let (url, log) = serve(|request, headers| match request {
        r if r.starts_with("HEAD") && headers.contains("if-none-match: \"v1\"") => {
            "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n".into()
        }
        _ => ok("text", "etag: \"v1\"\r\ncontent-disposition: attachment; filename=\"../x y\"\r\n"),
    });
    let (_keep, store) = store();
    let first = fetch(&format!("{url}/f"), None, &store).unwrap();
    assert_eq!(first.name, b"x y");
    assert_eq!(fetch(&format!("{url}/f"), None, &store).unwrap(), first);
    // With a checksum that is known nobody is asked.
    assert_eq!(fetch(&format!("{url}/f"), Some(&first.sha256), &store).unwrap(), first);
    assert_eq!(*log.lock().unwrap(), ["GET /f", "HEAD /f"]);
}

#[test]
fn failures_name_address_and_status() {
    let (url, _) = serve(|request, _| match request {
        "GET /f" => ok("text", ""),
        _ => "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".into(),
    });
    let (_keep, store) = store();
    let error = fetch(&format!("{url}/none"), None, &store).unwrap_err();
    assert_eq!(error.to_string(), format!("{url}/none: the server answered 404 Not Found"));
    let error = fetch(&format!("{url}/f"), Some(&Sha256Digest::of(b"other")), &store).unwrap_err();
    assert!(error.to_string().contains("digest mismatch"), "{error}");
}

#[test]
fn a_broken_answer_is_asked_for_again() {
    let broken = Mutex::new(2);
    let (url, log) = serve(move |_, _| {
        let mut left = broken.lock().unwrap();
        if *left == 0 {
            return ok("whole text", "");
        }
        *left -= 1;
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nwhole".into()
    });
    let (_keep, store) = store();
    assert_eq!(fetch(&format!("{url}/f"), None, &store).unwrap().size, 10);
    assert_eq!(log.lock().unwrap().len(), 3);
}

#[test]
fn names_are_safe() {
    let name = |url: &str| String::from_utf8(name_of(url)).unwrap();
    assert_eq!(name("http://h/a/b.txt"), "b.txt");
    assert_eq!(name("http://h/a/"), "a");
    assert_eq!(name("http://h"), "download");
    assert_eq!(name("http://h/%2e%2e"), "download");
    assert_eq!(name("http://h/a%2Fb"), "download");
    assert_eq!(file_name("inline; filename*=UTF-8''a%20b; filename=c").as_deref(), Some("a b"));
    assert_eq!(file_name("inline; filename=c.txt").as_deref(), Some("c.txt"));
    assert_eq!(file_name("inline"), None);
}
