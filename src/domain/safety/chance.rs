//! Whether a share is more than is allowed, or whether chance alone may have made it look so. Pure.

/// The probability with which a share that stays at its limit, or below it, is taken for more within one window, or over all. A broadcast
/// of a million messages has a thousand windows and two limits: it is stopped by chance in two cases of a thousand at most.
pub const BY_CHANCE: f64 = 1e-6;

/// Whether the true share is above the limit, however often it was looked at on the way.
///
/// Each outcome multiplies the wealth of a gambler who bets that the share is another than the limit (Krichevsky and Trofimov's bets).
/// Where the share is the limit, the wealth ever grows to `1 / BY_CHANCE` with probability [`BY_CHANCE`] at most (Ville's inequality); where
/// it is less, there are fewer failures still. After n outcomes the wealth is at least `exp(n · d) / (2 √n)`, d being the divergence of the
/// share that is seen from the limit.
#[must_use]
pub fn surely_exceeds(failed: i64, of: i64, percent: u8) -> bool {
    let (n, limit) = (of as f64, f64::from(percent) / 100.0);
    if failed <= 0 || of <= 0 || limit >= 1.0 {
        return false;
    }
    let seen = (failed as f64 / n).min(1.0);
    if seen <= limit {
        return false;
    }
    // Nothing at all is allowed: one is more.
    if limit == 0.0 {
        return true;
    }
    n * divergence(seen, limit) >= (2.0 * n.sqrt() / BY_CHANCE).ln()
}

/// Kullback and Leibler's, of two coins.
fn divergence(seen: f64, limit: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    part(seen, limit) + part(1.0 - seen, 1.0 - limit)
}
