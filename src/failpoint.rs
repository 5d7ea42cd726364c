//! Named points at which a process can be made to die, for the tests of crashes: `FAILPOINTS='end-of-data=3*off->return'` lets
//! the point pass three times and dies at the fourth. Only with the cargo feature `failpoints`; without it, as in every
//! release, a point is no code at all.

/// A point: the process dies here when it was told to. With a block, the block is done first.
macro_rules! point {
    ($name:literal) => {
        point!($name, {})
    };
    ($name:literal, $last:block) => {
        #[cfg(feature = "failpoints")]
        if $crate::failpoint::is_reached($name) {
            $last
            $crate::failpoint::die();
        }
    };
}

/// Whether a process is to die at one of these points: where only one of two ways has them, that one is taken. Never in a release.
macro_rules! armed {
    ($($name:literal),+) => {{
        #[cfg(feature = "failpoints")]
        let is_armed = $crate::failpoint::is_any_armed(&[$($name),+]);
        #[cfg(not(feature = "failpoints"))]
        let is_armed = false;
        is_armed
    }};
}

/// Reads `FAILPOINTS`. The points are armed for as long as the value lives.
#[cfg(feature = "failpoints")]
pub fn arm() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// Whether this is the time to die.
#[cfg(feature = "failpoints")]
pub fn is_reached(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    false
}

/// Whether any of these points was named in `FAILPOINTS`.
#[cfg(feature = "failpoints")]
pub fn is_any_armed(names: &[&str]) -> bool {
    fail::list().iter().any(|(name, _)| names.contains(&name.as_str()))
}

/// As when somebody else kills: nothing is flushed, nothing is dropped.
#[cfg(feature = "failpoints")]
pub fn die() -> ! {
    let me = rustix::process::getpid();
    // It cannot fail, and there is nothing to be done if it does.
    let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}
