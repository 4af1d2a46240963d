//! `cargo xtask ci`: runs the steps in order, stops at the first that fails, and says what was checked.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::command::heading;
use crate::steps::{self, Step};

/// What came of a step.
pub(crate) enum Outcome {
    /// All is well.
    Pass,
    /// Tests ran, and none failed unless it says so.
    Tests(TestCount),
    /// It could not be looked at, and why.
    NotChecked(String),
    /// Something is wrong.
    Fail(String),
}

/// Test results, summed up over all test programs.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct TestCount {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) ignored: u32,
    /// Tests that said, in a line of their own, that they could not look at what they are for. They are among
    /// those that passed.
    pub(crate) skipped: u32,
}

/// Runs the steps of these names, or all.
pub(crate) fn run(names: &[&str]) -> anyhow::Result<ExitCode> {
    let chosen = choose(names)?;
    let mut report = Report::default();
    for step in &chosen {
        heading(&format!("{}: {}", step.name, step.what));
        let start = Instant::now();
        let outcome = (step.run)().unwrap_or_else(|error| Outcome::Fail(format!("{error:#}")));
        let row = Row { name: step.name, time: start.elapsed(), outcome };
        println!("{}", row.text());
        let failed = row.failed();
        report.rows.push(row);
        if failed {
            println!("run it alone: cargo xtask ci {}", step.name);
            break;
        }
    }
    heading("summary");
    println!("{}", report.text(&chosen));
    Ok(if report.rows.iter().any(Row::failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl TestCount {
    /// Adds what a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …` says, or one
    /// such as `SKIPPED: a_test: why`; other lines say nothing.
    pub(crate) fn add_line(&mut self, line: &str) {
        self.skipped += u32::from(line.starts_with("SKIPPED: "));
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ').map(|(number, what)| (number.parse().unwrap_or(0), what)) {
                Some((number, "passed")) => self.passed += number,
                Some((number, "failed")) => self.failed += number,
                Some((number, "ignored")) => self.ignored += number,
                Some(_) | None => {}
            }
        }
    }

    /// Adds what pytest's last line says, such as `1 failed, 73 passed, 2 skipped in 3.26s`.
    pub(crate) fn add_pytest_line(&mut self, line: &str) {
        let Some((counts, time)) = line.trim_matches(['=', ' ']).rsplit_once(" in ") else { return };
        if !time.starts_with(|c: char| c.is_ascii_digit()) {
            return;
        }
        for count in counts.split(", ") {
            match count.split_once(' ').map(|(number, what)| (number.parse().unwrap_or(0), what)) {
                Some((number, "passed")) => self.passed += number,
                Some((number, "failed" | "error" | "errors")) => self.failed += number,
                // As those that say so themselves, which count among the passed.
                Some((number, "skipped")) => {
                    self.passed += number;
                    self.skipped += number;
                }
                Some(_) | None => {}
            }
        }
    }
}

#[derive(Default)]
struct Report {
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    time: Duration,
    outcome: Outcome,
}

impl Row {
    fn failed(&self) -> bool {
        match &self.outcome {
            Outcome::Pass | Outcome::NotChecked(_) => false,
            Outcome::Tests(count) => count.failed > 0,
            Outcome::Fail(_) => true,
        }
    }

    fn text(&self) -> String {
        let result = match &self.outcome {
            Outcome::Pass => "ok".to_owned(),
            Outcome::Tests(TestCount { passed, failed, ignored, skipped }) => {
                let verdict = if *failed > 0 { "FAILED" } else { "ok" };
                let passed = passed.saturating_sub(*skipped);
                format!(
                    "{verdict}: {passed} tests passed, {failed} failed, {ignored} ignored, {skipped} SKIPPED"
                )
            }
            Outcome::NotChecked(why) => format!("NOT CHECKED: {why}"),
            Outcome::Fail(why) => format!("FAILED: {why}"),
        };
        format!("{:<12} {:>7.1} s  {result}", self.name, self.time.as_secs_f64())
    }

    /// How much of what was checked here passed and failed: a test counts one, any other step too.
    fn counts(&self) -> (u32, u32) {
        match &self.outcome {
            Outcome::Pass => (1, 0),
            Outcome::Tests(count) => (count.passed.saturating_sub(count.skipped), count.failed),
            Outcome::NotChecked(_) => (0, 0),
            Outcome::Fail(_) => (0, 1),
        }
    }
}

impl Report {
    /// A row for each step chosen; the last line is the sum.
    fn text(&self, chosen: &[&Step]) -> String {
        let mut lines: Vec<String> = self.rows.iter().map(Row::text).collect();
        let left = chosen.iter().skip(self.rows.len());
        lines.extend(left.map(|step| format!("{:<12} {:>7} -  not run", step.name, "")));
        let (passed, failed) =
            self.rows.iter().map(Row::counts).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        lines.push(String::new());
        lines.push(format!("{passed} passed, {failed} failed"));
        lines.join("\n")
    }
}

fn choose(names: &[&str]) -> anyhow::Result<Vec<&'static Step>> {
    if let Some(unknown) = names.iter().find(|name| steps::ALL.iter().all(|step| step.name != **name)) {
        let known: Vec<&str> = steps::ALL.iter().map(|step| step.name).collect();
        bail!("there is no step `{unknown}`; there are {}", known.join(", "));
    }
    let chosen: Vec<_> =
        steps::ALL.iter().filter(|step| names.is_empty() || names.contains(&step.name)).collect();
    chosen.first().context("there are no steps")?;
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, outcome: Outcome) -> Row {
        Row { name, time: Duration::from_millis(1_500), outcome }
    }

    #[test]
    fn test_results_are_summed() {
        let mut count = TestCount::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 5 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.10s",
            "a test printed: 9 passed; 9 failed",
            "SKIPPED: sign_in: pip cannot fetch it",
        ] {
            count.add_line(line);
        }
        assert_eq!(count, TestCount { passed: 5, failed: 5, ignored: 1, skipped: 1 });
    }

    #[test]
    fn pytest_results_are_summed() {
        let mut count = TestCount::default();
        for line in [
            "73 passed in 3.26s",
            "===== 1 failed, 2 passed, 3 skipped, 1 error in 75.10s (0:01:15) =====",
            "a test printed: 9 passed in time",
            "SKIPPED [1] tests/test_a.py:3: not here",
        ] {
            count.add_pytest_line(line);
        }
        assert_eq!(count, TestCount { passed: 78, failed: 2, ignored: 0, skipped: 3 });
    }

    #[test]
    fn the_last_line_is_the_sum() {
        let tests = TestCount { passed: 9, failed: 0, ignored: 2, skipped: 2 };
        let mut report = Report { rows: vec![row("fmt", Outcome::Pass), row("test", Outcome::Tests(tests))] };
        report.rows.push(row("buf", Outcome::NotChecked("no npm".to_owned())));
        assert!(report.text(&[]).ends_with("\n8 passed, 0 failed"));
        report.rows.push(row("deny", Outcome::Fail("banned".to_owned())));
        assert!(report.text(&[]).ends_with("\n8 passed, 1 failed"));
        assert!(report.rows.last().is_some_and(Row::failed));
    }

    #[test]
    fn steps_are_chosen_by_name_in_their_order() {
        let names = |words: &[&str]| {
            choose(words).map(|steps| steps.iter().map(|step| step.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["test", "fmt"]).unwrap(), ["fmt", "test"]);
        assert_eq!(names(&[]).unwrap().len(), steps::ALL.len());
        assert!(names(&["tests"]).unwrap_err().to_string().contains("no step `tests`"));
    }
}
