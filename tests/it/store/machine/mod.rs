//! The store against a pure model of it: random stories of everything that can happen to a queue, the same on both databases, with
//! every answer and every row compared after each step. What fails is shortened to the few steps that it takes.
//!
//! The seed is printed, and `HIKYAKU_TEST_SEED` tells the same stories again; `HIKYAKU_TEST_CASES` tells more of them. The mutants
//! show that it can fail.

mod acts;
mod look;
mod model;
mod real;
mod rules;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use tokio::runtime::Runtime;

use super::world::World;
use crate::support::database::{Raw, fresh_sqlite_in_memory};
use acts::{Happening, Machine};
use real::{Mutant, Real};

/// Stories on each database, unless the time is over before, and steps of a story. More by `HIKYAKU_TEST_CASES`, which has no
/// limit of time.
const CASES: u32 = 200;
const CASES_MIN: u32 = 5;
const TIME_MAX: Duration = Duration::from_secs(25);
const STEPS: std::ops::RangeInclusive<usize> = 20..=120;
/// Stories that a mutant may survive.
const MUTANT_CASES: u32 = 200;
/// Their stories are always the same: whether one is found must not be a matter of luck.
const MUTANT_SEED: u64 = 1;
/// That it is found out is enough; a little shortening makes the story readable.
const MUTANT_SHRINKS: u32 = 20;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn seed() -> u64 {
    let seed = number("HIKYAKU_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("HIKYAKU_TEST_SEED={seed}");
    seed
}

fn runner(seed: u64, cases: u32, shrinks: u32) -> TestRunner {
    let config = Config {
        cases,
        max_shrink_iters: shrinks,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// Tells stories until one goes wrong. Returns how many steps were taken, or what went wrong after which steps.
fn tell(
    runtime: &Runtime,
    w: &World,
    mutant: Option<Mutant>,
    mut runner: TestRunner,
    time_max: Duration,
) -> Result<(u32, u64), (String, Vec<Happening>)> {
    let (n_told, n_steps, started) = (AtomicU32::new(0), AtomicU64::new(0), Instant::now());
    let raw = tokio::sync::Mutex::new(runtime.block_on(Raw::open(w.url())));
    let stories = Machine::sequential_strategy(STEPS);
    let told = runner.run(&stories, |(mut model, happenings, seen)| {
        let is_late = started.elapsed() > time_max && n_told.load(Ordering::Relaxed) >= CASES_MIN;
        // What is shortened is told to its end, however late it is.
        if is_late && seen.is_some() {
            return Ok(());
        }
        runtime.block_on(async {
            let mut raw = raw.lock().await;
            let mut real = Real::anew(w, &mut raw, mutant).await;
            for happening in happenings {
                if let Some(seen) = &seen {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
                model = Machine::apply(model, &happening);
                real.follow(&model).await;
                n_steps.fetch_add(1, Ordering::Relaxed);
            }
            real.wind_up(&model).await;
            n_told.fetch_add(1, Ordering::Relaxed);
            Ok::<_, TestCaseError>(())
        })
    });
    match told {
        Ok(()) => Ok((n_told.load(Ordering::Relaxed), n_steps.load(Ordering::Relaxed))),
        Err(TestError::Fail(why, (_, happenings, _))) => Err((why.to_string(), happenings)),
        Err(TestError::Abort(why)) => panic!("no stories: {why}"),
    }
}

/// The stories commit without end, and kill no machine.
async fn in_memory() -> World {
    World::opened(fresh_sqlite_in_memory()).await
}

fn hold_against_the_model(world: impl AsyncFnOnce() -> World) {
    let seed = seed();
    let runtime = Runtime::new().expect("a runtime can be started");
    let w = runtime.block_on(world());
    let (cases, time_max) = match number("HIKYAKU_TEST_CASES") {
        Some(n) => (n as u32, Duration::MAX),
        None => (CASES, TIME_MAX),
    };
    match tell(&runtime, &w, None, runner(seed, cases, 4_000), time_max) {
        Ok((stories, steps)) => println!("{stories} stories, {steps} steps"),
        Err((why, happenings)) => {
            let steps: Vec<String> = happenings.iter().map(|h| format!("  {h:?}")).collect();
            panic!("HIKYAKU_TEST_SEED={seed}: {why}\nafter\n{}", steps.join("\n"));
        }
    }
}

#[test]
fn the_store_does_what_the_model_does_on_sqlite() {
    hold_against_the_model(in_memory);
}

#[test]
fn the_store_does_what_the_model_does_on_postgres() {
    hold_against_the_model(World::postgres);
}

/// Ten stores that each do one thing wrong: every one of them is found out.
#[test]
fn a_store_that_does_one_thing_wrong_is_found_out() {
    let seed = number("HIKYAKU_TEST_SEED").unwrap_or(MUTANT_SEED);
    let runtime = Runtime::new().expect("a runtime can be started");
    let w = runtime.block_on(in_memory());
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        match tell(&runtime, &w, Some(mutant), runner(seed, MUTANT_CASES, MUTANT_SHRINKS), Duration::MAX) {
            Ok(told) => survivors.push((mutant, told)),
            Err((why, happenings)) => {
                let what = why.lines().next().unwrap_or_default().to_owned();
                println!("{mutant:?} was found out in a story of {} steps: {what}", happenings.len());
            }
        }
    }
    assert!(survivors.is_empty(), "HIKYAKU_TEST_SEED={seed}: not found out: {survivors:?}");
}
