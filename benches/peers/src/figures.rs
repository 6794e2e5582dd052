//! Medians and ratios of raw results.
//!
//! A ratio is taken within each round, where both were measured one after the other; then the
//! median of the rounds is taken. So what the machine did meanwhile falls out as far as it can.

use serde_json::Value;

/// Which figure of an outcome is meant: the names on the way to it.
pub(crate) type Path<'a> = &'a [&'a str];

/// Pairs in a second.
pub(crate) const PER_SECOND: Path<'static> = &["pairs_per_second"];
/// The server's time on the CPU for each pair, in nanoseconds.
pub(crate) const CPU: Path<'static> = &["server_cpu_ns_per_pair"];
/// The same of whoever asks.
pub(crate) const OWN_CPU: Path<'static> = &["own_cpu_ns_per_pair"];
/// Half of the requests were granted within this, in nanoseconds.
pub(crate) const ACQUIRE_P50: Path<'static> = &["acquire_ns", "p50"];

/// The results of a comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison<'a>(pub(crate) &'a Value);

impl Comparison<'_> {
    /// The figure in each round, for one service and workload.
    fn rounds(self, workload: &str, peer: &str, path: Path) -> Vec<(u64, f64)> {
        let results = self.0["results"].as_array().map_or(&[][..], Vec::as_slice);
        let ours = results.iter().filter(|it| it["workload"] == workload && it["peer"] == peer);
        let figure = |it: &Value| {
            let figure = path.iter().fold(&it["outcome"], |at, name| &at[*name]);
            Some((it["round"].as_u64()?, figure.as_f64()?))
        };
        ours.filter_map(figure).collect()
    }

    /// The median of the rounds.
    pub(crate) fn median(self, workload: &str, peer: &str, path: Path) -> Option<f64> {
        median(self.rounds(workload, peer, path).into_iter().map(|(_, figure)| figure).collect())
    }

    /// The median of the ratios of the rounds. Each side is a workload, a service and a figure.
    pub(crate) fn ratio(
        self,
        (workload, peer, path): (&str, &str, Path),
        (other_workload, other_peer, other_path): (&str, &str, Path),
    ) -> Option<f64> {
        let others = self.rounds(other_workload, other_peer, other_path);
        let ratio = |(round, figure): (u64, f64)| {
            let (_, other) = others.iter().find(|(it, _)| *it == round)?;
            (*other > 0.0).then(|| figure / other)
        };
        median(self.rounds(workload, peer, path).into_iter().filter_map(ratio).collect())
    }
}

/// The one in the middle; of an even number, the mean of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        len if len % 2 == 1 => Some(figures[middle]),
        _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn ratios_are_taken_within_each_round() {
        let result = |round, peer, figure| {
            json!({
                "round": round, "workload": "w", "peer": peer,
                "outcome": { "pairs_per_second": figure },
            })
        };
        // The machine was twice as slow in the second round, and the third lacks its counterpart.
        let results = json!({ "results": [
            result(1, "a", 90.0), result(1, "b", 100.0),
            result(2, "a", 45.0), result(2, "b", 50.0),
            result(3, "a", 1.0),
        ]});
        let all = Comparison(&results);
        assert_eq!(all.ratio(("w", "a", PER_SECOND), ("w", "b", PER_SECOND)), Some(0.9));
        assert_eq!(all.median("w", "b", PER_SECOND), Some(75.0));
        assert_eq!(all.median("w", "c", PER_SECOND), None);
    }
}
