//! Statements on a connection, each with a limit. Takes note of what each leaves the connection in, and of a statement that was
//! given up before its end.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::{self, BoxFuture};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use sqlx::{Database, Describe, Either, Execute, Executor, SqlStr};
use tokio::time::{Sleep, sleep_until, timeout_at};

use super::Db;
use super::pool::{Connection, Pool};
use crate::store::error;

type Answer = Either<<Db as Database>::QueryResult, <Db as Database>::Row>;
type Answers<'a> = BoxStream<'a, sqlx::Result<Answer>>;

/// What is known of a connection.
#[derive(Default)]
pub(super) struct State {
    /// A statement is under way: nobody knows how far it is.
    pub is_busy: bool,
    /// Something happened after which the connection is of no use.
    pub is_broken: bool,
    pub in_transaction: bool,
    /// A statement of the transaction failed. SQLite has rolled back by itself after some failures, and what followed would be
    /// written without a transaction; PostgreSQL answers a commit with a rollback and calls it a success.
    pub is_spoilt: bool,
}

impl State {
    fn heed(&mut self, error: &sqlx::Error) {
        self.is_busy = false;
        self.is_broken |= error::breaks_connection(error);
        self.is_spoilt |= self.in_transaction;
    }
}

pub(super) fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Db;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Answers<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Db>,
    {
        let (raw, state, until) = self.parts();
        if state.is_spoilt {
            return stream::once(future::ready(Err(spoilt()))).boxed();
        }
        state.is_busy = true;
        Box::pin(Watched {
            answers: raw.fetch_many(query),
            limit: Box::pin(sleep_until(until)),
            state,
            is_over: false,
        })
    }

    /// Reads to the end: a statement that writes and returns a row has not committed when the row comes, and it may still fail.
    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<<Db as Database>::Row>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Db>,
    {
        Box::pin(first_row(self.fetch_many(query)))
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [<Db as Database>::TypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<<Db as Database>::Statement>>
    where
        'c: 'e,
    {
        let (raw, state, until) = self.parts();
        state.is_busy = true;
        Box::pin(async move {
            let prepared = timeout_at(until, raw.prepare_with(sql, parameters)).await;
            let prepared = prepared.map_err(|_| timed_out())?;
            state.is_busy = false;
            prepared.inspect_err(|error| state.heed(error))
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Db>>>
    where
        'c: 'e,
    {
        let (raw, state, until) = self.parts();
        state.is_busy = true;
        Box::pin(async move {
            let described = timeout_at(until, raw.describe(sql)).await;
            let described = described.map_err(|_| timed_out())?;
            state.is_busy = false;
            described.inspect_err(|error| state.heed(error))
        })
    }
}

impl<'c> Executor<'c> for &Pool {
    type Database = Db;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Answers<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Db>,
    {
        let pool = self.clone();
        let answers = async move {
            let mut connection = pool.acquire().await?;
            let answers: Vec<Answer> = connection.fetch_many(query).try_collect().await?;
            Ok::<_, sqlx::Error>(stream::iter(answers.into_iter().map(Ok)))
        };
        stream::once(answers).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<<Db as Database>::Row>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Db>,
    {
        Box::pin(first_row(self.fetch_many(query)))
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [<Db as Database>::TypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<<Db as Database>::Statement>>
    where
        'c: 'e,
    {
        let pool = self.clone();
        Box::pin(async move { pool.acquire().await?.prepare_with(sql, parameters).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Db>>>
    where
        'c: 'e,
    {
        let pool = self.clone();
        Box::pin(async move { pool.acquire().await?.describe(sql).await })
    }
}

async fn first_row(mut answers: Answers<'_>) -> sqlx::Result<Option<<Db as Database>::Row>> {
    let mut first = None;
    while let Some(answer) = answers.try_next().await? {
        if let Either::Right(row) = answer {
            first = first.or(Some(row));
        }
    }
    Ok(first)
}

fn spoilt() -> sqlx::Error {
    sqlx::Error::InvalidArgument("a statement of this transaction failed before".to_owned())
}

/// The answers to one statement. Left before its end, the connection stays busy, and is closed when it is given back.
struct Watched<'a> {
    answers: Answers<'a>,
    limit: Pin<Box<Sleep>>,
    state: &'a mut State,
    is_over: bool,
}

impl Stream for Watched<'_> {
    type Item = sqlx::Result<Answer>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let answer = match self.answers.poll_next_unpin(context) {
            Poll::Ready(answer) => answer,
            Poll::Pending if self.limit.as_mut().poll(context).is_pending() => return Poll::Pending,
            Poll::Pending => {
                self.is_over = true;
                return Poll::Ready(Some(Err(timed_out())));
            }
        };
        match &answer {
            Some(Ok(_)) => return Poll::Ready(answer),
            Some(Err(error)) => self.state.heed(error),
            None => self.state.is_busy = false,
        }
        self.is_over = true;
        Poll::Ready(answer)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}
