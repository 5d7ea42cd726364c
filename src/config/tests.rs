//! What the configuration makes of its layers. Uses no environment but the one each test gives.

use std::path::Path;
use std::time::Duration;

use super::*;

fn env(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let pairs: Vec<(String, String)> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    move |name| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
}

fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_layers(&env(pairs), &[])
}

/// The problems of a configuration, as `key: fix`.
fn problems(pairs: &[(&str, &str)]) -> Vec<Problem> {
    load(pairs).expect_err("this configuration is wrong").problems
}

/// A configuration file with this text, in a directory that goes with the returned guard.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("given.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path.to_str().unwrap().to_owned())
}

#[test]
fn the_sample_is_the_default_and_needs_nothing_but_a_home() {
    let config = load(&[("HOME", "/home/anna")]).unwrap();
    assert_eq!(config.data_dir, Path::new("/home/anna/.local/share/hikyaku"));
    assert_eq!(config.database.url.expose(), "sqlite:///home/anna/.local/share/hikyaku/hikyaku.db");
    assert_eq!(config.web.listen.to_string(), "127.0.0.1:8025");
    assert_eq!(config.web.public_url(config.web.listen), "http://127.0.0.1:8025");
    assert!(config.relay.url.is_none() && config.web.api_key.is_none());
    assert_eq!(config.worker.lease, Duration::from_secs(10));
    assert_eq!(config.retry.max_age, Duration::from_secs(72 * 3_600));
    assert_eq!(config.log.format, LogFormat::Text);
}

#[test]
fn every_environment_variable_is_named_beside_its_key_in_the_sample() {
    for (variable, key) in ENVIRONMENT {
        let name = key.rsplit('.').next().unwrap();
        let beside = |line: &str| line.starts_with(&format!("{name} = ")) && line.ends_with(&format!("# {variable}"));
        assert!(SAMPLE.lines().any(beside), "no line `{name} = … # {variable}` in config.default.toml");
    }
}

#[test]
fn the_later_layer_wins() {
    let (_dir, path) = file("[web]\nlisten = \"127.0.0.1:1\"\n[worker]\npoll_secs = 9\n[log]\nformat = \"json\"");
    let given = [
        ("HOME", "/h"),
        ("HIKYAKU_CONFIG", path.as_str()),
        ("HIKYAKU_LISTEN", "127.0.0.1:2"),
    ];
    let config = load(&given).unwrap();
    assert_eq!(config.web.listen.port(), 2, "the environment over the file");
    assert_eq!(config.worker.poll, Duration::from_secs(9), "the file over the defaults");
    assert_eq!(config.log.format, LogFormat::Json);
    let args = [("web.listen", "127.0.0.1:3"), ("worker.poll_secs", "7")];
    let config = Config::from_layers(&env(&given), &args).unwrap();
    assert_eq!(config.web.listen.port(), 3, "the command line over the environment");
    assert_eq!(config.worker.poll, Duration::from_secs(7));
}

#[test]
fn the_file_in_the_data_directory_is_read_when_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().to_str().unwrap();
    assert!(load(&[("HIKYAKU_DATA_DIR", data_dir)]).is_ok(), "it need not be there");
    std::fs::write(dir.path().join("config.toml"), "[database]\nconnections = 3").unwrap();
    assert_eq!(load(&[("HIKYAKU_DATA_DIR", data_dir)]).unwrap().database.connections, 3);
    let by_args = Config::from_layers(&env(&[]), &[("data_dir", data_dir)]).unwrap();
    assert_eq!(by_args.database.connections, 3);
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let found = problems(&[("HOME", "/h"), ("HIKYAKU_CONFIG", "/nowhere/hikyaku.toml")]);
    assert_eq!((found[0].key.as_str(), found[0].origin.as_str()), ("/nowhere/hikyaku.toml", "HIKYAKU_CONFIG"));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let config = load(&[("HOME", "/h"), ("HIKYAKU_RELAY_URL", ""), ("HIKYAKU_LISTEN", "")]).unwrap();
    assert!(config.relay.url.is_none());
    assert_eq!(config.web.listen.port(), 8025);
}

