//! The two schemas are one: the same tables, columns, keys and indexes, and texts that compare by bytes on both. Also how the
//! claim finds its work among them.

use hikyaku::store::DatabaseUrl;
use hikyaku::store::schema::inspect;

use super::contract;
use super::statements;
use super::world::{LEASE_MS, World, at};

contract! {
    future_work_does_not_stand_in_the_way_of_the_claim,
    an_inspection_names_the_migrations_that_differ,
}

/// Asks both databases, sorts the lines of both, and compares them.
async fn same_on_both(sqlite: &str, postgres: &str) -> usize {
    let (lite, pg) = (World::sqlite().await, World::postgres().await);
    let (mut lite, mut pg) = (lite.sql(sqlite).await, pg.sql(postgres).await);
    lite.sort_unstable();
    pg.sort_unstable();
    let only =
        |here: &[String], there: &[String]| here.iter().filter(|l| !there.contains(l)).cloned().collect::<Vec<_>>();
    assert_eq!((only(&lite, &pg), only(&pg, &lite)), (vec![], vec![]), "only on SQLite, only on PostgreSQL");
    assert_eq!(lite, pg);
    lite.len()
}

#[tokio::test]
async fn a_new_database_file_is_for_its_owner_only() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hikyaku.db");
    let url = DatabaseUrl::parse(&format!("sqlite://{}", path.display())).unwrap();
    let store = hikyaku::store::open(&url).await.unwrap();
    for file in ["hikyaku.db", "hikyaku.db-wal"] {
        let rights = std::fs::metadata(dir.path().join(file)).unwrap().mode() & 0o777;
        assert_eq!(rights, 0o600, "{file}");
    }
    drop(store);
}

#[tokio::test]
async fn both_databases_have_the_same_columns() {
    let n = same_on_both(
        "SELECT m.name, c.name, CASE c.type WHEN 'INTEGER' THEN 'bigint' WHEN 'TEXT' THEN 'text' WHEN 'BLOB' THEN 'bytea'
                ELSE c.type END, c.\"notnull\", COALESCE(c.dflt_value, '')
           FROM sqlite_master m JOIN pragma_table_info(m.name) c
          WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> '_sqlx_migrations'",
        "SELECT table_name, column_name, data_type, CASE is_nullable WHEN 'NO' THEN 1 ELSE 0 END::text,
                COALESCE(replace(column_default, '::text', ''), '')
           FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'",
    )
    .await;
    assert!(n > 100, "{n} columns");
}

#[tokio::test]
async fn both_databases_have_the_same_keys_and_indexes() {
    let n = same_on_both(
        // A single integer key is the table itself on SQLite, without an index.
        "SELECT t, CASE WHEN name LIKE 'sqlite_%' THEN '' ELSE name END, is_unique, is_partial, group_concat(col, ',') FROM (
            SELECT m.name AS t, i.name, i.\"unique\" AS is_unique, i.partial AS is_partial, x.name AS col
              FROM sqlite_master m JOIN pragma_index_list(m.name) i JOIN pragma_index_info(i.name) x
             WHERE m.type = 'table' AND m.name <> '_sqlx_migrations' ORDER BY m.name, i.name, x.seqno)
          GROUP BY t, name, is_unique, is_partial
         UNION ALL
         SELECT m.name, '', 1, 0, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
          WHERE m.type = 'table' AND c.pk = 1 AND c.type = 'INTEGER' AND m.name NOT LIKE 'sqlite_%'
            AND NOT EXISTS (SELECT 1 FROM pragma_index_list(m.name) i WHERE i.origin = 'pk')",
        "SELECT t.relname, CASE WHEN EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
                THEN '' ELSE x.relname END, i.indisunique::int::text, (i.indpred IS NOT NULL)::int::text,
                (SELECT string_agg(a.attname, ',' ORDER BY k.n)
                   FROM unnest(i.indkey::int[]) WITH ORDINALITY AS k (attnum, n)
                   JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum)
           FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
          WHERE t.relnamespace = 'public'::regnamespace AND t.relname <> '_sqlx_migrations'",
    )
    .await;
    assert!(n > 25, "{n} indexes");
}

