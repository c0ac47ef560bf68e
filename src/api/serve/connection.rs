//! One connection, from its first byte to its last.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    Router,
    body::{Body, Bytes},
};
use hyper::{
    Request,
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    ServeSettings,
    clock::{Alarm, Clock, InFlight},
};

/// The longest head of a request, in bytes, and the most headers in it; hyper answers 431 to more.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 100;
/// The most bytes of a connection that are read ahead, and that wait to be written beside one piece of an answer.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// Answers the requests of one connection until it ends, keeps the server waiting for too long, or `hang_up` says that it is enough.
pub(super) async fn serve(stream: TcpStream, router: Router, settings: Arc<ServeSettings>, hang_up: CancellationToken) {
    // An event is to leave at once. A socket that refuses this is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let clock = Clock::new(settings.clone());
    let mut stream = TimeoutWriter::new(Watched { stream, clock: clock.clone() });
    stream.set_timeout(Some(settings.write_timeout));
    let service = service_fn({
        let clock = clock.clone();
        move |request| answer(router.clone(), request, clock.begin())
    });
    let mut connection = pin!(builder().serve_connection(TokioIo::new(Box::pin(stream)), service));
    let mut alarm = Alarm::new(clock.clone());
    let mut is_ending = false;
    loop {
        tokio::select! {
            biased;
            // How it ended is of interest to its client only.
            ended = &mut connection => return tracing::debug!(error = ended.err().map(tracing::field::display), "connection ended"),
            () = poll_fn(|context| alarm.poll(context)) => return tracing::debug!("hung up on a client that kept silent"),
            () = hang_up.cancelled(), if !is_ending => {
                // hyper would wait for the first request of a new connection.
                if clock.is_new() {
                    return;
                }
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// hyper's own header timeout is off: see [`super::clock`].
fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_header_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS).max_buf_size(MAX_BUFFER_BYTES);
    builder
}

async fn answer(
    router: Router,
    request: Request<Incoming>,
    in_flight: Arc<InFlight>,
) -> Result<hyper::Response<Held<Body>>, std::convert::Infallible> {
    let request = request.map(|body| Body::new(Held { body, _in_flight: in_flight.clone() }));
    let response = router.oneshot(request).await?;
    Ok(response.map(|body| Held { body, _in_flight: in_flight }))
}

/// A body that keeps its request in flight as long as somebody holds it.
struct Held<B> {
    body: B,
    _in_flight: Arc<InFlight>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that tells the clock what comes and goes.
struct Watched {
    stream: TcpStream,
    clock: Arc<Clock>,
}

impl Watched {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let bytes = ready!(written)?;
        self.clock.told();
        Poll::Ready(Ok(bytes))
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.clock.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
