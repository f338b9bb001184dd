//! fio writes patterns that it can recognize, by several ways at once, and reads them again.

use davit_cowfs_trials::host::sh;
use davit_tests::scale::scaled;

use crate::Load;

/// One file for each way of writing. All of them are in the lower layer, where the first write copies them up.
const JOBS: &str = "
[global]
size=${SIZE}m
verify=crc32c
verify_fatal=1
randrepeat=1
group_reporting=1
[plain]
filename=plain
ioengine=psync
rw=randwrite
bs=4k
[odd]
filename=odd
ioengine=psync
rw=randwrite
bs=1536
[mapped]
filename=mapped
ioengine=mmap
rw=randwrite
bs=4k
[direct]
filename=direct
ioengine=libaio
iodepth=8
direct=1
rw=randwrite
bs=4k
[large]
filename=large
ioengine=psync
rw=write
bs=1m
fdatasync=4
";

#[test]
fn what_fio_writes_is_read_again() {
    let size = scaled(24);
    let jobs = JOBS.replace("${SIZE}", &size.to_string());
    let fio = "fio --minimal --output=/dev/null --eta=never jobs";
    Load {
        prepare: &|lower| {
            std::fs::write(lower.join("jobs"), &jobs).unwrap();
            sh(
                lower,
                &format!(
                    "for f in plain odd mapped direct large; do head -c {size}M /dev/urandom > $f; done"
                ),
            );
        },
        work: &|root| {
            sh(root, fio);
        },
        verify: &|root| {
            sh(root, &format!("{fio} --verify_only"));
        },
    }
    .run();
}