#[tokio::test]
async fn both_databases_have_the_same_references() {
    let n = same_on_both(
        "SELECT m.name, f.\"from\", f.\"table\", f.\"to\", f.on_delete FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f
          WHERE m.type = 'table'",
        "SELECT k.table_name, k.column_name, u.table_name, u.column_name, r.delete_rule
           FROM information_schema.referential_constraints r
           JOIN information_schema.key_column_usage k ON k.constraint_name = r.constraint_name
           JOIN information_schema.constraint_column_usage u ON u.constraint_name = r.constraint_name",
    )
    .await;
    assert!(n > 4, "{n} references");
}

/// SQLite compares texts by their bytes. A locale such as en_US would page in another order, and find no id below `brd_~`.
#[tokio::test]
async fn texts_in_keys_compare_by_bytes_on_postgresql_too() {
    let w = World::postgres().await;
    let by_locale = w
        .sql(
            "SELECT DISTINCT t.relname, a.attname FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
               JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (i.indkey::int[])
              WHERE t.relnamespace = 'public'::regnamespace AND t.relname <> '_sqlx_migrations'
                AND a.attcollation <> 0 AND a.attcollation <> '\"C\"'::regcollation
                AND (t.relname, a.attname) NOT IN (('jobs', 'kind'), ('contacts', 'status'))",
        )
        .await;
    assert_eq!(by_locale, Vec::<String>::new());
}

async fn future_work_does_not_stand_in_the_way_of_the_claim(w: World) {
    w.ready_broadcast(1, 40, 1).await;
    // Future work of a priority that goes before everything else.
    w.sql(
        "INSERT INTO jobs (broadcast_id, kind, seq, priority, state, run_at, created_at)
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         SELECT b.id, 'deliver', 1000 + n.i, -1, 'waiting', 9000000000000, 0 FROM n CROSS JOIN broadcasts b",
    )
    .await;
    let worker = w.worker(at(0)).await;
    let claim = statements::claim();
    let filled = |text: &str| {
        let values = [
            ("$1", worker.to_string()),
            ("$2", at(LEASE_MS).0.to_string()),
            ("$3", "3".into()),
            ("$4", "'deliver'".into()),
            ("$5", i64::MAX.to_string()),
        ];
        values
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    };
    let plan = if w.is_sqlite() {
        w.sql(&format!("EXPLAIN QUERY PLAN {}", filled(&claim.lite))).await
    } else {
        w.sql("ANALYZE jobs").await;
        w.sql(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {}", filled(&claim.pg)))
            .await
    }
    .join("\n");
    assert!(plan.contains("jobs_ready"), "{plan}");
    for costly in ["TEMP B-TREE", "Sort", "Rows Removed by Filter", "Seq Scan on jobs"] {
        assert!(!plan.contains(costly), "{costly}: {plan}");
    }
    assert_eq!(
        w.claim(worker, hikyaku::domain::job::JobKind::Deliver, 5, at(1))
            .await
            .unwrap()
            .len(),
        5
    );
}

const FROM_THE_FUTURE: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";

async fn an_inspection_names_the_migrations_that_differ(w: World) {
    let url = DatabaseUrl::parse(w.url()).unwrap();
    let here = inspect(&url).await.unwrap().expect("it is there");
    assert!(
        here.engine
            .starts_with(if w.is_sqlite() { "SQLite 3." } else { "PostgreSQL 1" }),
        "{}",
        here.engine
    );
    assert_eq!((here.missing, here.unknown), (vec![], vec![]));
    assert_eq!(here.server_now.is_none(), w.is_sqlite());
    w.sql(FROM_THE_FUTURE).await;
    w.sql("DELETE FROM _sqlx_migrations WHERE version = 1").await;
    let here = inspect(&url).await.unwrap().expect("it is there");
    assert_eq!((here.missing.as_slice(), here.unknown.as_slice()), (&[1][..], &[9999][..]));
}

#[tokio::test]
async fn an_inspection_creates_nothing() {
    let file = crate::support::database::fresh_sqlite();
    let url = DatabaseUrl::parse(&file.url).unwrap();
    assert_eq!(inspect(&url).await.unwrap(), None);
    assert_eq!(inspect(&url).await.unwrap(), None, "nor did the first look make the file");
}
