//! Connections to the database, with a limit on everything that is done with one: waiting for it, opening it, each statement,
//! each transaction. Never hands out a connection whose state is not known: what was interrupted, cancelled or broke is closed,
//! and what was left open is rolled back first.
//!
//! The driver's own pool waits without limit for the answer of a connection that is given back, believes that a transaction is
//! open when SQLite has rolled it back by itself, and asks the server two questions around every statement.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::watched::{State, timed_out};
use super::{ANSWER_MAX, Brake, Raw};
use crate::store::error;

type Options = <Raw as sqlx::Connection>::Options;

/// How long a step waits for a connection before the database counts as unavailable. A request that waits longer is better
/// answered: whoever asked can ask again.
const ACQUIRE_MAX: Duration = Duration::from_secs(5);
/// How long opening a connection may take, the tries while a server refuses included: it spares requests a restart, and the
/// first try after an outage is not late.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long one try may take while the server is away. A server that hangs, and then goes on, answers every try that was ever made,
/// those first that were given up: many short ones would keep each other from an answer.
const PATIENT_MAX: Duration = Duration::from_secs(10);
/// Between two tries to open a connection.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);
/// A connection is replaced after this: what a server keeps for one only grows, and after a failover all find their way back.
const LIFE_MAX: Duration = Duration::from_secs(1_800);

/// A way to the database: so many connections, and how long what goes over them may take. Clones share the connections.
#[derive(Clone)]
pub struct Pool {
    home: Arc<Home>,
    limit: Duration,
    passes: bool,
}

struct Home {
    options: Options,
    permits: Arc<Semaphore>,
    /// Whoever waits for a permit stands in this line; who passes it waits for the permit alone.
    line: Mutex<()>,
    idle: StdMutex<Vec<Live>>,
    /// The last try to open a connection failed.
    is_away: AtomicBool,
    /// Whose turn it is to try while the server is away.
    trying: Arc<Mutex<()>>,
}

struct Live {
    raw: Raw,
    brake: Brake,
    opened: Instant,
}

/// A connection on loan. It goes back by itself.
pub struct Connection {
    live: Option<Live>,
    home: Arc<Home>,
    permit: Option<OwnedSemaphorePermit>,
    limit: Duration,
    /// When its transaction must be over.
    deadline: Option<Instant>,
    is_reused: bool,
    state: State,
}

/// A transaction. Rolled back unless it is committed.
pub struct Transaction(Connection);

/// A connection for one text that begins and commits a transaction by itself. Rolled back unless it is said that it went well.
pub struct Whole(Connection);

impl Pool {
    /// `size` connections at most, opened when they are needed. `limit` is for each statement, and for each transaction as a
    /// whole.
    pub fn new(options: Options, size: u32, limit: Duration) -> Self {
        let home = Home {
            // Statements are told apart by their names in the database's own statistics; in an outage they are noise.
            options: options.disable_statement_logging(),
            permits: Arc::new(Semaphore::new(size as usize)),
            line: Mutex::default(),
            idle: StdMutex::default(),
            is_away: AtomicBool::new(false),
            trying: Arc::default(),
        };
        Self {
            home: Arc::new(home),
            limit,
            passes: false,
        }
    }

    /// The same connections for those who pass the line.
    pub fn passing(&self) -> Self {
        Self {
            passes: true,
            ..self.clone()
        }
    }

    /// The same connections with another limit.
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// A connection that has just answered.
    ///
    /// # Errors
    /// When none is free, or none can be opened, in time.
    pub async fn acquire(&self) -> sqlx::Result<Connection> {
        self.take(true).await
    }

    /// Begins a transaction. The answer to this statement shows as well that the connection is alive.
    ///
    /// # Errors
    /// As [`Self::acquire`], and what the database says.
    pub async fn begin_with(&self, statement: &'static str) -> sqlx::Result<Transaction> {
        loop {
            let mut connection = self.take(false).await?;
            connection.deadline = Some(Instant::now() + self.limit);
            let begun = timeout(ANSWER_MAX, connection.say(statement)).await;
            match begun.unwrap_or_else(|_| Err(timed_out())) {
                Ok(()) => {
                    connection.state.in_transaction = true;
                    return Ok(Transaction(connection));
                }
                // It died while it was idle. Nothing has been done yet.
                Err(_) if connection.is_reused && connection.is_over() => self.home.forget_idle(),
                Err(error) => return Err(error),
            }
        }
    }

    /// A connection for one text that is a transaction by itself. Whether it is alive is not asked: the text is to be one that may
    /// be repeated.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub async fn whole(&self) -> sqlx::Result<Whole> {
        let mut connection = self.take(false).await?;
        connection.deadline = Some(Instant::now() + self.limit);
        connection.state.in_transaction = true;
        Ok(Whole(connection))
    }

    async fn take(&self, is_asked: bool) -> sqlx::Result<Connection> {
        let taken = timeout(ACQUIRE_MAX, self.wait_and_take(is_asked)).await;
        taken.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn wait_and_take(&self, is_asked: bool) -> sqlx::Result<Connection> {
        let turn = match self.passes {
            true => None,
            false => Some(self.home.line.lock().await),
        };
        let permit = Arc::clone(&self.home.permits).acquire_owned().await;
        let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
        drop(turn);
        while let Some(mut live) = self.home.pop() {
            if live.opened.elapsed() > LIFE_MAX {
                continue;
            }
            if !is_asked || matches!(timeout(ANSWER_MAX, live.raw.ping()).await, Ok(Ok(()))) {
                return Ok(self.lend(live, permit, true));
            }
            self.home.forget_idle();
        }
        let (live, is_reused) = self.home.open().await?;
        Ok(self.lend(live, permit, is_reused))
    }

    fn lend(&self, live: Live, permit: OwnedSemaphorePermit, is_reused: bool) -> Connection {
        Connection {
            live: Some(live),
            home: Arc::clone(&self.home),
            permit: Some(permit),
            limit: self.limit,
            deadline: None,
            is_reused,
            state: State::default(),
        }
    }
}

