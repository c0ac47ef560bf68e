//! The `Prefer` header (RFC 7240).

use std::time::Duration;

use axum::http::HeaderMap;

/// How long the client would like to wait for its job: the first `wait` among its preferences. A preference that cannot be
/// understood is ignored, as the RFC asks.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(','));
    let mut named = preferences.map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        (name.trim(), value.trim())
    });
    let (_, value) = named.find(|(name, _)| name.eq_ignore_ascii_case("wait"))?;
    seconds(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Whole seconds; more than fit are as many as fit.
fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_of(lines: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("prefer", line.parse().unwrap());
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn wait_is_found_among_other_preferences() {
        assert_eq!(wait_of(&["respond-async, wait=10"]), Some(10));
        assert_eq!(wait_of(&["return=minimal; foo=\"some parameter\"", "Wait = \"7\" ; x=1"]), Some(7));
    }

    #[test]
    fn only_the_first_wait_counts() {
        assert_eq!(wait_of(&["wait=3, wait=9"]), Some(3));
    }

    #[test]
    fn a_wait_that_is_no_number_of_seconds_is_ignored() {
        for bad in ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "waiting=5"] {
            assert_eq!(wait_of(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn a_wait_beyond_all_measure_is_long() {
        assert!(wait_of(&["wait=99999999999999999999999"]) >= Some(u64::from(u32::MAX)));
    }
}
