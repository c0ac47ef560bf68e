//! How many rows a recorded call has.

/// Numbers of rows that calls are recorded for. A picture with guidance brings two rows, so that the even numbers come most; what is between
/// two buckets is filled up, with a third more work at most. Calls of more rows keep a GPU busy without graphs.
const BUCKETS: [i64; 7] = [1, 2, 4, 6, 8, 12, 16];

/// The rows of the call that does for `rows`; none for more than graphs are good for.
pub(super) fn bucket(rows: i64) -> Option<i64> {
    BUCKETS.into_iter().find(|&bucket| bucket >= rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_rows_and_wastes_a_third_at_most() {
        for rows in 1..=16 {
            let bucket = bucket(rows).unwrap();
            assert!(bucket >= rows && 3 * bucket <= 4 * rows + 1, "{rows} rows in a bucket of {bucket}");
        }
        assert_eq!((bucket(2), bucket(16), bucket(17)), (Some(2), Some(16), None));
    }
}
