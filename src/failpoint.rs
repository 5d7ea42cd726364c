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
