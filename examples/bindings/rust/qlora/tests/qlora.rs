//! What every binding proves; the numbers are in ../../../fixture.json, made by the library's reference backend.
use qlora::{sys, Adapter, Backend, Context};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

/// The text after `"key": ` in a file of plain JSON.
fn after(json: &str, key: &str) -> String {
    let mark = format!("\"{key}\": ");
    json[json.find(&mark).expect(key) + mark.len()..].to_string()
}

struct Fixture(String);

impl Fixture {
    fn load(name: &str) -> Self {
        Fixture(std::fs::read_to_string(format!("{}/../../{name}", env!("CARGO_MANIFEST_DIR"))).unwrap())
    }
    fn text(&self, key: &str) -> String {
        after(&self.0, key).split('"').nth(1).unwrap().to_string()
    }
    fn number(&self, key: &str) -> f64 {
        after(&self.0, key).split([',', '\n', '}'].as_ref()).next().unwrap().trim().parse().unwrap()
    }
    fn integer(&self, key: &str) -> u64 {
        self.number(key) as u64
    }
    fn numbers(&self, key: &str) -> Vec<f64> {
        let list = after(&self.0, key);
        list[1..list.find(']').unwrap()].split(',').map(|number| number.trim().parse().unwrap()).collect()
    }
    fn floats(&self, key: &str) -> Vec<f32> {
        self.numbers(key).into_iter().map(|number| number as f32).collect()
    }
    fn weight<'a>(&self, context: &'a Context) -> qlora::Weight<'a> {
        context.quantize(&self.text("format"), self.integer("rows"), self.integer("cols"), &self.floats("weights")).unwrap()
    }
}

/// ||found - expected|| / ||expected||
fn distance(found: impl IntoIterator<Item = f64>, expected: &[f64]) -> f64 {
    let error: f64 = found.into_iter().zip(expected).map(|(a, b)| (a - b) * (a - b)).sum();
    (error / expected.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

#[test]
fn version_is_that_of_the_declarations() {
    let (major, minor, patch) = qlora::version();
    assert_eq!(format!("{major}.{minor}.{patch}"), Fixture::load("qlora.json").text("version"));
}

#[test]
fn an_error_has_its_status_and_says_why() {
    let fixture = Fixture::load("fixture.json");
    let context = Context::new(Backend::Cpu).unwrap();
    let weight = fixture.weight(&context);
    let (x, mut y) = (context.zeros(64).unwrap(), context.zeros(1).unwrap());
    let error = weight.matmul(&x, 1, &mut y).unwrap_err();
    assert_eq!(error.status, sys::QLORA_ERROR_SHAPE);
    assert!(error.to_string().contains("qlora_weight_matmul: y"), "{error}");
    assert!(context.quantize("nonsense", 1, 1, &[0.0]).is_err());
}

#[test]
fn a_log_receives_lines_and_a_panic_in_it_comes_out() {
    let fixture = Fixture::load("fixture.json");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let context = Context::with_log(Backend::Cpu, move |line| sink.lock().unwrap().push(line.to_string())).unwrap();
    assert!(fixture.weight(&context).matmul(&context.zeros(1).unwrap(), 1, &mut context.zeros(1).unwrap()).is_err());
    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("qlora_weight_matmul"));

    let context = Context::with_log(Backend::Cpu, |line| panic!("thrown at {line}")).unwrap();
    let weight = fixture.weight(&context);
    let outcome = catch_unwind(AssertUnwindSafe(|| weight.matmul(&context.zeros(1).unwrap(), 1, &mut context.zeros(1).unwrap())));
    let panic = outcome.expect_err("the panic was lost");
    assert!(panic.downcast_ref::<String>().unwrap().contains("thrown at qlora_weight_matmul"));
    let (x, mut y) = (context.buffer(&fixture.floats("x")).unwrap(), context.zeros(fixture.numbers("y").len()).unwrap());
    weight.matmul(&x, fixture.integer("tokens"), &mut y).unwrap(); // and all goes on
}

#[test]
fn quantize_and_matmul() {
    let fixture = Fixture::load("fixture.json");
    let expected = fixture.numbers("y");
    for backend in [Backend::Reference, Backend::Cpu] {
        let context = Context::new(backend).unwrap();
        let (x, mut y) = (context.buffer(&fixture.floats("x")).unwrap(), context.zeros(expected.len()).unwrap());
        fixture.weight(&context).matmul(&x, fixture.integer("tokens"), &mut y).unwrap();
        assert!(distance(y.read().unwrap().into_iter().map(f64::from), &expected) <= fixture.number("matmul_tolerance"));
    }
}

#[test]
fn five_steps_of_training() {
    let fixture = Fixture::load("fixture.json");
    let (tokens, goal) = (fixture.integer("tokens"), fixture.floats("goal"));
    for backend in [Backend::Reference, Backend::Cpu] {
        let context = Context::new(backend).unwrap();
        let weight = fixture.weight(&context);
        let mut adapter = Adapter::new(&weight, fixture.integer("rank"), fixture.number("scale") as f32, &fixture.floats("a")).unwrap();
        let (x, mut y) = (context.buffer(&fixture.floats("x")).unwrap(), context.zeros(goal.len()).unwrap());
        let mut losses = Vec::new();
        for _ in 0..5 {
            adapter.forward(&x, tokens, &mut y).unwrap();
            let dy: Vec<f32> = y.read().unwrap().iter().zip(&goal).map(|(y, goal)| y - goal).collect();
            losses.push(dy.iter().map(|&d| f64::from(d) * f64::from(d)).sum::<f64>() / 2.0);
            y.write(&dy).unwrap();
            adapter.backward(&x, tokens, &y).unwrap();
            adapter.step(fixture.number("learning_rate") as f32).unwrap();
        }
        assert!(distance(losses, &fixture.numbers("losses")) <= fixture.number("tolerance"));
    }
}

#[test]
fn contexts_come_and_go() {
    for _ in 0..1000 {
        assert!(!Context::new(Backend::Cpu).unwrap().name().unwrap().is_empty());
    }
}
