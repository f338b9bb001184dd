//! git: clones of a repository with many files, with and without hard links, and everything rewritten.

use davit_cowfs_trials::host::sh;
use davit_tests::scale::scaled;

use crate::Load;

const GIT: &str = "export HOME=/nonexistent GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com \
     GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com\n";

#[test]
fn clones_of_a_large_repository_are_whole() {
    let files = scaled(6000);
    let git = |script: &str| format!("{GIT}{script}");
    Load {
        prepare: &|lower| {
            sh(
                lower,
                &git(&format!(
                    "git init -q -b main origin; cd origin
                     # Nothing may go on in the background when the layer is finished.
                     git config gc.auto 0; git config maintenance.auto false
                     fill() {{ awk -v n={files} -v c=$1 'BEGIN {{ srand(c); for (i = 0; i < n; i++) if (c == 0 || i % 50 == c) {{
                       f = sprintf(\"d%02d/e%02d/file%05d\", i % 40, i / 40 % 20, i); if (c == 0) print f;
                       else {{ for (l = 0; l < 20; l++) print rand() > f; close(f) }} }} }}'; }}
                     fill 0 | xargs -n 500 dirname | sort -u | xargs mkdir -p
                     for c in $(seq 0 49); do fill $((c == 0 ? 50 : c)); done
                     awk -v n={files} 'BEGIN {{ for (i = 0; i < n; i++) {{ f = sprintf(\"d%02d/e%02d/file%05d\", i % 40, i / 40 % 20, i);
                       for (l = 0; l < 10; l++) print i, l > f; close(f) }} }}'
                     git add .; git commit -qm first
                     for c in 1 2 3 4 5; do fill $c; git mv d0$c moved$c; git commit -qam change$c; git tag t$c; done"
                )),
            );
        },
        work: &|root| {
            sh(
                root,
                &git(
                    "git clone -q --no-hardlinks origin copy
                     git clone -q origin linked
                     cd copy
                     for t in t1 t4 t2 t5 t3; do git checkout -q $t; test -z \"$(git status --porcelain)\"; done
                     git checkout -q main; git repack -qad; git gc -q --prune=now
                     cd ../origin
                     git checkout -q t1; git checkout -q main; git gc -q --aggressive --prune=now",
                ),
            );
        },
        verify: &|root| {
            let script = "for r in origin copy linked; do (cd $r; git fsck --full --strict 2>&1; git status --porcelain); done
                 diff -r --exclude=.git origin copy; diff -r --exclude=.git origin linked";
            assert_eq!(sh(root, &git(script)), "");
        },
    }
    .run();
}