impl Home {
    /// A connection, and whether it was left by somebody. While the server is away one at a time tries.
    async fn open(self: &Arc<Self>) -> sqlx::Result<(Live, bool)> {
        if self.is_away.load(Ordering::Relaxed) {
            let turn = Arc::clone(&self.trying).lock_owned().await;
            if let Some(live) = self.pop() {
                return Ok((live, true));
            }
            if self.is_away.load(Ordering::Relaxed) {
                return Ok((self.try_patiently(turn).await?, false));
            }
        }
        Ok((self.try_for(CONNECT_MAX).await?, false))
    }

    /// Goes on when nobody waits for it any more: what it opens is there for the next one.
    async fn try_patiently(self: &Arc<Self>, turn: OwnedMutexGuard<()>) -> sqlx::Result<Live> {
        let home = Arc::clone(self);
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let opened = home.try_for(PATIENT_MAX).await;
            if let Err(Ok(live)) = tell.send(opened) {
                home.put(live);
            }
            drop(turn);
        });
        told.await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn try_for(&self, limit: Duration) -> sqlx::Result<Live> {
        let opened = timeout(limit, self.connect()).await;
        let opened = opened.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        self.is_away.store(opened.is_err(), Ordering::Relaxed);
        opened
    }

    /// A server that starts refuses at first.
    async fn connect(&self) -> sqlx::Result<Live> {
        loop {
            match self.options.connect().await {
                Ok(mut raw) => {
                    let brake = Brake::fit(&mut raw).await?;
                    return Ok(Live {
                        raw,
                        brake,
                        opened: Instant::now(),
                    });
                }
                Err(error) if error::may_connect_soon(&error) => sleep(CONNECT_AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }

    fn pop(&self) -> Option<Live> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, live: Live) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(live);
    }

    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Connection {
    /// The parts that a statement is run with: the connection, what is known of it, and when the answer must be there.
    pub(super) fn parts(&mut self) -> (&mut Raw, &mut State, Instant) {
        let until = self.deadline.unwrap_or_else(|| Instant::now() + self.limit);
        let live = self
            .live
            .as_mut()
            .expect("a connection has a way until it is given back");
        (&mut live.raw, &mut self.state, until)
    }

    /// A statement without parameters and rows.
    async fn say(&mut self, statement: &'static str) -> sqlx::Result<()> {
        sqlx::raw_sql(statement).execute(self).await.map(drop)
    }

    /// Whether nothing can be done with it any more.
    fn is_over(&self) -> bool {
        self.state.is_busy || self.state.is_broken
    }

    /// What was begun and not committed is undone, which leaves the connection in a known state; one that does not manage
    /// that is closed. The permit is held until then.
    async fn roll_back(mut self) {
        self.deadline = Some(Instant::now() + ANSWER_MAX);
        let undone = self.say("ROLLBACK").await;
        // SQLite rolls back by itself when the disk is full, among others, and then says that there is nothing to undo.
        self.state.is_broken |= !undone.as_ref().err().is_none_or(error::is_no_transaction);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let is_over = self.is_over();
        if self.is_reused && self.state.is_broken {
            // It died while it was idle; the others most likely as well.
            self.home.forget_idle();
        }
        let Some(live) = self.live.take() else { return };
        if is_over {
            // Dropped is closed. A statement that still runs in this process is to stop.
            live.brake.pull();
        } else if !self.state.in_transaction {
            self.home.put(live);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let unfinished = Connection {
                live: Some(live),
                home: Arc::clone(&self.home),
                permit: self.permit.take(),
                limit: self.limit,
                deadline: None,
                is_reused: true,
                state: State::default(),
            };
            runtime.spawn(unfinished.roll_back());
        }
    }
}

impl Transaction {
    /// # Errors
    /// What the database says. Whether it took effect is unknown where no answer came.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        if self.0.state.is_spoilt {
            return Err(sqlx::Error::InvalidArgument(
                "a transaction in which a statement failed is not committed".to_owned(),
            ));
        }
        self.0.say("COMMIT").await?;
        self.0.state.in_transaction = false;
        Ok(())
    }

    /// Undoes it now, where what follows relies on that.
    ///
    /// # Errors
    /// What the database says; it is undone in any case.
    pub async fn rollback(mut self) -> sqlx::Result<()> {
        self.0.say("ROLLBACK").await?;
        self.0.state.in_transaction = false;
        Ok(())
    }
}

impl Whole {
    /// The text went through to its end: the connection is as it was.
    pub fn done(mut self) {
        self.0.state.in_transaction = false;
    }
}

impl Deref for Whole {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Whole {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}
