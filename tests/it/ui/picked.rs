//! A file that is picked on the import page: a real browser reads it into the form, whatever it was saved as.

use super::app::{App, EMAIL, PASSWORD};
use super::webdriver::Browser;
use crate::support::database::fresh_sqlite;

#[tokio::test(flavor = "multi_thread")]
async fn a_picked_file_is_read_in_its_own_characters() {
    let app = App::start(fresh_sqlite()).await;
    let b = Browser::start().await;
    b.open(&app.setup_link().await).await;
    b.fill("#email", EMAIL).await;
    b.fill("#password", PASSWORD).await;
    b.press("button[type=submit]").await;
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let text = "email;name\nz@example.org;Zoë\n";
    let utf16: Vec<u8> = format!("\u{feff}{text}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let western: Vec<u8> = text
        .chars()
        .map(|c| u8::try_from(u32::from(c)).expect("it is Latin 1"))
        .collect();
    for (bytes, says) in [(text.as_bytes().to_vec(), ""), (utf16, ""), (western, "windows-1252")] {
        let path = folder.path().join("people.csv");
        std::fs::write(&path, bytes).expect("a file can be written");
        b.open(&format!("{}/contacts/import", app.base)).await;
        b.wait_for("#file").await;
        let picker = b
            .client
            .find(fantoccini::Locator::Css("#file"))
            .await
            .expect("there is a picker");
        picker
            .send_keys(&path.display().to_string())
            .await
            .expect("a file can be picked");
        let script =
            "return [document.getElementById('csv').value, document.querySelector('[data-decoded]').textContent]";
        let mut seen = (String::new(), String::new());
        for _ in 0..100 {
            let answer = b.client.execute(script, vec![]).await.expect("the script runs");
            seen = serde_json::from_value(answer).expect("two texts");
            if !seen.0.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(seen.0, text);
        assert!(seen.1.contains(says) && (says.is_empty() != seen.1.contains("not UTF-8")), "{}", seen.1);
    }
    b.close().await;
}
