//! What a node's admin address says. HTTP/1.0 by hand: a request line, an answer, the end.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_millis(700);
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readiness {
    Ready,
    /// It answers, and says why it is not ready.
    NotReady(String),
    /// It does not answer in time, or not at all.
    Silent,
}

/// Asks whether a node takes requests.
pub fn readiness(admin: SocketAddr) -> Readiness {
    match get(admin, "/readyz") {
        Ok((200, _)) => Readiness::Ready,
        Ok((_, reason)) => Readiness::NotReady(reason.trim().to_string()),
        Err(_) => Readiness::Silent,
    }
}

/// The status and the body of one page.
pub fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {admin}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn serve_once(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let length = stream.read(&mut asked).unwrap();
            assert!(asked[..length].starts_with(b"GET /readyz HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn answers_as_they_are() {
        assert_eq!(readiness(serve_once("HTTP/1.0 200 OK\r\nA: b\r\n\r\nready")), Readiness::Ready);
        let waiting = serve_once("HTTP/1.1 503 Service Unavailable\r\n\r\nno link to n2\n");
        assert_eq!(readiness(waiting), Readiness::NotReady("no link to n2".to_string()));
        assert_eq!(readiness(serve_once("SSH-2.0\r\n")), Readiness::Silent);
    }

    #[test]
    fn nobody_there_or_nothing_said() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(readiness(address), Readiness::Silent);
        drop(listener);
        assert_eq!(readiness(address), Readiness::Silent);
    }
}
