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

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use tokio::runtime::Runtime;

use super::world::World;
use crate::support::database::Raw;
use acts::{Happening, Machine};
use real::{Mutant, Real};

/// Stories on each database, and steps of a story at most. More by `HIKYAKU_TEST_CASES`.
const CASES: u32 = 24;
const STEPS_MAX: usize = 100;
/// Stories that a mutant may survive.
const MUTANT_CASES: u32 = 60;
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
) -> Result<u64, (String, Vec<Happening>)> {
    let n_steps = AtomicU64::new(0);
    let raw = tokio::sync::Mutex::new(runtime.block_on(Raw::open(w.url())));
    let stories = Machine::sequential_strategy(1..=STEPS_MAX);
    let told = runner.run(&stories, |(mut model, happenings, seen)| {
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
            Ok::<_, TestCaseError>(())
        })
    });
    match told {
        Ok(()) => Ok(n_steps.load(Ordering::Relaxed)),
        Err(TestError::Fail(why, (_, happenings, _))) => Err((why.to_string(), happenings)),
        Err(TestError::Abort(why)) => panic!("no stories: {why}"),
    }
}

fn hold_against_the_model(world: impl AsyncFnOnce() -> World) {
    let seed = seed();
    let runtime = Runtime::new().expect("a runtime can be started");
    let w = runtime.block_on(world());
    let cases = number("HIKYAKU_TEST_CASES").map_or(CASES, |n| n as u32);
    match tell(&runtime, &w, None, runner(seed, cases, 4_000)) {
        Ok(steps) => println!("{cases} stories, {steps} steps"),
        Err((why, happenings)) => {
            let steps: Vec<String> = happenings.iter().map(|h| format!("  {h:?}")).collect();
            panic!("HIKYAKU_TEST_SEED={seed}: {why}\nafter\n{}", steps.join("\n"));
        }
    }
}

#[test]
fn the_store_does_what_the_model_does_on_sqlite() {
    hold_against_the_model(World::sqlite);
}

#[test]
fn the_store_does_what_the_model_does_on_postgres() {
    hold_against_the_model(World::postgres);
}

/// Ten stores that each do one thing wrong: every one of them is found out.
#[test]
fn a_store_that_does_one_thing_wrong_is_found_out() {
    let seed = seed();
    let runtime = Runtime::new().expect("a runtime can be started");
    let w = runtime.block_on(World::sqlite());
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        match tell(&runtime, &w, Some(mutant), runner(seed, MUTANT_CASES, MUTANT_SHRINKS)) {
            Ok(steps) => survivors.push((mutant, steps)),
            Err((why, happenings)) => {
                let what = why.lines().next().unwrap_or_default().to_owned();
                println!("{mutant:?} was found out in a story of {} steps: {what}", happenings.len());
            }
        }
    }
    assert!(survivors.is_empty(), "HIKYAKU_TEST_SEED={seed}: not found out: {survivors:?}");
}
