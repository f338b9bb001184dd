//! SQLite: processes that write at the same time to a database that comes from the lower layer.

use davit_cowfs_trials::host::sh;
use davit_tests::scale::scaled;

use crate::Load;

const WRITERS: usize = 4;
const ROWS: usize = 20;

/// `mode` is how SQLite keeps its promise when it is killed: a rollback journal, or a log with an index in shared memory.
fn concurrent_writers(mode: &str) {
    let transactions = scaled(60);
    Load {
        prepare: &|lower| {
            sh(
                lower,
                &format!(
                    "sqlite3 db \"pragma journal_mode={mode}; create table t(id integer primary key, who int, text text);
                     create index i on t(text);
                     with recursive n(i) as (select 1 union all select i+1 from n where i < 20000)
                     insert into t(who, text) select 0, hex(randomblob(20)) from n;\""
                ),
            );
        },
        work: &|root| {
            let script = format!(
                "write() {{
                   echo '.timeout 120000'; echo 'pragma synchronous=full;'
                   for t in $(seq {transactions}); do
                     echo 'begin immediate;'
                     for r in $(seq {ROWS}); do echo \"insert into t(who, text) values ($1, hex(randomblob(20)));\"; done
                     echo \"update t set text = hex(randomblob(20)) where id = $t * 7;\"
                     echo 'commit;'
                   done
                 }}
                 for w in $(seq {WRITERS}); do write $w | sqlite3 -bail db > log$w 2>&1 & pids=\"$pids $!\"; done
                 for p in $pids; do wait $p; done
                 cat log*"
            );
            assert_eq!(sh(root, &script), "");
        },
        verify: &|root| {
            let expected = 20_000 + WRITERS * transactions * ROWS;
            let found = sh(root, "sqlite3 db 'pragma integrity_check; select count(*) from t;'");
            assert_eq!(found, format!("ok\n{expected}"));
        },
    }
    .run();
}

#[test]
fn sqlite_with_a_rollback_journal_stays_whole() {
    concurrent_writers("delete");
}

#[test]
fn sqlite_with_a_write_ahead_log_stays_whole() {
    concurrent_writers("wal");
}
