//! `coordinator demo`, as somebody sees it who tries the program.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use crate::support::{Home, eventually, run, start};

#[test]
fn the_demo_shows_who_waits_and_ends_by_ctrl_c() {
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_coordinator");
    let mut command = home.command("sh");
    let line = "exec \"$0\" demo --scene few >told";
    command.current_dir(home.path(".")).args(["-c", line, program]);
    let demo = start(command);
    let told = eventually("it tells where the page is", || {
        let told = fs::read_to_string(home.path("told")).ok()?;
        told.contains("terminal ").then_some(told)
    });
    let (_, rest) = told.split_once("http://").unwrap();
    let http = rest.split_once('/').unwrap().0.to_owned();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&http).unwrap();
        let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/").contains("/assets/app.js"));
    eventually("three wait", || get("/api/v1/waits").contains("\"waiting\":3").then_some(()));
    let (_, rest) = told.split_once("--server ").unwrap();
    let server = rest.lines().next().unwrap().trim();
    let status = run(home.coordinator(&["status", "--waits", "--server", server]));
    assert!(status.out.contains("\"inventory\""), "{status:?}");
    demo.signal(Signal::INT);
    assert_eq!(demo.end().code(), Some(0));
    assert!(TcpStream::connect(&http).is_err(), "nothing is left of it");
}
