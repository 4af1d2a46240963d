use super::*;
use std::os::unix::fs::PermissionsExt;

const HEADER: &str = "record_id,";

/// Three whole lines of each format, as exports write them, as far as they are looked at.
fn export(format: ExportFormat) -> String {
    let line = |id: u64| match format {
        ExportFormat::Jsonl => format!("{{\"kind\":\"start\",\"record_id\":\"{id}\"}}\n"),
        ExportFormat::Ocsf => format!("{{\"message\":\"ä\",\"metadata\":{{\"uid\":\"{id}\"}}}}\n"),
        ExportFormat::Csv => format!("{id},2026-11-01T08:30:00.000000Z,start,\"a,ä\"\n"),
    };
    format.header().unwrap_or_default() + &[1, 2, 30].map(line).concat()
}

fn resume(path: &Path, format: ExportFormat) -> Result<(Option<u64>, String), String> {
    match Begin::look(path, true, format) {
        Ok(begin) => {
            let Place { first, after } = begin.place();
            let after = after.map(|record| record.0);
            assert_eq!(first.map(|record| record.0), (after > Some(0)).then_some(1));
            begin.open().unwrap().finish().unwrap();
            Ok((after, fs::read_to_string(path).unwrap()))
        }
        Err(failure) => Err(failure.message),
    }
}

/// A file that is cut anywhere is gone on with after its last whole line.
#[test]
fn every_cut_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    for format in [ExportFormat::Jsonl, ExportFormat::Csv, ExportFormat::Ocsf] {
        let whole = export(format);
        for cut in 0..=whole.len() {
            let path = folder.path().join(format!("{}-{cut}", format.as_str()));
            fs::write(&path, whole.as_bytes().get(..cut).unwrap()).unwrap();
            let kept =
                whole.as_bytes()[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |feed| feed + 1);
            let lines = whole[..kept].lines().count();
            if lines == 0 && cut > 0 {
                assert!(resume(&path, format).unwrap_err().contains("left alone"), "{format:?} {cut}");
                assert_eq!(fs::read(&path).unwrap(), whole.as_bytes()[..cut]);
                continue;
            }
            let after = match (format, lines) {
                (_, 0) => None,
                (ExportFormat::Csv, lines) => Some([0, 1, 2, 30][lines - 1]),
                (_, lines) => Some([1, 2, 30][lines - 1]),
            };
            assert_eq!(resume(&path, format), Ok((after, whole[..kept].to_owned())), "{format:?} {cut}");
        }
    }
}

#[test]
fn another_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let (jsonl, csv) = (export(ExportFormat::Jsonl), export(ExportFormat::Csv));
    for (content, format) in [
        ("some letter\n", ExportFormat::Jsonl),
        ("some letter", ExportFormat::Jsonl),
        ("{\"a\": 1}", ExportFormat::Ocsf),
        ("{}\n", ExportFormat::Ocsf),
        (jsonl.as_str(), ExportFormat::Csv),
        (jsonl.as_str(), ExportFormat::Ocsf),
        (csv.as_str(), ExportFormat::Jsonl),
        ("1,2026\n", ExportFormat::Csv),
        (&"x".repeat(1 << 21), ExportFormat::Jsonl),
        (&("x".repeat(1 << 21) + "\n"), ExportFormat::Jsonl),
    ] {
        fs::write(&path, content).unwrap();
        let refused = resume(&path, format).unwrap_err();
        assert!(refused.contains("was left alone"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    assert!(csv.starts_with(HEADER));
}

#[test]
fn a_file_is_made_once_and_for_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let begin = Begin::look(&path, false, ExportFormat::Jsonl).unwrap();
    assert!(!path.exists(), "nothing is made before there is something to write");
    let mut file = begin.open().unwrap();
    file.write(b"{\"record_id\":\"1\"}\n").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = |resume| Begin::look(&path, resume, ExportFormat::Jsonl).err().unwrap().message;
    assert!(refused(false).contains("exists"));
    assert!(refused(true).contains("another export"), "two would mix their lines");
    file.finish().unwrap();
    assert_eq!(resume(&path, ExportFormat::Jsonl).unwrap().0, Some(1));
    // A name that leads elsewhere is not followed.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Begin::look(&link, true, ExportFormat::Jsonl).is_err());
    assert!(Begin::look(&link, false, ExportFormat::Jsonl).is_err());
}