#[test]
fn all_problems_are_told_at_once_each_with_key_origin_and_fix() {
    let (_dir, path) = file(
        r#"
        web = { listen = 8025, lisen = "x" }
        worker = { lease_secs = 9, heartbeat_secs = 4, poll_secs = -1 }
        retry = { delays_secs = [] }
        dns = { mx_lanes = "yes" }
        smtp = { host = "x" }
        "#,
    );
    let found = problems(&[
        ("HOME", "/h"),
        ("HIKYAKU_CONFIG", &path),
        ("HIKYAKU_DATABASE_URL", "mysql://root:hunter2@db/x"),
        ("HIKYAKU_DNS_SERVER", "ns1.example.org"),
        ("HIKYAKU_LOG_FORMAT", "xml"),
        ("HIKYAKU_PUBLIC_URL", "mail.example.org"),
        ("HIKYAKU_API_KEY", "short"),
    ]);
    let mut keys: Vec<(&str, &str)> = found.iter().map(|p| (p.key.as_str(), p.origin.as_str())).collect();
    keys.sort_unstable();
    let mut expected = [
        ("web.listen", path.as_str()),
        ("web.lisen", &path),
        ("worker.heartbeat_secs", &path),
        ("worker.poll_secs", &path),
        ("retry.delays_secs", &path),
        ("smtp", &path),
        ("dns.mx_lanes", &path),
        ("dns.server", "HIKYAKU_DNS_SERVER"),
        ("database.url", "HIKYAKU_DATABASE_URL"),
        ("log.format", "HIKYAKU_LOG_FORMAT"),
        ("web.public_url", "HIKYAKU_PUBLIC_URL"),
        ("web.api_key", "HIKYAKU_API_KEY"),
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert!(!format!("{found:?}").contains("hunter2"), "a password was repeated");
}

#[test]
fn a_file_that_is_no_toml_is_told_by_its_line_and_not_quoted() {
    let (_dir, path) = file("[relay]\nurl = \"smtp://u:hunter2@relay\" oops\n");
    let found = problems(&[("HOME", "/h"), ("HIKYAKU_CONFIG", &path)]);
    assert_eq!(found[0].key, "line 2");
    assert!(!found[0].to_string().contains("hunter2"), "{}", found[0]);
}

#[test]
fn without_a_home_the_fix_names_the_variable_to_set() {
    let found = problems(&[]);
    assert_eq!(found.len(), 1);
    assert!(found[0].fix.contains("HIKYAKU_DATA_DIR"), "{}", found[0]);
}

#[test]
fn a_path_with_special_characters_survives_in_the_database_url() {
    let config = load(&[("HIKYAKU_DATA_DIR", "/data/50% off?")]).unwrap();
    assert_eq!(config.database.url.expose(), "sqlite:///data/50%25 off%3F/hikyaku.db");
}

#[test]
fn a_database_in_memory_is_refused() {
    for url in ["sqlite::memory:", "sqlite://file?mode=memory", "sqlite:", "sqlite://"] {
        let found = problems(&[("HOME", "/h"), ("HIKYAKU_DATABASE_URL", url)]);
        assert_eq!(found[0].key, "database.url", "{url}");
    }
}

#[test]
fn debug_output_holds_no_secret() {
    let config = load(&[
        ("HOME", "/h"),
        ("HIKYAKU_API_KEY", "hunter2-hunter2-hunter2"),
        ("HIKYAKU_DATABASE_URL", "postgres://app:hunter2@db/mail"),
        ("HIKYAKU_RELAY_URL", "smtp://app:hunter2@relay:587"),
    ])
    .unwrap();
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}

#[test]
fn links_start_with_what_a_recipient_can_open() {
    let config = load(&[("HOME", "/h"), ("HIKYAKU_PUBLIC_URL", "https://mail.example.org/")]).unwrap();
    assert_eq!(config.web.public_url(config.web.listen), "https://mail.example.org");
    let config = load(&[("HOME", "/h"), ("HIKYAKU_LISTEN", "0.0.0.0:80")]).unwrap();
    assert_eq!(config.web.public_url(config.web.listen), "http://localhost:80");
}
