//! A client that writes to the socket byte by byte, for what no good client does.

use std::io::ErrorKind;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{PATIENCE, TestApp};

/// One TCP connection to a server.
pub(crate) struct Raw(TcpStream);

/// One answer.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Raw {
    pub(crate) async fn connect(app: &TestApp) -> Self {
        Self(TcpStream::connect(app.url.strip_prefix("http://").unwrap()).await.unwrap())
    }

    /// Sends bytes; `false` when the server has hung up.
    pub(crate) async fn send(&mut self, text: &str) -> bool {
        self.0.write_all(text.as_bytes()).await.is_ok()
    }

    /// Asks for a path and reads the answer.
    pub(crate) async fn get(&mut self, path: &str) -> RawAnswer {
        assert!(self.send(&head("GET", path)).await);
        self.answer().await
    }

    /// Reads one answer that has a length.
    pub(crate) async fn answer(&mut self) -> RawAnswer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte().await.expect("the server has hung up"));
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |bytes| bytes.parse().unwrap());
        let mut body = vec![0; length];
        timeout(PATIENCE, self.0.read_exact(&mut body)).await.expect("no body comes").unwrap();
        RawAnswer { status: head[9..12].parse().unwrap(), body: String::from_utf8(body).unwrap() }
    }

    /// The next byte; `None` when the server has hung up.
    pub(crate) async fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match timeout(PATIENCE, self.0.read(&mut byte)).await.expect("nothing comes, and the server does not hang up") {
            Ok(0) => None,
            Ok(_) => Some(byte[0]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether anything has come and is not read yet. Never waits.
    pub(crate) fn has_unread(&self) -> bool {
        self.0.try_read(&mut [0]).is_ok()
    }
}

/// A request's head, whole and with no body.
pub(crate) fn head(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}
