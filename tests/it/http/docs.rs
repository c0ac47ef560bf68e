//! The page that shows the contract.

use crate::support::spawn_app;

/// The addresses that a page loads or leads to.
fn addresses(page: &str) -> Vec<&str> {
    let after = |mark| page.split(mark).skip(1).map(|rest| rest.split('"').next().unwrap());
    after("src=\"").chain(after("href=\"")).filter(|address| !address.starts_with("data:")).collect()
}

#[tokio::test]
async fn the_page_loads_only_what_the_server_itself_serves() {
    let app = spawn_app().await;
    let page = app.get("/docs").await.text().await.unwrap();
    let addresses = addresses(&page);
    assert_eq!(addresses.len(), 5, "{page}");
    for address in addresses {
        let answer = app.get(&format!("/{address}")).await;
        assert_eq!(answer.status(), 200, "{address}");
    }
    app.finish().await;
}

#[tokio::test]
async fn the_page_shows_this_servers_contract_and_asks_nobody_whether_it_is_valid() {
    let app = spawn_app().await;
    let answer = app.get("/docs/swagger-initializer.js").await;
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    for part in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    let script = answer.text().await.unwrap();
    for setting in [r#""url": "openapi.yaml""#, r#""validatorUrl": "none""#, r#""layout": "BaseLayout""#] {
        assert!(script.contains(setting), "{script}");
    }
    app.finish().await;
}
