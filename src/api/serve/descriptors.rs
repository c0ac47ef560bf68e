//! File descriptors: each connection takes one.

/// Descriptors for everything else: the database, pictures that are written or read, the event loop.
const OTHERS: u64 = 256;

/// Raises the process's limit of open files so that `connections` fit, as far as the system lets it; answers how many do.
pub(super) fn for_connections(connections: usize) -> usize {
    let needed = (connections as u64).saturating_add(OTHERS);
    let limit = match rlimit::increase_nofile_limit(needed) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be read; server.max_connections may be more than fit");
            return connections;
        }
    };
    let fit = usize::try_from(limit.saturating_sub(OTHERS)).unwrap_or(usize::MAX).clamp(1, connections);
    if fit < connections {
        tracing::warn!(
            files.limit = limit,
            files.needed = needed,
            connections = fit,
            "server.max_connections does not fit into the limit of open files (ulimit -n); fewer connections are taken in"
        );
    }
    fit
}
