//! Puts and sweeps of the image store on a Redis of one's own:
//! `cargo run --release -p windlass-store --example images_bench -- redis://127.0.0.1:6379`.
//!
//! It fills the server with 100,000 small images under a prefix of its own and clears them.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use windlass_jobs::Timestamp;
use windlass_redis::{Link, Options};
use windlass_store::images::{Facts, ImageId, ImageOptions, NewImage, RedisImages};

const IMAGES: u64 = 100_000;
const OLD: u64 = 1_000;

fn image(number: u64, bytes: usize, created_at: Option<Timestamp>) -> NewImage {
    let mut data = number.to_le_bytes().to_vec();
    data.resize(bytes, 7);
    let facts = Facts { symbol: format!("S{}", number % 50), interval: "1d".to_owned(), ..Facts::default() };
    NewImage { id: ImageId::new(), bytes: Bytes::from(data), thumb: None, facts, created_at, max_age: None }
}

fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned());
    let link = Link::new(Options::from_url(&url)?)?;
    let day = Duration::from_secs(24 * 3600);
    let long = ImageOptions { max_age: day * 10, max_total_bytes: 8 << 30, ..ImageOptions::default() };
    let prefix = format!("bench{}", windlass_jobs::new_ulid());
    let images = RedisImages::new(link.clone(), &prefix, long.clone());
    let mut times: Vec<Duration> = Vec::new();
    for number in 0..2_000 {
        let new = image(number, 40_000, None);
        let begun = Instant::now();
        images.put(&new).await?;
        times.push(begun.elapsed());
    }
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    say(format_args!("put of 40 KB: p50 {:.3} ms, p99 {:.3} ms", ms(times[1_000]), ms(times[1_980])));
    let two_days = Timestamp(Timestamp::now().0 - windlass_jobs::millis(day * 2));
    for start in (0..IMAGES).step_by(200) {
        let batch = (start..start + 200).map(|n| image(n + 10_000, 256, (n < OLD).then_some(two_days)));
        let puts: Vec<NewImage> = batch.collect();
        for put in futures_util::future::join_all(puts.iter().map(|new| images.put(new))).await {
            put?;
        }
    }
    let short = RedisImages::new(link, &prefix, ImageOptions { max_age: day, ..long });
    let begun = Instant::now();
    let removed = short.sweep().await?;
    say(format_args!("sweep of {} among {}: {:.1} ms", removed.images, IMAGES + 2_000, ms(begun.elapsed())));
    let verified = images.verify(false).await?;
    say(format_args!("counters right: {}", verified.is_right()));
    images.clear(None, None).await?;
    Ok(())
}
