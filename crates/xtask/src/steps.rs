//! What CI checks, step by step.

use crate::ci::{Outcome, TestCount};
use crate::command::{cargo, command, output_of, run, run_seeing};
use crate::{house, python, tools, typescript};

/// One thing that CI checks.
pub(crate) struct Step {
    /// As it is chosen on the command line.
    pub(crate) name: &'static str,
    /// In a few words, for a heading.
    pub(crate) what: &'static str,
    /// Looks.
    pub(crate) run: fn() -> anyhow::Result<Outcome>,
}

/// Everything that CI checks, in its order: what fails often and fast comes first.
pub(crate) const ALL: [Step; 13] = [
    Step { name: "fmt", what: "the code is formatted", run: fmt },
    Step { name: "house", what: "the rules of the house", run: house::check },
    Step { name: "clippy", what: "no warnings", run: clippy },
    Step { name: "doc", what: "the documentation builds, no link is broken", run: doc },
    Step { name: "test", what: "all tests, documentation included", run: test },
    Step {
        name: "python",
        what: "the Python client, at the oldest and the newest it supports",
        run: python::check,
    },
    Step {
        name: "typescript",
        what: "the TypeScript client, and its package as a newcomer installs it",
        run: typescript::check,
    },
    Step { name: "policy", what: "the policies are valid and pass their tests", run: policy },
    Step { name: "deny", what: "dependencies: direction, licences, sources", run: deny },
    Step { name: "advisories", what: "dependencies: known vulnerabilities", run: advisories },
    Step { name: "buf", what: "the protocol buffers keep their style", run: buf },
    Step { name: "fuzz", what: "the fuzz targets compile", run: fuzz },
    Step { name: "release", what: "the program has no test code in it", run: release },
];

fn fmt() -> anyhow::Result<Outcome> {
    pass(&["fmt", "--all", "--check"])
}

fn clippy() -> anyhow::Result<Outcome> {
    pass(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn doc() -> anyhow::Result<Outcome> {
    run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Outcome::Pass)
}

fn test() -> anyhow::Result<Outcome> {
    let mut count = TestCount::default();
    // Without `--no-fail-fast` the count would end at the first test program with a failure.
    let success =
        run_seeing(&mut cargo(&["test", "--workspace", "--no-fail-fast"]), |line| count.add_line(line))?;
    if !success && count.failed == 0 {
        println!("a test program did not build or was killed: counted as one failure");
        count.failed = 1;
    }
    Ok(Outcome::Tests(count))
}

fn policy() -> anyhow::Result<Outcome> {
    for verb in ["check", "test"] {
        run(&mut cargo(&["run", "--quiet", "--package", "valetkey", "--", "policy", verb, "policies"]))?;
    }
    Ok(Outcome::Pass)
}

fn deny() -> anyhow::Result<Outcome> {
    let program = match tools::cargo_deny() {
        Ok(program) => program,
        Err(why) => return Ok(Outcome::NotChecked(why)),
    };
    run(&mut command(program, &["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    Ok(Outcome::Pass)
}

fn advisories() -> anyhow::Result<Outcome> {
    let program = match tools::cargo_deny() {
        Ok(program) => program,
        Err(why) => return Ok(Outcome::NotChecked(why)),
    };
    if output_of(&mut command(&program, &["fetch", "db"])).is_none() {
        return Ok(Outcome::NotChecked("advisory database unreachable".to_owned()));
    }
    run(&mut command(program, &["check", "--disable-fetch", "advisories"]))?;
    Ok(Outcome::Pass)
}

fn buf() -> anyhow::Result<Outcome> {
    let program = match tools::buf() {
        Ok(program) => program,
        Err(why) => return Ok(Outcome::NotChecked(why)),
    };
    run(&mut command(program, &["lint", "proto"]))?;
    Ok(Outcome::Pass)
}

fn fuzz() -> anyhow::Result<Outcome> {
    // The shared target directory spares a second build of what both workspaces depend on. A check
    // does not link, so the driver's C++ need not be compiled: any path stands for it.
    run(cargo(&["check", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target"])
        .env("CUSTOM_LIBFUZZER_PATH", "not/linked"))?;
    Ok(Outcome::Pass)
}

/// `test-util` opens what the types close, `Grant` first of all.
fn release() -> anyhow::Result<Outcome> {
    let mut test_code = Vec::new();
    let words = ["tree", "--package", "valetkey", "--edges", "features,no-dev", "--prefix", "none"];
    let Some(tree) = output_of(&mut cargo(&words)) else {
        return Ok(Outcome::Fail(format!("`cargo {}` gives no answer", words.join(" "))));
    };
    test_code.extend(tree.lines().filter(|line| line.contains("feature \"test-util\"")));
    Ok(match test_code.first() {
        None => Outcome::Pass,
        Some(first) => {
            Outcome::Fail(format!("the program is built with {first}; only dev-dependencies may ask for it"))
        }
    })
}

fn pass(words: &[&str]) -> anyhow::Result<Outcome> {
    run(&mut cargo(words))?;
    Ok(Outcome::Pass)
}
