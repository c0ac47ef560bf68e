//! Clients that only look on: readers of event streams, and connections that rest. As cheap as can be, since they share the machine
//! with the server that is measured.

use std::io::ErrorKind;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

const END: &[u8] = b"event: succeeded";
/// Connections that are opened at a time.
const AT_ONCE: usize = 100;

/// A reader that has read the start of its stream.
pub(crate) struct Reader {
    reading: JoinHandle<(usize, bool)>,
}

impl Reader {
    /// Begins to read the events of a job.
    pub(crate) async fn attach(address: &str, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        Self { reading: tokio::spawn(read(stream)) }
    }

    /// The bytes that it has read when its stream has ended; fails when the end was not told.
    pub(crate) async fn end(self) -> usize {
        let (bytes, told) = self.reading.await.unwrap();
        assert!(told, "a stream ended without the job's end");
        bytes
    }
}

async fn read(mut stream: TcpStream) -> (usize, bool) {
    let (mut buffer, mut kept, mut bytes, mut told) = (vec![0; 16 << 10], 0, 0, false);
    loop {
        let read = stream.read(&mut buffer[kept..]).await.unwrap();
        if read == 0 {
            return (bytes, told);
        }
        let end = kept + read;
        bytes += read;
        told |= buffer[..end].windows(END.len()).any(|window| window == END);
        // What may be the beginning of the end is looked at again.
        kept = END.len().min(end);
        buffer.copy_within(end - kept..end, 0);
    }
}

/// Opens connections that have been answered once and then rest.
pub(crate) async fn resting(address: &str, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::with_capacity(count);
    while open.len() < count {
        let batch = (0..AT_ONCE.min(count - open.len())).map(|_| rest(address));
        open.extend(futures::future::join_all(batch).await);
    }
    open
}

async fn rest(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let (mut buffer, mut read) = ([0; 1024], 0);
    while !buffer[..read].ends_with(b"{\"status\":\"ok\"}") {
        let more = stream.read(&mut buffer[read..]).await.unwrap();
        assert!(more > 0, "the server has hung up");
        read += more;
    }
    stream
}

/// How many of the connections the server has not hung up.
pub(crate) fn still_open(connections: &[TcpStream]) -> usize {
    let is_open = |stream: &&TcpStream| matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    connections.iter().filter(is_open).count()
}
